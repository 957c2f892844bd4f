"""Suggest the nearest of the names that a user could have meant."""

from collections.abc import Iterable

from memscore.choices import find_nearest


def suggest(word: str, known: Iterable[str]) -> str:
    """Return a remark that names the nearest known word; empty if none is near.

    >>> suggest("--modles", ["--models", "--seed"]), suggest("nonexist", ["mnist"])
    ('; did you mean --models?', '')
    """
    near = find_nearest(word, known)
    return f"; did you mean {near}?" if near else ""
