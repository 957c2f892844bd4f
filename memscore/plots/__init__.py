"""Plotting functions: arrays in, PNG out."""
