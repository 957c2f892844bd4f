"""List names that options take: `python -m memscore.list recipes`."""

import sys

from memscore.cli.app import run_command
from memscore.cli.stop_signals import quiet_interrupt, quiet_interrupt_during_imports

if __name__ == "__main__":
    quiet_interrupt()

import tyro

from memscore.cli.command_line import call_command
from memscore.cli.name_list import print_names, validate_kinds

PROG = "python -m memscore.list"
EXAMPLE = "recipes architectures"


def list_names(what: tyro.conf.Positional[tuple[str, ...]] = ()) -> int:
    """List data sets, architectures, recipes, presets, attacks, proxies or scores, with a line each.

    Args:
        what: data, architectures, recipes, presets, attacks, proxies, scores (default: all of them).

    Returns:
        Exit code 0.
    """
    kinds = validate_kinds("memscore", what, "memscore list")
    with quiet_interrupt_during_imports():
        from memscore.pipeline.name_lists import describe_names

    for kind in kinds:
        print_names(*describe_names(kind))
    return 0


def main(arguments: list[str] | None = None, prog: str = PROG) -> int:
    """Run the command; user errors are one line and exit code 2, Ctrl-C is 130."""
    return run_command(lambda: call_command(list_names, prog, arguments, EXAMPLE))


if __name__ == "__main__":
    sys.exit(main())
