"""From a data set to scores: one row an example, read from one bank of subset models."""
