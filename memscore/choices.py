"""Choosing by name from a literal table, with the nearest name offered when there is none."""

import difflib
from collections.abc import Iterable


def validate_choice(kind: str, name: str, known: Iterable[str]) -> str:
    """The name itself if it is known.

    Args:
        kind: what the name names, for the message: "architecture", "data set".
        name: what the user wrote.
        known: every name there is.

    Returns:
        name, unchanged.

    Raises:
        ValueError: the name is not known; the message offers the nearest one and lists them all.

    >>> pick("design", "iid", ("iid", "exact"))
    'iid'
    >>> pick("design", "exakt", ("iid", "exact"))
    Traceback (most recent call last):
    ...
    ValueError: unknown design 'exakt'; did you mean 'exact'? (known: exact, iid)
    """
    names = sorted(known)
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"unknown {kind} {name!r}{hint} (known: {', '.join(names)})")
