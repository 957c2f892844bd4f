"""Train a bank of subset models and score every example: `python -m memscore.estimate`."""

import sys
from contextlib import ExitStack
from functools import partial
from typing import Annotated

from memscore.cli.app import RESUMABLE_MESSAGE, run_command
from memscore.cli.stop_signals import quiet_interrupt, quiet_interrupt_during_imports

if __name__ == "__main__":
    quiet_interrupt()

import tyro

from cluster.launch import (
    PoolOptions,
    choose_pool,
    create_metrics,
    estimate_worker_count,
    open_pool,
    resolve_worker_device,
    validate_pool_options,
)
from cluster.session import is_submitted_job
from memscore.cli.command_line import call_command, get_command_line
from memscore.pipeline.cards import ALL_CARDS, CardOptions
from memscore.pipeline.config import BankConfig
from memscore.tables.console import open_console

PROG = "python -m memscore.estimate"
EXAMPLE = "--data cifar10 --arch resnet18 --models 64 --dry-run"


def estimate_bank(
    plan: Annotated[BankConfig, tyro.conf.arg(name="")],
    options: Annotated[PoolOptions, tyro.conf.arg(name="")],
    cards: Annotated[CardOptions, tyro.conf.arg(name="")] = ALL_CARDS,
) -> int:
    """Train a bank of subset models, store their predictions, and score every example.

    Args:
        plan: the bank.
        options: where its jobs run.
        cards: what a dry run is priced for.

    Returns:
        Exit code: 0, or 1 if a model failed or diverged, or the requested error was not reached; scores are written
        from the models that there are.
    """
    local = validate_pool_options(options)
    cards.require_dry_run(dry_run=plan.dry_run)
    with quiet_interrupt_during_imports():
        from memscore.monitoring.progress import monitor_pool
        from memscore.monitoring.prometheus import describe_metrics
        from memscore.monitoring.run_log import record_run
        from memscore.pipeline.dry_run import estimate_cost
        from memscore.pipeline.precision_times import time_precisions
        from memscore.pipeline.run_forecast import forecast_bank
        from memscore.pipeline.runner import estimate, prepare_bank, prepare_store
        from memscore.store.removal import remove_if_refused
        from memscore.store.visibility import require_visible_on_all_nodes
        from memscore.tables import bank_tables
        from memscore.tables.cost_table import print_cost, show_timing
        from memscore.tables.progress_bar import ProgressBar
        from memscore.training.numerics import resolve_device

    console = open_console()
    device = resolve_worker_device(options, resolve_device)
    bank = prepare_bank(plan, in_temporary_folder=is_submitted_job(), device=device)
    bank_tables.print_heading(console, bank)
    options = choose_pool(options, partial(forecast_bank, bank))
    if plan.dry_run:
        cost = estimate_cost(bank, estimate_worker_count(options, local=local), show=show_timing)
        precisions = time_precisions(bank.store, bank.splits, show_timing) if device == "cpu" else None
        print_cost(console, cost, cards, precisions)
        return 0
    with ExitStack() as stack:
        stack.enter_context(remove_if_refused(bank.store.folder))
        stack.enter_context(record_run(bank.store.folder, get_command_line()))
        if locked := bank.store.is_created:
            stack.enter_context(bank.store.lock())
        session = stack.enter_context(open_pool(options, resolve_device))
        require_visible_on_all_nodes(bank.store, session.run_on_each_node)
        prepare_store(bank, stack, locked=locked)
        metrics = create_metrics(session.pool, *describe_metrics(bank.store.manifest))
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
    return 1 if result.training.failed or result.training.diverged or result.missed_arm else 0


def main(arguments: list[str] | None = None, prog: str = PROG) -> int:
    """Run the command; user errors are one line and exit code 2, Ctrl-C is 130."""
    return run_command(lambda: call_command(estimate_bank, prog, arguments, EXAMPLE), RESUMABLE_MESSAGE)


if __name__ == "__main__":
    sys.exit(main())
