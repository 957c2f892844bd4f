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
from memscore.cli.options import Maybe, Several


def unlearn_and_compare(
    store: Annotated[str, tyro.conf.Positional],
    algorithm: str,
    forget: str = "random",
    size: int = 100,
    set: Several = (),
    seeds: int = 3,
    measures: Several = (),
    seed: int = 0,
    data: Maybe[str] = None,
    folder: Maybe[str] = None,
    pool: Literal["ray", "serial"] = "ray",
    workers: Maybe[int] = None,
    address: Maybe[str] = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    gpus_per_worker: float = 1,
) -> int:
    """Unlearn training examples of a bank's models with one algorithm, and compare with retraining.

    Args:
        store: path or URL of a bank, whose recipe trains originals and oracles.
        algorithm: finetune, neggrad-plus, salun, ...; an unknown name lists them all.
        forget: random, SCORE:high as memorization_k0.500:high, class:3, ids:FILE, ...; an unknown one lists them all.
        size: number of examples to forget, where --forget does not give it.
        set: parameters of the algorithm, as lr=0.05 epochs=5.
        seeds: number of originals, each with its own oracle.
        measures: beyond the core ones; an unknown name lists them all.
        seed: of the forget set's draw, and of the algorithm's random streams.
        data: the bank's data set by name or path, if its manifest is not enough to find it.
        folder: folder of the data set.
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
        from unlearn.trials.setup import TrialOptions, describe_missing_models, open_context, run_all_seeds
        from unlearn.trials.tables import print_trials

    context = open_context(TrialOptions(store, forget, size, algorithm, set, seeds, measures, seed, data, folder))
    with ExitStack() as stack:
        stack.enter_context(context.bank_store.lock())
        sys.stderr.write(describe_missing_models(context))
        pool_device = resolve_device(device) if pool == "serial" else device
        session = stack.enter_context(open_pool(pool, address, workers, pool_device, gpus_per_worker))
        require_visible_on_all_nodes(context.bank_store, session.run_on_each_node)
        results = run_all_seeds(context, session.pool, session.device, ProgressBar)
    return print_trials(Console(width=None if sys.stdout.isatty() else 120), results, context.options)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; see memscore.cli.app.run_command."""
    return run_command(
        lambda: tyro.cli(unlearn_and_compare, prog="python -m unlearn.trial", args=arguments), RESUMABLE_TRIALS_MESSAGE
    )


if __name__ == "__main__":
    sys.exit(main())
