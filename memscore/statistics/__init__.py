"""Statistics that know nothing of banks."""
