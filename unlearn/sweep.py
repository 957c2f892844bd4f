"""Command: tune hyper-parameters, compare methods: `python -m unlearn.sweep S --forget SCORE:high`."""

import sys
from contextlib import ExitStack
from typing import Annotated

from memscore.cli.app import RESUMABLE_TRIALS_MESSAGE, run_command
from memscore.cli.stop_signals import quiet_interrupt, quiet_interrupt_during_imports

if __name__ == "__main__":
    quiet_interrupt()

import tyro

from cluster.launch import PoolOptions, choose_pool, estimate_worker_count, open_pool_and_search, validate_pool_options
from memscore.cli.command_line import call_command, get_command_line
from memscore.pipeline.cards import NO_DRY_RUN, DryRunOptions
from memscore.tables.console import open_console
from unlearn.tuning.config import SweepConfig

PROG = "python -m unlearn.sweep"
EXAMPLE = "~/memscore/digits --forget memorization_k0.500:high --algorithms finetune salun"


def run_sweep(
    config: Annotated[SweepConfig, tyro.conf.arg(name="")],
    options: Annotated[PoolOptions, tyro.conf.arg(name="")],
    dry: Annotated[DryRunOptions, tyro.conf.arg(name="")] = NO_DRY_RUN,
) -> int:
    """Tune every method on some originals and a forget set, with and without an oracle; judge it on others.

    Args:
        config: the sweep.
        options: where its jobs run.
        dry: whether it is only estimated, and what that is priced for.

    Returns:
        Exit code: 0, or 1 if a trial failed, a judged one diverged, or all runs of a method diverged.
    """
    local = validate_pool_options(options)
    dry.check_used()
    with quiet_interrupt_during_imports():
        from memscore.monitoring.run_log import record_run
        from memscore.store.visibility import require_visible_on_all_nodes
        from memscore.tables.cost_table import show_timing
        from memscore.tables.progress_bar import ProgressBar
        from memscore.training.numerics import resolve_device
        from unlearn.trials.descriptions import write_descriptions
        from unlearn.tuning.cost_tables import print_sweep_cost
        from unlearn.tuning.dry_run import estimate_sweeps
        from unlearn.tuning.prepare import prepare_sweep
        from unlearn.tuning.tables import print_sweep

    console = open_console()
    sweep = prepare_sweep(config, dry_run=dry.dry_run)
    options = choose_pool(options, lambda limit_s: sweep.forecast())
    if dry.dry_run:
        cost = estimate_sweeps(sweep.count(), sweep.context, show_timing)
        print_sweep_cost(console, cost, estimate_worker_count(options, local=local), dry)
        return 0
    with ExitStack() as stack:
        stack.enter_context(sweep.context.bank_store.lock())
        stack.enter_context(record_run(sweep.context.bank_store.folder, get_command_line()))
        session, search = stack.enter_context(open_pool_and_search(options, resolve_device))
        require_visible_on_all_nodes(sweep.context.bank_store, session.run_on_each_node)
        result = sweep.run(session.pool, search, session.device, ProgressBar)
        write_descriptions(sweep.context.bank_store, config.measures)
    folder = sweep.context.store.folder.display_path(sweep.path)
    return print_sweep(console, result, folder)


def main(arguments: list[str] | None = None, prog: str = PROG) -> int:
    """Run the command; see memscore.cli.app.run_command."""
    return run_command(lambda: call_command(run_sweep, prog, arguments, EXAMPLE), RESUMABLE_TRIALS_MESSAGE)


if __name__ == "__main__":
    sys.exit(main())
