"""Command: one algorithm on one forget set: `python -m unlearn.trial S --algorithm finetune --forget random`."""

import sys
from contextlib import ExitStack
from typing import Annotated, Literal

from memscore.cli.app import RESUMABLE_TRIALS_MESSAGE, quiet_interrupt, quiet_interrupt_during_imports, run_command

if __name__ == "__main__":
    quiet_interrupt()

import tyro
from rich.console import Console

from cluster.launch import open_pool, validate_pool_options
from memscore.cli.options import Maybe
from unlearn.trials.request import TrialRequest


def unlearn_and_compare(
    request: Annotated[TrialRequest, tyro.conf.arg(name="")],
    pool: Literal["ray", "serial"] = "ray",
    workers: Maybe[int] = None,
    address: Maybe[str] = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    gpus_per_worker: float = 1,
) -> int:
    """Unlearn training examples of a bank's models with one algorithm, and compare with retraining.

    Args:
        request: the trials.
        pool: ray: worker processes; serial: this process.
        workers: how many (default: every CPU or GPU of the cluster).
        address: of a running Ray cluster (default: RAY_ADDRESS, or one started on this machine).
        device: auto: GPUs where the cluster has any, else CPUs.
        gpus_per_worker: below 1, workers share a GPU.

    Returns:
        Exit code: 0, or 1 if a trial failed or diverged.
    """
    validate_pool_options(pool, workers, address, gpus_per_worker)
    with quiet_interrupt_during_imports():
        from memscore.store.visibility import require_visible_on_all_nodes
        from memscore.tables.progress_bar import ProgressBar
        from memscore.training.numerics import resolve_device
        from unlearn.trials.prepare import prepare_trials
        from unlearn.trials.tables import print_trials

    trials = prepare_trials(request)
    store = trials.context.bank_store
    with ExitStack() as stack:
        stack.enter_context(store.lock())
        sys.stderr.write(trials.describe_missing_models())
        pool_device = resolve_device(device) if pool == "serial" else device
        session = stack.enter_context(open_pool(pool, address, workers, pool_device, gpus_per_worker))
        require_visible_on_all_nodes(store, session.run_on_each_node)
        results = trials.run(session.pool, session.device, ProgressBar)
    return print_trials(Console(width=None if sys.stdout.isatty() else 120), results, request)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; see memscore.cli.app.run_command."""
    return run_command(
        lambda: tyro.cli(unlearn_and_compare, prog="python -m unlearn.trial", args=arguments), RESUMABLE_TRIALS_MESSAGE
    )


if __name__ == "__main__":
    sys.exit(main())
