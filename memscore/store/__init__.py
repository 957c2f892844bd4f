"""What is stored, where, and whether it is complete."""
