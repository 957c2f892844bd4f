"""Cheap stand-ins for memorization: one model, or a few, to one number an example."""

EVENTS = {"confidence": -1, "max_confidence": -1, "entropy": 1, "accuracy": -1, "forgetting": 1}
"""Learning events: +1 where a higher value goes with more memorization (SCALE Table 1), -1 where it goes with less."""
