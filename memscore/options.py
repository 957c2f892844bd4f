"""Types of options that may be left out, where tyro's own word for that would say nothing."""

from typing import Annotated, TypeVar

import tyro

T = TypeVar("T")

Maybe = Annotated[T | None, tyro.conf.arg(help_behavior_hint="")]
"""T or None; the help says what happens without it, so no "(default: None)" follows."""

Several = Annotated[tuple[str, ...], tyro.conf.arg(help_behavior_hint=lambda names: f"(default: {names or 'none'})")]
"""Any number of strings; where none is the default, the help says so."""
