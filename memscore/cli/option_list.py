"""What may be typed after a command: its options, read from the types and docstrings of the function that it calls.

tyro converts what was typed; this list is for help pages and for messages about what cannot be converted.
"""

import ast
import inspect
import itertools
import re
import types
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import partial
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro

EXPECTED = {int: "a whole number", float: "a number"}
"""What an option of a type takes, for messages."""
METAVARS = {int: "N", float: "X"}
SETTINGS = {"set": "NAME=VALUE"}
"""Options whose values are not named by the last word of their own names."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """One option or plain word of a command.

    Attributes:
        name: of the parameter or field, as in Python.
        owner: the dataclass or function that has it.
        text: what it does.
        kind: str, int, float or bool.
        choices: the values that it takes; empty if it takes any.
        several: whether it takes any number of values.
        takes_none: whether it may be left out without a value of its own.
        positional: whether it is a plain word.
        required: whether it has no default.
        default: used if it is left out.
    """

    name: str
    owner: str
    text: str
    kind: type
    choices: tuple[str, ...] = ()
    several: bool = False
    takes_none: bool = False
    positional: bool = False
    required: bool = False
    default: Any = None

    @property
    def flag(self) -> str:
        """The option as it is typed; of a plain word its name in capitals."""
        return self.name.upper() if self.positional else f"--{self.name.replace('_', '-')}"

    @property
    def metavar(self) -> str:
        """What stands for its value in a help page; empty for a switch."""
        if self.kind is bool or self.positional:
            return ""
        if self.choices:
            return "|".join(self.choices)
        value = SETTINGS.get(self.name) or METAVARS.get(self.kind) or self.name.rpartition("_")[2].upper()
        return f"{value} ..." if self.several else value

    def find_fault(self, value: str) -> str:
        """Return why this value cannot be taken; empty if it can, or if only tyro knows."""
        if self.takes_none and value == "None":
            return ""
        if self.choices and value not in self.choices:
            return f"{self.flag} takes {join_choices(self.choices)}, got {value!r}"
        if self.kind in EXPECTED:
            try:
                self.kind(value)
            except ValueError:
                return f"{self.flag} takes {EXPECTED[self.kind]}, got {value!r}"
        return ""


def join_choices(choices: tuple[str, ...]) -> str:
    """Join names for a sentence: a, b or c."""
    return " or ".join(filter(None, (", ".join(choices[:-1]), choices[-1])))


def list_options(function: Callable[..., Any]) -> list[Option]:
    """List the options of a command's function; a parameter that is a dataclass stands for its fields."""
    called = function.func if isinstance(function, partial) else function
    hints, texts = get_type_hints(called, include_extras=True), read_section(called.__doc__, "Args")
    options: list[Option] = []
    for name, parameter in inspect.signature(function).parameters.items():
        # Annotated[BankConfig, tyro.conf.arg(name="")]: the fields stand for the parameter
        config = get_args(hints[name])[0] if get_origin(hints[name]) is Annotated else hints[name]
        if is_dataclass(config):
            options += list_fields(config)
        else:
            has_default = parameter.default is not inspect.Parameter.empty
            default = parameter.default if has_default else MISSING
            options.append(make_option(name, called.__name__, hints[name], texts.get(name, ""), default))
    return options


def list_fields(config: Any) -> Iterator[Option]:
    """Yield the options that the fields of a dataclass stand for."""
    hints = get_type_hints(config, include_extras=True)
    texts = read_section(config.__doc__, "Attributes") | read_field_docstrings(config)
    for field in fields(config):
        yield make_option(field.name, config.__name__, hints[field.name], texts.get(field.name, ""), field.default)


def make_option(name: str, owner: str, hint: Any, text: str, default: Any) -> Option:
    """Make an option from its type; MISSING as a default means that it has none."""
    metadata, takes_none, several = (), False, False
    # Types are nested in any order: Annotated[T | None, ...] is Maybe[T], and T | None may hold an Annotated.
    while get_origin(hint) in {Annotated, Union, types.UnionType}:
        if get_origin(hint) is Annotated:
            hint, *more = get_args(hint)
            metadata = (*metadata, *more)
        else:
            takes_none = True
            [hint] = [part for part in get_args(hint) if part is not type(None)]
    if get_origin(hint) is tuple:
        several, hint = True, get_args(hint)[0]
    choices = get_args(hint) if get_origin(hint) is Literal else ()
    return Option(
        name=name,
        owner=owner,
        text=text,
        kind=str if choices else hint,
        choices=choices,
        several=several,
        takes_none=takes_none,
        positional=tyro.conf.Positional in metadata,
        required=default is MISSING,
        default=default,
    )


def read_section(docstring: str | None, section: str) -> dict[str, str]:
    """Read what a docstring's section, Args or Attributes, says of each name."""
    _, _, listed = inspect.cleandoc(docstring or "").partition(f"{section}:\n")
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", listed.partition("\n\n")[0], re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


def read_field_docstrings(config: Any) -> dict[str, str]:
    """Read the strings below the fields of a dataclass and its bases; Python itself does not keep them."""
    texts: dict[str, str] = {}
    for each in reversed(config.__mro__[:-1]):
        [body] = [node.body for node in ast.parse(inspect.getsource(each)).body if isinstance(node, ast.ClassDef)]
        for field, text in itertools.pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                texts[ast.unparse(field.target)] = " ".join(str(text.value.value).split())
    return texts
