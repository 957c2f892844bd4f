"""Command: one algorithm on one forget set: `python -m unlearn.trial S --algorithm finetune --forget random`."""

import sys
from contextlib import ExitStack
from typing import Annotated

from memscore.cli.app import RESUMABLE_TRIALS_MESSAGE, run_command
from memscore.cli.stop_signals import quiet_interrupt, quiet_interrupt_during_imports

if __name__ == "__main__":
    quiet_interrupt()

import tyro

from cluster.launch import PoolOptions, choose_pool, open_pool_and_search, validate_pool_options
from memscore.cli.command_line import call_command, get_command_line
from memscore.tables.console import open_console
from memscore.visible_text import escape_controls_in_lines
from unlearn.trials.request import TrialRequest

PROG = "python -m unlearn.trial"
EXAMPLE = "~/memscore/digits --algorithm finetune --forget memorization_k0.500:high --set epochs=2"


def unlearn_and_compare(
    request: Annotated[TrialRequest, tyro.conf.arg(name="")],
    options: Annotated[PoolOptions, tyro.conf.arg(name="")],
) -> int:
    """Unlearn training examples of a bank's models with one algorithm, and compare with retraining.

    Args:
        request: the trials.
        options: where its jobs run.

    Returns:
        Exit code: 0, or 1 if a trial failed or diverged.
    """
    validate_pool_options(options)
    with quiet_interrupt_during_imports():
        from memscore.monitoring.run_log import record_run
        from memscore.store.visibility import require_visible_on_all_nodes
        from memscore.tables.progress_bar import ProgressBar
        from memscore.training.numerics import resolve_device
        from unlearn.trials.descriptions import write_descriptions
        from unlearn.trials.tables import print_trials
        from unlearn.tuning.trial_parameters import prepare_tuned_trials

    tuned = prepare_tuned_trials(request)
    options = choose_pool(options, lambda limit_s: tuned.forecast())
    store = tuned.trials.context.bank_store
    with ExitStack() as stack:
        stack.enter_context(store.lock())
        stack.enter_context(record_run(store.folder, get_command_line()))
        sys.stderr.write(escape_controls_in_lines(tuned.trials.describe_missing_models()))
        session, search = stack.enter_context(open_pool_and_search(options, resolve_device))
        require_visible_on_all_nodes(store, session.run_on_each_node)
        trials = tuned.choose(session.pool, search, session.device, ProgressBar)
        results = trials.run(session.pool, session.device, ProgressBar)
        write_descriptions(store, request.measures)
    return print_trials(open_console(), results, request)


def main(arguments: list[str] | None = None, prog: str = PROG) -> int:
    """Run the command; see memscore.cli.app.run_command."""
    return run_command(lambda: call_command(unlearn_and_compare, prog, arguments, EXAMPLE), RESUMABLE_TRIALS_MESSAGE)


if __name__ == "__main__":
    sys.exit(main())
