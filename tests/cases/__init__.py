"""Public reports of this field as small programs: each runs the product and exits 0 where it is right."""
