"""One algorithm on one forget set of one original."""
