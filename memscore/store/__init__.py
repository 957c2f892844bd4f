"""The store of a bank: which files it has, where they lie, and whether they are intact."""
