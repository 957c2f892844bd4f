"""From a recipe to trained weights and to what a model predicts."""
