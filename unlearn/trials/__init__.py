"""Trials: one algorithm on one forget set of one original, measured against the oracle, as a row of a table."""
