"""Command: tune hyper-parameters, compare methods: `python -m unlearn.sweep S --forget SCORE:high`."""

import sys
from contextlib import ExitStack
from typing import Annotated, Literal

from memscore.cli.app import RESUMABLE_TRIALS_MESSAGE, quiet_interrupt, quiet_interrupt_during_imports, run_command

if __name__ == "__main__":
    quiet_interrupt()

import tyro
from rich.console import Console

from cluster.launch import open_pool_and_search, validate_pool_options
from memscore.cli.options import Maybe
from unlearn.tuning.config import SweepConfig


def run_sweep(
    config: Annotated[SweepConfig, tyro.conf.arg(name="")],
    pool: Literal["ray", "serial"] = "ray",
    workers: Maybe[int] = None,
    address: Maybe[str] = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    gpus_per_worker: float = 1,
    dashboard: bool = False,
) -> int:
    """Tune every method on some originals and a forget set, with and without an oracle; judge it on others.

    Args:
        config: the sweep.
        pool: ray: Ray Tune over worker processes; serial: this process.
        workers: how many (default: every CPU or GPU of the cluster).
        address: of a running Ray cluster (default: RAY_ADDRESS, or one started on this machine).
        device: auto: GPUs where the cluster has any, else CPUs.
        gpus_per_worker: below 1, workers share a GPU.
        dashboard: start Ray's dashboard too, on 127.0.0.1, where the cluster is started here, and print its address.

    Returns:
        Exit code: 0, or 1 if a trial failed, a judged one diverged, or all runs of a method diverged.
    """
    validate_pool_options(pool, workers, address, gpus_per_worker, dashboard=dashboard)
    with quiet_interrupt_during_imports():
        from memscore.store.visibility import require_visible_on_all_nodes
        from memscore.tables.progress_bar import ProgressBar
        from memscore.training.numerics import resolve_device
        from unlearn.tuning.prepare import prepare_sweep
        from unlearn.tuning.tables import print_sweep

    sweep = prepare_sweep(config)
    with ExitStack() as stack:
        stack.enter_context(sweep.context.bank_store.lock())
        pool_device = resolve_device(device) if pool == "serial" else device
        opened = open_pool_and_search(pool, address, workers, pool_device, gpus_per_worker, dashboard=dashboard)
        session, search = stack.enter_context(opened)
        require_visible_on_all_nodes(sweep.context.bank_store, session.run_on_each_node)
        result = sweep.run(session.pool, search, session.device, ProgressBar)
    folder = f"{sweep.context.store.folder.display_name}/{sweep.path}"
    return print_sweep(Console(width=None if sys.stdout.isatty() else 140), result, folder)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; see memscore.cli.app.run_command."""
    return run_command(
        lambda: tyro.cli(run_sweep, prog="python -m unlearn.sweep", args=arguments), RESUMABLE_TRIALS_MESSAGE
    )


if __name__ == "__main__":
    sys.exit(main())
