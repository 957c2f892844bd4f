"""memscore: train banks of subset models and compute one row of scores per example."""
