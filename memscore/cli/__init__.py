"""What every command shares: how it ends, and types of its options."""
