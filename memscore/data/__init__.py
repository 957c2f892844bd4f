"""From a name or a path to splits of uint8 images."""
