"""Suggest the nearest of the names that a user could have meant."""

import difflib
from collections.abc import Iterable

NEAR = 0.65
"""Similarity from which on a name is suggested, as in memscore.choices."""


def suggest(word: str, known: Iterable[str]) -> str:
    """Return a remark that names the nearest known word; empty if none is near.

    >>> suggest("--modles", ["--models", "--seed"]), suggest("nonexist", ["mnist"])
    ('; did you mean --models?', '')
    """
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=NEAR)
    return f"; did you mean {near[0]}?" if near else ""
