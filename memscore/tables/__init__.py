"""Tables for a terminal; only this package and the commands print."""
