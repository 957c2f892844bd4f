"""From a configuration to scores.parquet: configure, train, reduce, write."""
