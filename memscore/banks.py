"""List your banks, or remove one: `python -m memscore.banks`, `python -m memscore.banks remove NAME`."""

import sys
from contextlib import nullcontext
from dataclasses import asdict
from json import dumps
from typing import Annotated

from memscore.cli.app import run_command
from memscore.cli.stop_signals import quiet_interrupt, quiet_interrupt_during_imports
from memscore.units import format_count, format_size

if __name__ == "__main__":
    quiet_interrupt()

import tyro

from memscore.cli.command_line import call_command
from memscore.cli.options import Maybe
from memscore.tables.console import open_console, print_line
from memscore.visible_text import escape_controls

PROG = "python -m memscore.banks"
EXAMPLE = "--json"
REMOVE_EXAMPLE = "digits --trials"


def show_banks(folder: Annotated[Maybe[str], tyro.conf.Positional] = None, json: bool = False) -> int:
    """List the banks in a folder: data, network, recipe, models, scores, trials, size, and what works on them.

    The size is that of all files. `banks remove NAME` removes a bank, and with --trials what unlearning added to it.

    Args:
        folder: of banks, or its URL (default: $MEMSCORE_HOME or ~/memscore).
        json: a list of objects for scripts.

    Returns:
        Exit code 0.
    """
    with quiet_interrupt_during_imports():
        from memscore.monitoring.bank_list import list_banks, require_banks_folder
        from memscore.store.filesystem import Folder
        from memscore.store.manifest import get_home_url
        from memscore.tables.bank_list_table import print_banks

    url = folder or get_home_url()
    if folder is not None:
        require_banks_folder(Folder.from_url(url))
    banks = list_banks(url)
    if json:
        print(dumps([asdict(bank) for bank in banks], indent=2))
    else:
        print_banks(open_console(), banks, Folder.from_url(url).display_name)
    return 0


def remove_bank(store: tyro.conf.Positional[str], trials: bool = False, yes: bool = False) -> int:
    """Remove a bank with everything in it, or what unlearning added to it; asks before.

    Refuses while a process works on the bank, and a folder that is no bank or holds files that memscore did not write.
    Links are removed, and what they lead to stays.

    Args:
        store: name of a bank in $MEMSCORE_HOME or ~/memscore, or its path or URL.
        trials: only trials, sweeps, experiments, and the models that they made; models and scores of the bank stay.
        yes: do not ask.

    Returns:
        Exit code: 0, or 1 if the answer was no.

    Raises:
        ValueError: nobody can answer, and --yes is missing.
        BlockingIOError: a process works on the bank.
    """
    with quiet_interrupt_during_imports():
        from memscore.monitoring.bank_list import find_activity
        from memscore.monitoring.default_store import resolve_name
        from memscore.store.filesystem import Folder, acquire_lock
        from memscore.store.removal import plan_removal, remove_files

    console = open_console()
    target = Folder.from_url(resolve_name(store))
    planned = plan_removal(target, trials_only=trials)
    what = "trials, sweeps and experiments of" if trials else "everything in"
    size = f"{format_count(len(planned.paths), 'file')}, {format_size(planned.bytes)}"
    if not planned.paths:
        print_line(console, f"{target.display_name} has no trials")
        return 0
    if not yes:
        if not sys.stdin.isatty():
            raise ValueError(f"removing {what} {target.display_name} ({size}) wants an answer; give --yes")
        sys.stderr.write(escape_controls(f"remove {what} {target.display_name}: {size}? [y/N] "))
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
            print_line(console, "nothing was removed")
            return 1
    # an object store has no lock, and only a live run shows there
    if not target.local and find_activity(target):
        raise BlockingIOError(f"{target.display_name} is being written; wait until that ends, or stop it")
    with acquire_lock(target) if target.local else nullcontext():
        planned = plan_removal(target, trials_only=trials)  # again, under the lock
        remove_files(target, planned, whole=not trials)
    removed = format_count(len(planned.paths), "file")
    print_line(console, f"removed {removed} of {target.display_name}, {format_size(planned.bytes)}")
    for path in planned.links:
        print_line(console, f"{path} was a link: what it leads to is still there")
    return 0


def main(arguments: list[str] | None = None, prog: str = PROG) -> int:
    """Run the command; user errors are one line and exit code 2, Ctrl-C is 130."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["remove"]:
        return run_command(
            lambda: call_command(remove_bank, f"{prog} remove", words[1:], REMOVE_EXAMPLE),
            "interrupted; the same command removes what is left",
        )
    return run_command(lambda: call_command(show_banks, prog, words, EXAMPLE))


if __name__ == "__main__":
    sys.exit(main())
