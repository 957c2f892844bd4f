"""From a bank's options to scores.parquet: configure, train, reduce, write."""
