"""One table or figure of a paper a file; registry.py lists them."""
