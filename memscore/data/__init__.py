"""Load data sets as splits of uint8 images."""
