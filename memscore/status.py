"""Show the status of a bank: `python -m memscore.status`."""

import sys
import time
from dataclasses import asdict
from json import dumps
from typing import Annotated

from memscore.cli.app import run_command
from memscore.cli.stop_signals import quiet_interrupt

if __name__ == "__main__":
    quiet_interrupt()

import tyro

from memscore.cli.command_line import call_command
from memscore.cli.options import Maybe
from memscore.monitoring.default_store import choose_store
from memscore.monitoring.status import PrecisionCache, compute_bank_status
from memscore.store.json_records import replace_nonfinite
from memscore.store.remote import RETRY_S
from memscore.store.store import Store
from memscore.tables.console import open_console
from memscore.tables.status_table import print_status

PROG = "python -m memscore.status"
EXAMPLE = "~/memscore/digits --watch 5"


def show_status(
    store: Annotated[Maybe[str], tyro.conf.Positional] = None, watch: Maybe[float] = None, json: bool = False
) -> int:
    """Show progress, failures, precision and the running process of a bank from its files alone.

    Nothing is written, and neither Ray nor torch is started.

    Args:
        store: path or URL of the store (default: the one used last in $MEMSCORE_HOME or ~/memscore).
        watch: repeat after so many seconds, until Ctrl-C.
        json: one object for scripts, with --watch on one line each; unknown values are null.

    Returns:
        Exit code 0.

    Raises:
        ValueError: an interval of less than a second.
    """
    if watch is not None and not watch >= 1:
        raise ValueError(f"--watch must be 1 second or more, got {watch:g}; 5 suits a bank that is being trained")
    url = choose_store(store)
    bank = Store.open(url)
    console = open_console()
    precisions: PrecisionCache = {}
    # with --watch, the variance of an arm's first models is measured once and not at every look
    while True:
        bank_status = compute_bank_status(bank, precisions)
        if json:
            print(dumps(replace_nonfinite(asdict(bank_status)), indent=2 if watch is None else None), flush=True)
        else:
            if watch is not None and console.is_terminal:
                console.clear()
            print_status(console, bank_status)
        if watch is None:
            return 0
        time.sleep(watch)
        bank = Store.open(url, retry_s=RETRY_S)  # it may have been deleted, and a server may be unreachable


def main(arguments: list[str] | None = None, prog: str = PROG) -> int:
    """Run the command; user errors are one line and exit code 2, Ctrl-C is 130."""
    return run_command(lambda: call_command(show_status, prog, arguments, EXAMPLE), "no longer watching")


if __name__ == "__main__":
    sys.exit(main())
