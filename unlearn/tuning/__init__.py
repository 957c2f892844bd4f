"""Sweeps: which hyper-parameters, which plan."""
