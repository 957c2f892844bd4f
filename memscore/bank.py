"""Verify a stored bank, list its copies or highest scores, compare it with another, or import one."""

import sys
from collections.abc import Callable
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from memscore.cli.app import run_command
from memscore.cli.stop_signals import quiet_interrupt, quiet_interrupt_during_imports
from memscore.units import format_count
from memscore.visible_text import write_line

if __name__ == "__main__":
    quiet_interrupt()

import tyro

from memscore.analysis.external_arrays import ExternalArrays
from memscore.cli.command_line import call_command, get_command_line
from memscore.cli.options import Maybe
from memscore.cli.program import run_subcommand
from memscore.tables.console import open_console, print_line

PROG = "python -m memscore.bank"
UNKNOWN_SHOWN = 10
"""Files that memscore does not know which verify names."""
SUMMARIES = {
    "verify": "compare every file of a bank with its checksums",
    "duplicates": "list exact and near copies among the images of a bank",
    "highest": "list the ids of the examples with the highest values of a score",
    "compare": "compare the memorization of what two banks have in common",
    "import": "make a bank of existing masks and predictions of other models",
}
EXAMPLES = {
    "verify": "~/memscore/digits",
    "duplicates": "~/memscore/digits --near pixels",
    "highest": "~/memscore/digits --count 60",
    "compare": "~/memscore/digits ~/memscore/digits-rest",
    "import": "~/memscore/mine --member masks.npy --gap margins.npy",
}


def verify_bank(store: Annotated[Maybe[str], tyro.conf.Positional] = None, set_aside: bool = False) -> int:
    """Read every file of a store and compare it with its stored hashes.

    Args:
        store: path or URL of the store (default: the one used last in $MEMSCORE_HOME or ~/memscore; not with
            --set-aside, which moves files).
        set_aside: move damaged files to the store's folder damaged/; the command that wrote them makes them again.

    Returns:
        Exit code: 0 if all files are good, 1 if one is damaged, missing, or older than the files it was computed from.

    Raises:
        ValueError: --set-aside without a named store.
    """
    with quiet_interrupt_during_imports():
        from memscore.monitoring.default_store import choose_store
        from memscore.store.filesystem import Folder, acquire_lock
        from memscore.store.manifest import CorruptManifest
        from memscore.store.store import Store
        from memscore.store.verify import quarantine_damaged, verify_folder

    if store is None and set_aside:
        raise ValueError("--set-aside moves files, so it needs the store by its path or URL")
    store = choose_store(store)
    folder = Folder.from_url(store)
    with suppress(CorruptManifest):  # it is reported with the other files; no store at all is an error
        Store.open(store)
    with acquire_lock(folder) if set_aside else nullcontext():
        result = verify_folder(folder)
        moved = quarantine_damaged(folder, result) if set_aside else {}
    console = open_console()
    for path, reason in result.damaged.items():
        place = f"; moved to {moved[path]}" if path in moved else ""
        advice = f"; {result.advice[path]}" if path in result.advice else ""
        print_line(console, f"damaged: {path}: {reason}{place}{advice}")
    for path in sorted(moved.keys() - result.damaged.keys()):
        print_line(console, f"moved: {path}: to {moved[path]}, so that the file that it belongs to is written again")
    for label, paths in (("missing", result.missing), ("old", result.stale)):
        for path, hint in paths.items():
            print_line(console, f"{label}: {path}: {hint}")
    for path in result.unknown[:UNKNOWN_SHOWN]:
        print_line(console, f"unknown: {path}: no command of memscore writes or reads it; it does no harm")
    if rest := result.unknown[UNKNOWN_SHOWN:]:
        print_line(console, f"unknown: {format_count(len(rest), 'more file')}")
    counts = [f"{len(result.damaged)} damaged", f"{len(result.missing)} missing", f"{len(result.stale)} old"]
    print_line(console, f"{format_count(result.verified, 'file')} verified, {', '.join(counts)}")
    if result.damaged and not moved:
        print_line(console, "--set-aside moves them away; the command that wrote them makes them again")
    return 1 if result.damaged or result.missing or result.stale else 0


def list_duplicates(
    store: tyro.conf.Positional[str],
    near: Literal["none", "embeddings", "pixels"] = "none",
    threshold: Maybe[float] = None,
    data: Maybe[str] = None,
    folder: Maybe[str] = None,
) -> int:
    """List exact copies among a bank's images, and near ones; write duplicates.parquet and reports/.

    Args:
        store: path or URL of the store.
        near: compare images that are not equal too, by an original's embeddings or by pixels; takes N^2 products.
        threshold: cosine from which two images are near copies (default: that of 95 % of images and their own JPEG).
        data: where the bank's data are now, by name or path, or module:function (default: where they were read).
        folder: folder of the data set.

    Returns:
        Exit code 0.

    Raises:
        ValueError: a threshold of near copies that are not listed.
    """
    with quiet_interrupt_during_imports():
        from memscore.analysis.near_copies import find_near_copies
        from memscore.data.duplicates import find_copies
        from memscore.pipeline.reload_data import reload_splits
        from memscore.pipeline.tables import write_copies_table
        from memscore.store.copy_counts import NEAR_COPIES_PATH
        from memscore.store.store import Store
        from memscore.tables.duplicates_tables import print_copies_table, print_near_copies

    if near == "none" and threshold is not None:
        raise ValueError(f"--threshold {threshold:g} is of near copies; add --near pixels or --near embeddings")
    bank = Store.open(store, check_manifest=True)
    splits = reload_splits(bank, data, folder)
    copies = find_copies(splits, bank.manifest.split_sizes)
    console = open_console()
    with bank.lock():
        write_copies_table(bank, copies)
        print_copies_table(console, copies, bank.folder.display_name, bank.class_names)
        if near != "none":
            found = find_near_copies(bank, splits, copies, near, threshold)
            bank.write_table(NEAR_COPIES_PATH, found.table)
            print_near_copies(console, found, bank.folder.display_path(NEAR_COPIES_PATH), bank.class_names)
    return 0


def check_new_file(out: str) -> None:
    """Check that a file can be made without loss: it must not exist, for it may be one of the bank's own."""
    path = Path(out)
    if path.exists() or path.is_symlink():
        raise ValueError(f"--out {out} exists, and would be overwritten; give another name, or remove it")
    if not path.parent.is_dir():
        raise ValueError(f"--out {out}: there is no folder {path.parent}; make it, or name another")


def list_highest_scores(
    store: tyro.conf.Positional[str],
    score: str = "memorization_k0.500",
    count: int = 100,
    out: Maybe[str] = None,
) -> int:
    """List the ids of the training examples with the highest values of a score, one a line, the highest first.

    Args:
        store: path or URL of the bank.
        score: of the bank, higher is more memorized or riskier.
        count: how many.
        out: file to write them to, which must not exist yet (default: the terminal).

    Returns:
        Exit code 0.

    Raises:
        ValueError: the file exists, or its folder does not.
    """
    with quiet_interrupt_during_imports():
        from memscore.analysis.compare_banks import list_highest
        from memscore.store.store import Store

    if out is not None:
        check_new_file(out)
    ids = list_highest(Store.open(store, check_manifest=True), score, count)
    if out is None:
        for example in ids:
            write_line(example, sys.stdout)
    else:
        Path(out).write_text("".join(f"{example}\n" for example in ids))
        print_line(open_console(), f"{format_count(count, 'id')}, the highest {score} first: {out}")
    return 0


def compare_two_banks(
    first: tyro.conf.Positional[str], second: tyro.conf.Positional[str], score: str = "memorization_k0.500"
) -> int:
    """Compare a memorization score of the training examples that two banks have in common; train nothing.

    Args:
        first: path or URL of a bank.
        second: that of another, as one trained with --without.
        score: of both, a memorization score.

    Returns:
        Exit code 0.
    """
    with quiet_interrupt_during_imports():
        from memscore.analysis.compare_banks import compare_banks
        from memscore.store.store import Store
        from memscore.tables.comparison_table import print_comparison
        from memscore.tables.outlying_line import print_outlying_models

    first_bank, second_bank = (Store.open(url, check_manifest=True) for url in (first, second))
    comparison = compare_banks(first_bank, second_bank, score)
    console = open_console()
    print_comparison(console, comparison, first_bank.folder.display_name, second_bank.folder.display_name)
    for bank in (first_bank, second_bank):
        print_outlying_models(console, bank)
    return 0


def import_source(source: Annotated[ExternalArrays, tyro.conf.arg(name="")]) -> int:
    """Create a store from membership masks and predictions of other models, and score it."""
    with quiet_interrupt_during_imports():
        from memscore.analysis.import_bank import describe_order, import_bank
        from memscore.monitoring.run_log import record_run
        from memscore.store.filesystem import Folder
        from memscore.store.store import Store
        from memscore.tables import bank_tables

    with record_run(Folder.from_url(source.store), get_command_line()):
        result = import_bank(source)
    console = open_console()
    bank_tables.print_result(console, result, Store.open(source.store).folder.display_name)
    if order := describe_order(source):
        print_line(console, order)
    return 0


def main(arguments: list[str] | None = None, prog: str = PROG) -> int:
    """Run the command; user errors are one line and exit code 2, Ctrl-C is 130."""
    commands: dict[str, Callable[..., int]] = {
        "verify": verify_bank,
        "duplicates": list_duplicates,
        "highest": list_highest_scores,
        "compare": compare_two_banks,
        "import": import_source,
    }

    def run(name: str, words: list[str], full_prog: str) -> int:
        return call_command(commands[name], full_prog, words, EXAMPLES[name])

    mains = {name: partial(run, name) for name in commands}
    return run_command(lambda: run_subcommand(mains, SUMMARIES, prog, arguments))


if __name__ == "__main__":
    sys.exit(main())
