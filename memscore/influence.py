"""Find influential training examples of a bank: `python -m memscore.influence STORE`."""

import sys
from typing import Annotated, Literal

from memscore.cli.app import run_command
from memscore.cli.stop_signals import quiet_interrupt, quiet_interrupt_during_imports

if __name__ == "__main__":
    quiet_interrupt()

import tyro

from memscore.cli.command_line import call_command, get_command_line
from memscore.cli.options import Maybe
from memscore.tables.console import open_console

PROG = "python -m memscore.influence"
EXAMPLE = "~/memscore/digits --targets train --top 5"


def find_bank_influence(
    store: Annotated[Maybe[str], tyro.conf.Positional] = None,
    arm: Maybe[str] = None,
    targets: Literal["test", "train", "train-held-out"] = "test",
    top: int = 10,
    least: Maybe[float] = None,
    least_memorization: float = 0.25,
    pictures: int = 8,
    data: Maybe[str] = None,
    folder: Maybe[str] = None,
) -> int:
    """Find training examples whose removal makes a target less often correct; train nothing.

    Args:
        store: path or URL of the bank (default: the one used last in $MEMSCORE_HOME or ~/memscore).
        arm: arm of the models, if the bank has several.
        targets: test examples; or the training examples themselves, over all models or over those not trained on them.
        top: training examples kept for each target, whatever their influence.
        least: a pair is strong, and kept, from this influence on (default: the least influence from which a tenth of
            the pairs are expected to be false, by permuted memberships; Feldman & Zhang took .15 with 2,000 models),
        least_memorization: if the memorization of its training example is at least this.
        pictures: targets in the picture, those with the strongest influences; 0 for none, which needs no images.
        data: where the bank's data are now, by name or path, or module:function (default: where they were read).
        folder: folder of a downloadable data set (default: $MEMSCORE_DATA or ~/.cache/memscore/data).

    Returns:
        Exit code 0.

    Raises:
        ValueError: a number of pictures below 0 or above MAX_PICTURES.
    """
    with quiet_interrupt_during_imports():
        from memscore.analysis.arms import select_arm
        from memscore.analysis.influence_pairs import compute_influence
        from memscore.analysis.influence_picture import MAX_PICTURES, reload_images, write_picture
        from memscore.monitoring.default_store import choose_store
        from memscore.monitoring.run_log import record_run
        from memscore.store.store import Store
        from memscore.tables.influence_table import print_influence
        from memscore.tables.outlying_line import print_outlying_models
        from memscore.tables.progress_bar import ProgressBar

    if not 0 <= pictures <= MAX_PICTURES:
        raise ValueError(f"--pictures must lie in 0 to {MAX_PICTURES}, got {pictures}; the file has every pair")
    console = open_console()
    bank = Store.open(choose_store(store), check_manifest=True)
    with (
        bank.lock(),
        record_run(bank.folder, get_command_line()),
    ):  # a running estimate would add shards and make this result stale
        name = select_arm(bank, arm)
        # before the pairs, so that a data set that is not found is an error at once
        splits = reload_images(bank, data, folder) if pictures else None
        with ProgressBar("train examples") as progress_bar:
            influence = compute_influence(
                bank,
                name,
                targets=targets,
                top=top,
                least=least,
                least_memorization=least_memorization,
                progress=progress_bar,
            )
        bank.write_influence(influence.name, influence.table)
        picture = write_picture(bank, influence, splits, pictures) if splits else None
    print_influence(console, influence, bank, picture)
    print_outlying_models(console, bank)
    return 0


def main(arguments: list[str] | None = None, prog: str = PROG) -> int:
    """Run the command; user errors are one line and exit code 2, Ctrl-C is 130."""
    return run_command(lambda: call_command(find_bank_influence, prog, arguments, EXAMPLE))


if __name__ == "__main__":
    sys.exit(main())
