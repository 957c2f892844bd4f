"""Cheap stand-ins for memorization: one model, or a few, to one number an example."""
