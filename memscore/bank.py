"""Look after a bank that is on file, or begin one from somebody else's masks and margins."""

import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Annotated

from memscore.cli.app import quiet_interrupt_during_imports, run_command

if __name__ == "__main__":
    quiet_interrupt_during_imports()

import tyro
from rich.console import Console

from memscore.analysis.import_bank import ExternalArrays, import_bank
from memscore.store.store import Store
from memscore.store.verify import quarantine_damaged, verify
from memscore.tables import bank_tables


def verify_bank(store: tyro.conf.Positional[str], set_aside: bool = False) -> int:
    """Read every file of a store and compare it with the hashes that stand in it.

    Args:
        store: path or URL of the store.
        set_aside: move damaged files to the store's folder damaged/; the command that wrote them makes them again.

    Returns:
        Exit code: 0 if all is well, 1 if a file is damaged, missing, or older than what it was made from.
    """
    bank = Store.open(store)
    with bank.lock() if set_aside else nullcontext():
        verdict = verify(bank)
        moved = quarantine_damaged(bank, verdict) if set_aside else {}
    for path, reason in verdict.damaged.items():
        print(f"damaged: {path}: {reason}" + (f"; moved to {moved[path]}" if path in moved else ""))
    for word, paths in (("missing", verdict.missing), ("old", verdict.stale)):
        for path, way_out in paths.items():
            print(f"{word}: {path}: {way_out}")
    found = [f"{len(verdict.damaged)} damaged", f"{len(verdict.missing)} missing", f"{len(verdict.stale)} old"]
    print(f"{verdict.verified} files verified, {', '.join(found)}")
    if verdict.damaged and not moved:
        print("--set-aside moves them away; the command that wrote them makes them again")
    return 1 if verdict.damaged or verdict.missing or verdict.stale else 0


def import_source(source: Annotated[ExternalArrays, tyro.conf.arg(name="")]) -> int:
    """Begin a store from arrays of who was in which model and what the models said, and score it.

    Args:
        source: the arrays.

    Returns:
        Exit code 0.
    """
    outcome = import_bank(source)
    console = Console(width=None if sys.stdout.isatty() else 110)
    bank_tables.print_result(console, outcome, Store.open(source.store).folder.display_name)
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run one command; errors of the user's making are one line and exit code 2, Ctrl-C is 130."""
    commands: dict[str, Callable[..., int]] = {"verify": verify_bank, "import": import_source}
    prog = "python -m memscore.bank"
    return run_command(
        lambda: int(tyro.extras.subcommand_cli_from_dict(commands, prog=prog, description=__doc__, args=arguments))
    )


if __name__ == "__main__":
    sys.exit(main())
