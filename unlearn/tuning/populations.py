"""Measures of many models in a sweep: the judged models of each method against their oracles."""

from collections.abc import Sequence

from unlearn.trials.config import ORACLE, Row, TrialConfig, trial_key
from unlearn.trials.measure import select_population_measures
from unlearn.trials.populations import measure_population
from unlearn.trials.setup import UnlearningContext

METHOD_COLUMNS = ("contender", "variant", "select")


def measure_populations(
    context: UnlearningContext,
    names: Sequence[str],
    planned: Sequence[tuple[TrialConfig, Row]],
    judged_rows: Sequence[Row],
) -> tuple[tuple[Row, ...], list[str]]:
    """Measure the judged models of each method together, of whichever tuning each is.

    `names` are the requested measures, `planned` the judged trials with the columns that identify them in the sweep,
    and `judged_rows` the rows of those that ran. Returns a row for each method, with METHOD_COLUMNS, and a line for
    each method with too few models; nothing if no measure is of many models.
    """
    if not select_population_measures(names):
        return (), []
    stored = {row["trial"] for row in judged_rows}
    groups: dict[tuple[str, ...], dict[int, TrialConfig]] = {}
    for trial, columns in planned:
        # the last step of a sequence, or a trial without steps
        if columns["level"] in {0, columns["levels"]} and trial_key(context.store, trial) in stored:
            groups.setdefault(tuple(columns[name] for name in METHOD_COLUMNS), {})[trial.index] = trial
    # doing nothing stays among the methods: how well it is told apart is what others are compared with
    oracles = groups.pop((ORACLE, "", ""), {})
    populations, too_few = [], []
    for key, trials in groups.items():
        # U-LiRA and KLOM leave out models of one original together, so the rest must be pairs
        indices = sorted(trials.keys() & oracles.keys())
        pair = [trials[index] for index in indices], [oracles[index] for index in indices]
        try:
            values = measure_population(context.store, *pair, context.trial_data, names)
        except ValueError as error:
            too_few.append(f"{' '.join(filter(None, key))}: {error}")
        else:
            populations.append(dict(zip(METHOD_COLUMNS, key, strict=True)) | values)
    return tuple(populations), too_few
