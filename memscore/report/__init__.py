"""One self-contained page about a bank: `python -m memscore.report STORE`."""
