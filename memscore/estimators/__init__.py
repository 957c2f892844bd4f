"""Estimators: from [models, examples] arrays to one value per example, one paper per file."""
