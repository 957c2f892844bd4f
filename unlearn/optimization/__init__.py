"""The training loop of unlearning, and what several algorithms share."""
