"""Verify a stored bank, or create one from imported masks and margins."""

import sys
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import Annotated

from memscore.cli.app import quiet_interrupt, quiet_interrupt_during_imports, run_command

if __name__ == "__main__":
    quiet_interrupt()

import tyro
from rich.console import Console

from memscore.analysis.external_arrays import ExternalArrays


def verify_bank(store: tyro.conf.Positional[str], set_aside: bool = False) -> int:
    """Read every file of a store and compare it with its stored hashes.

    Args:
        store: path or URL of the store.
        set_aside: move damaged files to the store's folder damaged/; the command that wrote them makes them again.

    Returns:
        Exit code: 0 if all files are good, 1 if one is damaged, missing, or older than the files it was computed from.
    """
    with quiet_interrupt_during_imports():
        from memscore.store.filesystem import Folder, acquire_lock
        from memscore.store.manifest import CorruptManifest
        from memscore.store.store import Store
        from memscore.store.verify import quarantine_damaged, verify_folder

    folder = Folder.from_url(store)
    with suppress(CorruptManifest):  # it is reported with the other files; no store at all is an error
        Store.open(store)
    with acquire_lock(folder) if set_aside else nullcontext():
        result = verify_folder(folder)
        moved = quarantine_damaged(folder, result) if set_aside else {}
    for path, reason in result.damaged.items():
        place = f"; moved to {moved[path]}" if path in moved else ""
        advice = f"; {result.advice[path]}" if path in result.advice else ""
        print(f"damaged: {path}: {reason}{place}{advice}")
    for path in sorted(moved.keys() - result.damaged.keys()):
        print(f"moved: {path}: to {moved[path]}, so that the file that it belongs to is written again")
    for label, paths in (("missing", result.missing), ("old", result.stale)):
        for path, hint in paths.items():
            print(f"{label}: {path}: {hint}")
    counts = [f"{len(result.damaged)} damaged", f"{len(result.missing)} missing", f"{len(result.stale)} old"]
    print(f"{result.verified} files verified, {', '.join(counts)}")
    if result.damaged and not moved:
        print("--set-aside moves them away; the command that wrote them makes them again")
    return 1 if result.damaged or result.missing or result.stale else 0


def import_source(source: Annotated[ExternalArrays, tyro.conf.arg(name="")]) -> int:
    """Create a store from membership masks and predictions of other models, and score it."""
    with quiet_interrupt_during_imports():
        from memscore.analysis.import_bank import import_bank
        from memscore.store.store import Store
        from memscore.tables import bank_tables

    result = import_bank(source)
    console = Console(width=None if sys.stdout.isatty() else 110)
    bank_tables.print_result(console, result, Store.open(source.store).folder.display_name)
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command; user errors are one line and exit code 2, Ctrl-C is 130."""
    commands: dict[str, Callable[..., int]] = {"verify": verify_bank, "import": import_source}
    prog = "python -m memscore.bank"
    return run_command(
        lambda: int(tyro.extras.subcommand_cli_from_dict(commands, prog=prog, description=__doc__, args=arguments))
    )


if __name__ == "__main__":
    sys.exit(main())
