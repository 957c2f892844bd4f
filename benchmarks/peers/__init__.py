"""What a user of each other tool would write for the same task."""
