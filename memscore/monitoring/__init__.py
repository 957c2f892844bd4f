"""Progress of a run, and the status of a bank from its files."""
