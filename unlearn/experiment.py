"""A table or figure of a paper, with verdicts: `python -m unlearn.experiment memorization S`."""

import sys
from contextlib import ExitStack
from typing import Annotated, Literal

from memscore.cli.app import RESUMABLE_TRIALS, before_imports, run

if __name__ == "__main__":
    before_imports()

import tyro
from rich.console import Console

from cluster.launch import open_pool_and_search, refuse_staff
from memscore.cli.options import Maybe
from memscore.store.visibility import refuse_blind
from memscore.tables.progress_bar import Meter
from memscore.training.numerics import device_named
from unlearn.experiments.config import ExperimentPlan, prepared
from unlearn.experiments.tables import keep, print_experiment


def carry_out(
    plan: Annotated[ExperimentPlan, tyro.conf.arg(name="")],
    pool: Literal["ray", "serial"] = "ray",
    workers: Maybe[int] = None,
    address: Maybe[str] = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    gpus_per_worker: float = 1,
) -> int:
    """Carry out an experiment of a paper on a bank, and say which of its claims hold there.

    Args:
        plan: the experiment.
        pool: ray: Ray Tune over worker processes; serial: this process.
        workers: how many (default: every CPU or GPU of the cluster).
        address: of a running Ray cluster (default: RAY_ADDRESS, or one started on this machine).
        device: auto: GPUs where the cluster has any, else CPUs.
        gpus_per_worker: below 1, workers share a GPU.

    Returns:
        Exit code: 0, or 1 if a part of it could not be had; what fails of a paper's claims is a result.
    """
    refuse_staff(pool, workers, address, gpus_per_worker)
    ready = prepared(plan)
    with ExitStack() as stack:
        stack.enter_context(ready.store.lock())
        pool_device = device_named(device) if pool == "serial" else device
        opened = open_pool_and_search(pool, address, workers, pool_device, gpus_per_worker)
        session, search = stack.enter_context(opened)
        refuse_blind(ready.store, session.run_on_each_node)
        carried = ready.run(session.pool, search, session.device, Meter)
        path = keep(ready.store, plan.name, ready.entry, ready.asked, carried)
    print_experiment(
        Console(width=None if sys.stdout.isatty() else 160), ready.entry, carried, f"{ready.store.folder.shown}/{path}"
    )
    return 1 if carried.incomplete else 0


def main(arguments: list[str] | None = None) -> int:
    """Run one command; see doors.run."""
    return run(lambda: tyro.cli(carry_out, prog="python -m unlearn.experiment", args=arguments), RESUMABLE_TRIALS)


if __name__ == "__main__":
    sys.exit(main())
