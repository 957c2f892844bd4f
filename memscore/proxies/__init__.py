"""Proxies of memorization: scores from one model, or a few, with one number per example."""
