"""Algorithms over algorithms: which part of a forget set goes when, and by what."""
