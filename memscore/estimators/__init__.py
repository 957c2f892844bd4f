"""Estimators: from [models, examples] arrays to one value per example, a paper a file."""
