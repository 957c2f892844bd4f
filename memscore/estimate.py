"""From a data set to a table of scores: `python -m memscore.estimate`."""

import os
import sys
from contextlib import ExitStack
from typing import Annotated, Literal

from memscore.doors import before_imports, run

if __name__ == "__main__":
    before_imports()

import tyro
from rich.console import Console

from cluster.opening import ray_pool, refuse_staff
from cluster.pool import Pool, SerialPool
from cluster.session import in_submitted_job
from memscore.estimation import estimate, open_bank
from memscore.forecast import forecast
from memscore.options import Maybe
from memscore.plan import Plan
from memscore.report import tables
from memscore.report.progress import Meter
from memscore.training import device_named
from memscore.visibility import refuse_blind


def estimate_bank(
    plan: Annotated[Plan, tyro.conf.arg(name="")],
    pool: Literal["ray", "serial"] = "ray",
    workers: Maybe[int] = None,
    address: Maybe[str] = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    dashboard: bool = False,
) -> int:
    """Train a bank of subset models, keep what each says of every example, and score every example.

    Args:
        plan: the bank.
        pool: ray: worker processes on this machine or on a cluster; serial: this process, one job after the other.
        workers: how many at once (default: every CPU or GPU of the cluster); for --pool ray.
        address: of a running Ray cluster; without it and without RAY_ADDRESS one is started on this machine.
        device: auto: a GPU for each worker where the cluster has one, else CPUs.
        dashboard: start Ray's dashboard too, on 127.0.0.1, where the cluster is started here, and say where it is.

    Returns:
        Exit code: 0, or 1 if a model failed or diverged; scores are written from the others.
    """
    if refuse_staff(pool, workers, address, dashboard=dashboard) and device == "cuda":
        device_named(device)
    console = Console(width=None if sys.stdout.isatty() else 110)
    bank = open_bank(plan, passing_folder=in_submitted_job())
    if plan.dry_run:
        tables.heading(console, bank)
        tables.cost(console, forecast(bank, workers or os.cpu_count() or 1))
        return 0
    with ExitStack() as stack:
        stack.enter_context(bank.store.lock())
        hands: Pool
        if pool == "ray":
            opened = ray_pool(address, workers, device, lambda ask: refuse_blind(bank.store, ask), dashboard=dashboard)
            hands, where = stack.enter_context(opened)
        else:
            hands, where = SerialPool(), device_named(device)
        tables.heading(console, bank)
        meter = stack.enter_context(Meter("models"))
        outcome = estimate(bank, hands, meter, lambda *found: tables.outlook(console, *found), device=where)
    tables.outcome(console, outcome, bank.store.folder.shown)
    return 1 if outcome.filled.failed or outcome.filled.diverged else 0


def main(arguments: list[str] | None = None) -> int:
    """Run one command; errors of the user's making are one line and exit code 2, Ctrl-C is 130."""
    interrupted = "interrupted; finished models are kept, and the same command goes on"
    return run(lambda: tyro.cli(estimate_bank, prog="python -m memscore.estimate", args=arguments), interrupted)


if __name__ == "__main__":
    sys.exit(main())
