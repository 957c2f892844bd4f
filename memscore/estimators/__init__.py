"""From blocks of the models x examples matrix to one value an example: arrays in, arrays out, one paper a file."""
