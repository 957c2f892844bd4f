"""Types of options that may be left out, where tyro's own word for that would say nothing."""

from collections.abc import Iterable
from typing import Annotated, TypeVar

import tyro

T = TypeVar("T")

Maybe = Annotated[T | None, tyro.conf.arg(help_behavior_hint="")]
"""T or None; the help says what happens without it, so no "(default: None)" follows."""

Several = Annotated[tuple[str, ...], tyro.conf.arg(help_behavior_hint=lambda names: f"(default: {names or 'none'})")]
"""Any number of strings; where none is the default, the help says so."""


def make_nonempty_spec(known: Iterable[str]) -> tyro.constructors.PrimitiveConstructorSpec[tuple[str, ...]]:
    """For Annotated[Several, ...]: the option without a value, which tyro takes for none of them, is refused.

    Args:
        known: what there is, for the words.

    Returns:
        How tyro is to read the values.
    """
    there = ", ".join(known)

    def read(values: list[str]) -> tuple[str, ...]:
        if not values:
            raise ValueError(f"it has no value; there are {there}; or leave it out")
        return tuple(values)

    return tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar="[STR [STR ...]]",
        instance_from_str=read,
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=list,
    )
