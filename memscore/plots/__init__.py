"""Plots of a bank: arrays in, PNG bytes out."""
