"""From a data set to a table of scores: `python -m memscore.estimate`."""

import sys
from contextlib import ExitStack
from typing import Annotated, Literal

import tyro
from rich.console import Console

from cluster.pool import Pool, SerialPool
from memscore.estimation import estimate, open_bank
from memscore.plan import Plan
from memscore.report import tables
from memscore.report.progress import Meter
from memscore.training import device_named


def main(
    plan: Annotated[Plan, tyro.conf.arg(name="")],
    pool: Literal["ray", "serial"] = "ray",
    workers: int | None = None,
    address: str | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> int:
    """Train a bank of subset models, keep what each says of every example, and score every example.

    Args:
        plan: the bank.
        pool: ray: worker processes on this machine or on a cluster; serial: this process, one job after the other.
        workers: how many at once (default: every CPU or GPU of the cluster).
        address: of a running Ray cluster; without it and without RAY_ADDRESS one is started on this machine.
        device: auto: a GPU for each worker where the cluster has one, else CPUs.

    Returns:
        Exit code: 0, or 1 if a model failed or diverged; scores are written from the others.
    """
    console = Console(width=None if sys.stdout.isatty() else 110)
    bank = open_bank(plan)
    with ExitStack() as stack:
        stack.enter_context(bank.store.lock())
        tables.heading(console, bank)
        hands: Pool
        if pool == "ray":
            from cluster.opening import ray_pool  # Ray takes a second to import; --help and serial runs need none of it

            hands, where = stack.enter_context(ray_pool(address, workers, device))
        else:
            hands, where = SerialPool(), device_named(device)
        meter = stack.enter_context(Meter("models"))
        outcome = estimate(bank, hands, meter, device=where)
    tables.outcome(console, outcome, bank.store.folder.shown)
    return 1 if outcome.filled.failed or outcome.filled.diverged else 0


if __name__ == "__main__":
    try:
        sys.exit(tyro.cli(main, prog="python -m memscore.estimate"))
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f"error: {error}")
