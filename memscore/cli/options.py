"""Types of optional command-line options, with help texts that tyro does not give.

Only commands need tyro. Where it is missing the types of options say nothing more than their values' types, so that
jobs, which import the options of a bank, run on a machine that only trains; a command ends there as it imports tyro.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, TypeVar

try:
    import tyro
except ModuleNotFoundError as error:
    if error.name != "tyro":  # tyro is installed, and something that it needs is missing
        raise
    HAS_TYRO = False
else:
    HAS_TYRO = True

T = TypeVar("T")


def set_default_hint(hint: str | Callable[[Any], str]) -> Any:
    """Return an annotation that sets what the help adds about the default: a text, or a function of the default."""
    return tyro.conf.arg(help_behavior_hint=hint) if HAS_TYRO else None


NO_DEFAULT_HINT = set_default_hint("")
"""The help text names the default, so "(default: None)" is not added."""

Maybe = Annotated[T | None, NO_DEFAULT_HINT]
"""T or None."""

Several = Annotated[tuple[str, ...], set_default_hint(lambda names: f"(default: {names or 'none'})")]
"""Any number of strings; the help shows an empty default as none."""


def make_nonempty_spec(choices: Iterable[str]) -> Any:
    """Return an annotation with which tyro refuses an option without a value, which it would read as an empty tuple."""
    if not HAS_TYRO:
        return None
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


def format_flags(options: Mapping[str, Any]) -> list[str]:
    """Format options, by name as in Python, as they are typed; None and False are left out.

    An empty list of values is "none".

    >>> format_flags({"skip_bad": True, "lr": 0.1, "seed": None, "augment": ("crop", "flip")})
    ['--skip-bad', '--lr', '0.1', '--augment', 'crop', 'flip']
    """
    words = []
    for name, value in options.items():
        # None is an option that is left out, and False a switch that is off; 0 is a value
        if value is None or value is False:
            continue
        words.append(f"--{name.replace('_', '-')}")
        if isinstance(value, (tuple, list)):
            words += [str(each) for each in value] or ["none"]
        elif value is not True:
            words.append(str(value))
    return words
