"""Check names against a list of choices, and suggest the nearest one."""

import difflib
from collections.abc import Iterable

NEAR = 0.65
"""Similarity from which on a name is suggested: difflib's .6 takes 'mnist' for 'nonexist'."""
MODULE_FUNCTION = "module:function"
"""Stands for a user's own function in the lists of errors."""


def find_nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known name that was most likely meant; None if none is near.

    >>> find_nearest("sdg", ["adam", "sgd"]), find_nearest("nonexist", ["mnist"])
    ('sgd', None)
    """
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=NEAR)), None)


def validate_choice(kind: str, name: str, choices: Iterable[str]) -> str:
    """Return name if it is one of the choices; otherwise raise with the nearest one.

    Args:
        kind: what is named, for the message, such as "architecture" or "data set".
        name: as the user wrote it.
        choices: every valid name.

    Returns:
        name, unchanged.

    Raises:
        ValueError: an unknown name; the message suggests the nearest one and lists all.

    >>> validate_choice("design", "iid", ("iid", "exact"))
    'iid'
    >>> validate_choice("design", "exakt", ("iid", "exact"))
    Traceback (most recent call last):
    ...
    ValueError: unknown design 'exakt'; did you mean 'exact'? (known: exact, iid)
    """
    names = sorted(choices)
    if name in names:
        return name
    near = find_nearest(name, names)
    hint = f"; did you mean {near!r}?" if near else ""
    raise ValueError(f"unknown {kind} {name!r}{hint} (known: {', '.join(names)})")


def validate_choice_or_function(kind: str, name: str, choices: Iterable[str]) -> str:
    """Return name if it is one of the choices or module:function; otherwise raise as validate_choice.

    Whether there is such a function is for memscore.user_functions to find.

    >>> validate_choice_or_function("optimizer", "mine:lion", ("sgd", "adam"))
    'mine:lion'
    >>> validate_choice_or_function("optimizer", "sgdd", ("sgd", "adam"))
    Traceback (most recent call last):
    ...
    ValueError: unknown optimizer 'sgdd'; did you mean 'sgd'? (known: adam, module:function, sgd)
    """
    return name if ":" in name else validate_choice(kind, name, (*choices, MODULE_FUNCTION))
