"""Train a bank of subset models and score every example: `python -m memscore.estimate`."""

import sys
from contextlib import ExitStack
from typing import Annotated, Literal

from memscore.cli.app import RESUMABLE_MESSAGE, quiet_interrupt_during_imports, run_command

if __name__ == "__main__":
    quiet_interrupt_during_imports()

import tyro
from rich.console import Console

from cluster.launch import create_metrics, estimate_worker_count, open_pool, validate_pool_options
from cluster.session import is_submitted_job
from memscore.cli.options import Maybe
from memscore.monitoring.progress import monitor_pool
from memscore.monitoring.prometheus import describe_metrics
from memscore.pipeline.config import BankConfig
from memscore.pipeline.dry_run import estimate_cost
from memscore.pipeline.runner import estimate, prepare_bank, prepare_store
from memscore.store.visibility import require_visible_on_all_nodes
from memscore.tables import bank_tables
from memscore.tables.progress_bar import ProgressBar
from memscore.training.numerics import resolve_device


def estimate_bank(
    plan: Annotated[BankConfig, tyro.conf.arg(name="")],
    pool: Literal["ray", "serial"] = "ray",
    workers: Maybe[int] = None,
    address: Maybe[str] = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    gpus_per_worker: float = 1,
    dashboard: bool = False,
) -> int:
    """Train a bank of subset models, store their predictions, and score every example.

    Args:
        plan: the bank.
        pool: ray: worker processes on this machine or on a cluster; serial: this process, one job after the other.
        workers: processes at once (default: every CPU or GPU of the cluster); for --pool ray.
        address: of a running Ray cluster; without it and without RAY_ADDRESS one is started on this machine.
        device: auto: a GPU for each worker if the cluster has one, else CPUs.
        gpus_per_worker: below 1, so many workers share a GPU, each with that part of its memory.
        dashboard: also start Ray's dashboard, on 127.0.0.1, if the cluster is started here, and print its address.

    Returns:
        Exit code: 0, or 1 if a model failed or diverged; scores are written from the others.
    """
    if (
        near := validate_pool_options(pool, workers, address, gpus_per_worker, dashboard=dashboard)
    ) and device == "cuda":
        resolve_device(device)
    console = Console(width=None if sys.stdout.isatty() else 110)
    bank = prepare_bank(plan, in_temporary_folder=is_submitted_job())
    bank_tables.print_heading(console, bank)
    if plan.dry_run:
        bank_tables.print_cost(console, estimate_cost(bank, estimate_worker_count(pool, workers, local=near)))
        return 0
    with ExitStack() as stack:
        if locked := bank.store.is_created:
            stack.enter_context(bank.store.lock())
        pool_device = resolve_device(device) if pool == "serial" else device
        session = stack.enter_context(
            open_pool(pool, address, workers, pool_device, gpus_per_worker, dashboard=dashboard)
        )
        require_visible_on_all_nodes(bank.store, session.run_on_each_node)
        prepare_store(bank, stack, locked=locked)
        metrics = create_metrics(*describe_metrics(bank.store.manifest)) if pool == "ray" else None
        monitored_pool = stack.enter_context(
            monitor_pool(bank, session.pool, stack.enter_context(ProgressBar("models")), metrics)
        )
        result = estimate(
            bank,
            monitored_pool,
            on_forecast=monitored_pool.wrap_on_forecast(
                lambda *forecast: bank_tables.print_forecast(console, *forecast)
            ),
            device=session.device,
        )
    bank_tables.print_result(console, result, bank.store.folder.display_name)
    return 1 if result.training.failed or result.training.diverged else 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command; user errors are one line and exit code 2, Ctrl-C is 130."""
    return run_command(
        lambda: tyro.cli(estimate_bank, prog="python -m memscore.estimate", args=arguments), RESUMABLE_MESSAGE
    )


if __name__ == "__main__":
    sys.exit(main())
