"""Command: a table or figure of a paper, with verdicts: `python -m unlearn.experiment memorization S`."""

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
from unlearn.experiments.config import ExperimentConfig


def run_experiment(
    config: Annotated[ExperimentConfig, tyro.conf.arg(name="")],
    pool: Literal["ray", "serial"] = "ray",
    workers: Maybe[int] = None,
    address: Maybe[str] = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    gpus_per_worker: float = 1,
) -> int:
    """Run an experiment of a paper on a bank, and judge which of its claims hold there.

    Args:
        config: the experiment.
        pool: ray: Ray Tune over worker processes; serial: this process.
        workers: how many (default: every CPU or GPU of the cluster).
        address: of a running Ray cluster (default: RAY_ADDRESS, or one started on this machine).
        device: auto: GPUs where the cluster has any, else CPUs.
        gpus_per_worker: below 1, workers share a GPU.

    Returns:
        Exit code: 0, or 1 if a part of it is missing; a claim of the paper that fails is a result.
    """
    validate_pool_options(pool, workers, address, gpus_per_worker)
    with quiet_interrupt_during_imports():
        from memscore.store.visibility import require_visible_on_all_nodes
        from memscore.tables.progress_bar import ProgressBar
        from memscore.training.numerics import resolve_device
        from unlearn.experiments.prepare import prepare_experiment
        from unlearn.experiments.tables import print_experiment, write_experiment

    experiment = prepare_experiment(config)
    with ExitStack() as stack:
        stack.enter_context(experiment.store.lock())
        pool_device = resolve_device(device) if pool == "serial" else device
        opened = open_pool_and_search(pool, address, workers, pool_device, gpus_per_worker)
        session, search = stack.enter_context(opened)
        require_visible_on_all_nodes(experiment.store, session.run_on_each_node)
        result = experiment.run(session.pool, search, session.device, ProgressBar)
        path = write_experiment(experiment.store, experiment.experiment, experiment.config, result)
    print_experiment(
        Console(width=None if sys.stdout.isatty() else 160),
        experiment.experiment,
        result,
        f"{experiment.store.folder.display_name}/{path}",
    )
    return 1 if result.incomplete else 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command; see memscore.cli.app.run_command."""
    return run_command(
        lambda: tyro.cli(run_experiment, prog="python -m unlearn.experiment", args=arguments), RESUMABLE_TRIALS_MESSAGE
    )


if __name__ == "__main__":
    sys.exit(main())
