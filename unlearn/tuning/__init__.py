"""Sweeps: search the hyper-parameters of methods, and judge the methods on other originals and forget sets."""
