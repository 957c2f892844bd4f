"""Print names that an option takes, each with a line about it: the commands `list` of both programs."""

import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping

from memscore.cli.program import PROGRAMS
from memscore.cli.suggestion import suggest

Names = Mapping[str, str]
"""Name -> what it is."""
LISTED = {
    "memscore": ("data", "architectures", "recipes", "presets", "attacks", "proxies", "scores"),
    "unlearn": ("algorithms", "measures", "forget-sets", "variants", "experiments"),
}
"""What the command `list` of each program lists."""


def validate_kinds(program: str, kinds: Iterable[str], prog: str) -> tuple[str, ...]:
    """Return the kinds to list, all of the program's if none is named; ValueError for an unknown one."""
    kinds = tuple(kinds) or LISTED[program]
    for kind in kinds:
        for other in PROGRAMS.keys() - {program}:
            if kind in LISTED[other]:
                raise ValueError(f"{prog} lists {', '.join(LISTED[program])}; {kind} are in `{other} list {kind}`")
        if kind not in LISTED[program]:
            near = suggest(kind, LISTED[program])
            raise ValueError(f"{prog} has no {kind!r}{near}; it lists {', '.join(LISTED[program])}")
    return kinds


def print_names(title: str, names: Names) -> None:
    """Print names in a column, and what each is beside it."""
    sys.stdout.write(f"{format_names(title, names)}\n")


def format_names(title: str, names: Names) -> str:
    """Format names in a column, and what each is beside it: lines, with their ends."""
    width = max(60, min(shutil.get_terminal_size().columns - 1, 100))
    column = min(max(map(len, names)) + 4, 34)
    lines = [f"{title}:"]
    for name, text in names.items():
        first, *others = textwrap.wrap(text, width - column) or [""]
        head = f"  {name}"
        # a name that is too long for the column stands above its text
        lines += [head.ljust(column) + first] if len(head) < column else [head, " " * column + first]
        lines += [" " * column + line for line in others]
    return "".join(f"{line.rstrip()}\n" for line in lines)
