"""Compare the scores of a bank with memorization: `python -m memscore.fidelity STORE`."""

import sys
from typing import Annotated

from memscore.cli.app import run_command
from memscore.cli.stop_signals import quiet_interrupt, quiet_interrupt_during_imports

if __name__ == "__main__":
    quiet_interrupt()

import tyro

from memscore.cli.command_line import call_command
from memscore.cli.options import Maybe
from memscore.tables.console import open_console, print_line

PROG = "python -m memscore.fidelity"
EXAMPLE = "~/memscore/digits"


def compare_bank_scores(
    store: Annotated[Maybe[str], tyro.conf.Positional] = None, arm: Maybe[str] = None, draws: int = 200
) -> int:
    """Compare the stored scores of a bank; train nothing.

    Args:
        store: path or URL of the bank (default: the one used last in $MEMSCORE_HOME or ~/memscore).
        arm: arm whose memorization is the reference, if the bank has several.
        draws: bootstrap samples of the models, for the intervals.

    Returns:
        Exit code 0.

    Raises:
        ValueError: fewer than ten draws.
    """
    with quiet_interrupt_during_imports():
        from memscore.analysis.fidelity import compare_scores, write_comparison
        from memscore.monitoring.default_store import choose_store
        from memscore.store.store import Store
        from memscore.tables.fidelity_tables import print_fidelity
        from memscore.tables.outlying_line import print_outlying_models

    if draws < 10:
        raise ValueError(f"--draws must be 10 or more for an interval, got {draws}; 200 is the default")
    console = open_console()
    bank = Store.open(choose_store(store), check_manifest=True)
    comparison = compare_scores(bank, arm, draws=draws)
    print_fidelity(console, comparison, bank.class_names)
    print_outlying_models(console, bank)
    for path in write_comparison(bank, comparison):
        print_line(console, bank.folder.display_path(path))
    return 0


def main(arguments: list[str] | None = None, prog: str = PROG) -> int:
    """Run the command; user errors are one line and exit code 2, Ctrl-C is 130."""
    return run_command(lambda: call_command(compare_bank_scores, prog, arguments, EXAMPLE))


if __name__ == "__main__":
    sys.exit(main())
