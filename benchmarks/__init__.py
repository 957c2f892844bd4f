"""One script a claim; each writes results/<script>.json with the machine, versions, n, median and spread."""
