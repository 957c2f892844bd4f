"""Types of optional command-line options, with help texts that tyro does not give."""

from collections.abc import Iterable
from typing import Annotated, TypeVar

import tyro

T = TypeVar("T")

Maybe = Annotated[T | None, tyro.conf.arg(help_behavior_hint="")]
"""T or None; the help text names the default, so "(default: None)" is not added."""

Several = Annotated[tuple[str, ...], tyro.conf.arg(help_behavior_hint=lambda names: f"(default: {names or 'none'})")]
"""Any number of strings; the help shows an empty default as none."""


def make_nonempty_spec(choices: Iterable[str]) -> tyro.constructors.PrimitiveConstructorSpec[tuple[str, ...]]:
    """Make tyro refuse an Annotated[Several, ...] without a value, which it would read as an empty tuple."""
    listed = ", ".join(choices)

    def read(values: list[str]) -> tuple[str, ...]:
        if not values:
            raise ValueError(f"it has no value; there are {listed}; or leave it out")
        return tuple(values)

    return tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar="[STR [STR ...]]",
        instance_from_str=read,
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=list,
    )
