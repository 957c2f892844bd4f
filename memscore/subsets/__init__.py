"""Which examples each model is trained on."""
