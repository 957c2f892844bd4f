"""Look after a bank that is on file: python -m memscore.bank verify STORE."""

import sys
from contextlib import nullcontext

import tyro

from memscore.store import Store
from memscore.verification import move_aside, verify


def verify_bank(store: tyro.conf.Positional[str], set_aside: bool = False) -> int:
    """Read every file of a store and compare it with the hashes that stand in it.

    Args:
        store: path or URL of the store.
        set_aside: move damaged files to the store's folder damaged/; the next estimate makes them again.

    Returns:
        Exit code: 0 if all is well, 1 if something is damaged.
    """
    bank = Store.open(store)
    with bank.lock() if set_aside else nullcontext():
        verdict = verify(bank)
        moved = move_aside(bank, verdict) if set_aside else {}
    for path, reason in verdict.damaged.items():
        print(f"damaged: {path}: {reason}" + (f"; moved to {moved[path]}" if path in moved else ""))
    print(f"{verdict.verified} files verified, {len(verdict.damaged)} damaged")
    if verdict.damaged and not moved:
        print("--set-aside moves them away; the next estimate makes them again")
    return 1 if verdict.damaged else 0


def main(arguments: list[str] | None = None) -> int:
    """Run one command; errors of the user's making are one line and exit code 2."""
    try:
        code: int = tyro.extras.subcommand_cli_from_dict(
            {"verify": verify_bank}, prog="python -m memscore.bank", description=__doc__, args=arguments
        )
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return code


if __name__ == "__main__":
    sys.exit(main())
