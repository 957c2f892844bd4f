"""Unlearning: from an original model and a forget set to an unlearned model, and how good it is."""
