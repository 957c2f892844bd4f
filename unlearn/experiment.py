"""Command: a table or figure of a paper, with verdicts: `python -m unlearn.experiment memorization S`."""

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
from memscore.cli.name_list import format_names
from memscore.cli.wrapping import wrap_messages
from memscore.pipeline.cards import NO_DRY_RUN, DryRunOptions
from memscore.tables.console import open_console, print_line
from memscore.units import format_hours
from memscore.visible_text import write_line
from unlearn.experiments.config import ExperimentConfig
from unlearn.experiments.questions import QUESTIONS

PROG = "python -m unlearn.experiment"
EXAMPLE = "rum ~/memscore/digits"


def run_experiment(
    config: Annotated[ExperimentConfig, tyro.conf.arg(name="")],
    options: Annotated[PoolOptions, tyro.conf.arg(name="")],
    dry: Annotated[DryRunOptions, tyro.conf.arg(name="")] = NO_DRY_RUN,
) -> int:
    """Run an experiment of a paper on a bank, and judge which of its claims hold there.

    Args:
        config: the experiment.
        options: where its jobs run.
        dry: whether it is only estimated, and what that is priced for.

    Returns:
        Exit code: 0, or 1 if a part of it is missing; a claim of the paper that fails is a result.
    """
    local = validate_pool_options(options)
    dry.check_used()
    with quiet_interrupt_during_imports():
        from memscore.monitoring.run_log import record_run
        from memscore.store.visibility import require_visible_on_all_nodes
        from memscore.tables.cost_table import show_timing
        from memscore.tables.outlying_line import print_outlying_models
        from memscore.tables.progress_bar import ProgressBar
        from memscore.training.numerics import resolve_device
        from unlearn.experiments.prepare import prepare_experiment
        from unlearn.experiments.tables import print_experiment, write_experiment
        from unlearn.trials.descriptions import write_descriptions
        from unlearn.tuning.cost_tables import print_sweep_cost

    console = open_console()
    experiment = prepare_experiment(config, dry_run=dry.dry_run)
    options = choose_pool(options, lambda limit_s: experiment.forecast())
    if dry.dry_run and (estimate_work := experiment.experiment.estimate_work):
        work = estimate_work(experiment.config, experiment.store)
        for line in (*work.lines, f"CPU    about {format_hours(work.seconds)} core-hours"):
            print_line(console, line)
        return 0
    if dry.dry_run:
        cost, workers = experiment.estimate(show_timing), estimate_worker_count(options, local=local)
        print_sweep_cost(console, cost, workers, dry, after=experiment.experiment.after_sweeps)
        return 0
    with ExitStack() as stack:
        stack.enter_context(experiment.store.lock())
        stack.enter_context(record_run(experiment.store.folder, get_command_line()))
        session, search = stack.enter_context(open_pool_and_search(options, resolve_device))
        require_visible_on_all_nodes(experiment.store, session.run_on_each_node)
        result = experiment.run(session.pool, search, session.device, ProgressBar)
        write_descriptions(experiment.store)
        path = write_experiment(experiment.store, experiment.experiment, experiment.config, result)
    print_experiment(
        console,
        experiment.experiment,
        result,
        experiment.store.folder.display_path(path),
    )
    print_outlying_models(console, experiment.store)
    return 1 if result.incomplete else 0


def main(arguments: list[str] | None = None, prog: str = PROG) -> int:
    """Run the command; see memscore.cli.app.run_command. Without a word it lists the experiments."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    experiments = format_names("experiments", QUESTIONS)
    # run_command prints an error as one line, and this is a list
    if not words:
        with wrap_messages():
            for line in (f"error: name an experiment and a bank, as `{prog} {EXAMPLE}`", "", *experiments.splitlines()):
                write_line(line)
        return 2
    return run_command(
        lambda: call_command(run_experiment, prog, words, EXAMPLE, f"\n{experiments}"), RESUMABLE_TRIALS_MESSAGE
    )


if __name__ == "__main__":
    sys.exit(main())
