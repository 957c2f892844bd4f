"""Command: list names that options take: `python -m unlearn.list algorithms`."""

import sys

from memscore.cli.app import run_command
from memscore.cli.stop_signals import quiet_interrupt, quiet_interrupt_during_imports

if __name__ == "__main__":
    quiet_interrupt()

import tyro

from memscore.cli.command_line import call_command
from memscore.cli.name_list import print_names, validate_kinds

PROG = "python -m unlearn.list"
EXAMPLE = "algorithms measures"


def list_names(what: tyro.conf.Positional[tuple[str, ...]] = ()) -> int:
    """List algorithms, measures, forget sets, variants or experiments, with a line each.

    Args:
        what: algorithms, measures, forget-sets, variants, experiments (default: all of them).

    Returns:
        Exit code 0.
    """
    kinds = validate_kinds("unlearn", what, "unlearn list")
    with quiet_interrupt_during_imports():
        from unlearn.experiments.name_lists import describe_names

    for kind in kinds:
        print_names(*describe_names(kind))
    return 0


def main(arguments: list[str] | None = None, prog: str = PROG) -> int:
    """Run the command; see memscore.cli.app.run_command."""
    return run_command(lambda: call_command(list_names, prog, arguments, EXAMPLE))


if __name__ == "__main__":
    sys.exit(main())
