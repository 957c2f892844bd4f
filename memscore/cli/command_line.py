"""From the words after a command to a call of its function: help, version, and one line about what cannot be parsed."""

import contextlib
import inspect
import io
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from functools import partial, update_wrapper
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

import tyro

from memscore.cli.help_page import format_help, format_usage
from memscore.cli.option_list import Option, list_options
from memscore.cli.suggestion import suggest
from memscore.reading_limit import OPTION, set_max_bytes

MAX_BYTES = Option(
    name="max_bytes",
    owner="",
    text="most memory that the content of one of your files may take, such as 64GB (default: $MEMSCORE_MAX_BYTES, or "
    "3/4 of this machine's memory); larger ones are refused before they are read",
    kind=str,
)
"""Of every command that reads files of the user's; it is no part of a request, so the function does not get it."""
READS_FILES = {"data", "members", "forget"}
"""Options of such commands."""
HELP, VERSION = ("-h", "--help"), "--version"
FRAME = re.compile(r"[╭╮╰╯│─]+|\s+")
_command_line: ContextVar[tuple[str, ...]] = ContextVar("command_line", default=())


def call_command(
    function: Callable[..., int], prog: str, arguments: Sequence[str] | None, example: str, more_help: str = ""
) -> int:
    """Parse the words after a command and call its function with them; return what it returns.

    `more_help` stands below the help page. Prints help or the version and ends where these are requested. ValueError
    for words that cannot be parsed.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = list_options(function)
    if any(option.name in READS_FILES for option in options):
        options.append(MAX_BYTES)
    if set(HELP) & set(words):
        print_and_exit(format_help(function, options, prog, example) + more_help)
    if VERSION in words:
        print_and_exit(format_version())
    ordered, max_bytes = take_max_bytes(check_words(words, options, prog))
    _command_line.set((prog, *words))
    call = convert_words(function, ordered, prog)
    try:
        with set_max_bytes(max_bytes):
            return int(call())
    except SystemExit as error:  # no command ends so: code of the user's that was imported or called
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise RuntimeError(
            f"sys.exit({error.code!r}) was called in line {place.lineno} of {Path(place.filename).name}, which ends "
            "the command before its results are written; remove it there"
        ) from error


def take_max_bytes(words: Sequence[str]) -> tuple[list[str], str | None]:
    """Take --max-bytes out of words that were checked; return the others and its last value, None without it."""
    rest, value = list[str](), None
    remaining = iter(words)
    for word in remaining:
        name, equals, text = word.partition("=")
        if name.replace("_", "-") == OPTION:
            value = text if equals else next(remaining)
        else:
            rest.append(word)
    return rest, value


def get_command_line() -> tuple[str, ...]:
    """Return the command that runs, as the user typed it; empty where a function was called by a program."""
    return _command_line.get()


def print_and_exit(text: str) -> NoReturn:
    """Print a page for the user, and end with exit code 0."""
    sys.stdout.write(text)
    sys.stdout.flush()
    raise SystemExit(0)


def format_version() -> str:
    """Format memscore's version; a checkout that is not installed has none."""
    try:
        return f"memscore {metadata.version('memscore')}\n"
    except metadata.PackageNotFoundError:
        return "memscore, not installed: it runs from a checkout\n"


def convert_words(function: Callable[..., int], words: Sequence[str], prog: str) -> Callable[[], int]:
    """Convert words to the types of the function's parameters; the result calls it. ValueError if that fails."""

    def bind(*args: Any, **kwargs: Any) -> Callable[[], int]:
        return partial(function, *args, **kwargs)

    # tyro reads types and texts of the function that is wrapped
    update_wrapper(bind, function.func if isinstance(function, partial) else function)
    bind.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            bound: Callable[[], int] = tyro.cli(bind, prog=prog, args=words)
    except SystemExit as error:
        if not error.code:  # a page for completion in a shell was printed
            raise
        raise ValueError(unbox(box.getvalue(), prog)) from None
    return bound


def unbox(text: str, prog: str) -> str:
    """Return what tyro wrote into a box about an error as one line, up to its first rule."""
    title, *paragraphs = re.split(r"─{4,}", text.replace("╭─", "").replace("\n", " \n"))
    message = FRAME.sub(" ", paragraphs[0] if paragraphs else title).strip()
    return f"{message or FRAME.sub(' ', title).strip()}; {prog} --help lists what it takes"


def check_words(words: Sequence[str], options: Sequence[Option], prog: str) -> list[str]:
    """Check the words after a command, and return them with the plain ones first.

    ValueError, in one line, for an unknown option, a value of another type, or a missing word.
    """
    flags = {option.flag: option for option in options if not option.positional}
    switches = {f"--no-{flag[2:]}": option for flag, option in flags.items() if option.kind is bool} | flags
    places = [option for option in options if option.positional]
    given: set[str] = set()
    plain: list[str] = []
    typed: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or word == "--":
            if not places:
                raise ValueError(f"{prog} takes no word {word!r} here; {prog} --help lists what it takes")
            option = places[0] if places[0].several else places.pop(0)
            values = [word]
            plain.append(word)
        else:
            name, equals, value = word.partition("=")
            flag = name.replace("_", "-")
            if flag not in switches:
                raise ValueError(f"unknown option {name}{suggest(flag, switches)}; {prog} --help lists all")
            option = switches[flag]
            values = [value] if equals else take_values(option, rest, switches, places)
            if option.kind is not bool and not option.several and not values:
                raise ValueError(f"{flag} needs a value: {describe_value(option)}")
            typed += [word] if equals else [word, *values]
        given.add(option.name)
        if not all(value.strip() for value in values):
            what = option.name.upper() if option.positional else option.flag
            raise ValueError(
                f"{what} is empty; give {describe_value(option)}"
                + ("" if option.required else ", or leave it out")
                + " (is a variable of the shell not set?)"
            )
        if fault := next(filter(None, map(option.find_fault, values)), ""):
            raise ValueError(fault + suggest(values[0], option.choices))
    missing = [option for option in options if option.required and option.name not in given]
    if missing:
        needs = [describe_need(option) for option in missing]
        usage = format_usage(options, prog).removeprefix("usage: ")
        raise ValueError(f"{prog} needs {' and '.join(needs)}: {usage}")
    return [*plain, *typed]


def take_values(option: Option, rest: list[str], switches: Mapping[str, Option], places: Sequence[Option]) -> list[str]:
    """Take the values of an option from the words that follow it; plain words that must follow are left."""
    values: list[str] = []
    if option.kind is bool:
        return values
    n_needed = sum(place.required for place in places) if option.several else 0
    while len(rest) > n_needed and (option.several or not values):
        # a word that begins like an option is one, perhaps misspelt; a negative number has one dash
        if rest[0].startswith("--") or rest[0] in switches:
            break
        if values and places and option.find_fault(rest[0]):
            break  # no number: it is the plain word that may follow
        values.append(rest.pop(0))
    return values


def describe_value(option: Option) -> str:
    """Describe the value of an option in a few words."""
    if option.choices:
        return " | ".join(option.choices)
    return {int: "a whole number", float: "a number"}.get(option.kind, option.text.partition(";")[0].removesuffix("."))


def describe_need(option: Option) -> str:
    """Describe a required word in a few words."""
    return f"a {option.name}" if option.positional else option.flag
