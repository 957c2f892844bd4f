"""Cells and tables of trials."""

import io

from rich.console import Console

from memscore.statistics.means import estimate_mean
from tests.fixtures.populations import make_population
from unlearn.measures.epsilon import epsilon
from unlearn.trials.prepare import TrialResults
from unlearn.trials.request import TrialRequest
from unlearn.trials.tables import format_mean, list_remarks, print_trials


def test_intervals_over_seeds():
    assert format_mean([0.5]) == "0.500"
    assert format_mean([float("nan")]) == "-"
    assert format_mean([0.5, 0.5, float("nan")]) == "0.500 ±0.000 (n=2)"
    interval = estimate_mean([0.0, 1.0, float("nan")])
    assert (interval.value, round(interval.hi, 3)) == (0.5, 6.853)  # 12.706 sd / sqrt 2


def test_an_epsilon_that_is_none_does_not_look_like_a_number_above_its_ceiling():
    request = TrialRequest(store="s", size=120, algorithm="finetune", measures=("epsilon",))
    row = {"algorithm": "oracle", "index": 0, "forget_set": "random", "n_forget": 120, "status": "ok"}
    text = {}
    for name, apart in (("apart", 9.0), ("near", 1.0)):
        output = io.StringIO()
        values = epsilon(make_population(apart, models=(32, 32)))
        rows = [Row(row), Row({**row, "algorithm": "finetune"})]
        results = TrialResults(rows=rows, failed=[], population_values=values)
        assert print_trials(Console(file=output, width=120), results, request) == 0
        text[name] = {line.split()[0]: line for line in output.getvalue().splitlines() if " epsilon_" in line[:9]}
    assert "none finite (50)" in text["apart"]["epsilon_median"]
    assert "1.000" in text["apart"]["epsilon_separated"]
    assert "none" not in text["near"]["epsilon_median"]
    assert "3.434" in text["near"]["epsilon_ceiling"]
    assert "log(n - 1)" in text["near"]["epsilon_ceiling"]


def test_a_destroyed_model_and_a_forgotten_class_in_accuracy_test_are_said():
    usual = {"forget_set": "class:3", "beyond_its_purpose": False, "forget_accuracy_gap_original": 0.9}
    rows = [
        Row(usual, algorithm=name, retain_accuracy=value)
        for name, value in (("original", 0.99), ("oracle", 0.98), ("finetune", 0.85), ("bad-teacher", 0.12))
    ]
    destroyed, kept = list_remarks(rows, "bad-teacher", 0)
    assert destroyed.startswith("bad-teacher destroyed what should stay: retain accuracy fell from 0.990 to 0.120")
    assert "the forgotten class among them; --measures kept-class-accuracy" in kept
    random = [Row(row, forget_set="random of 12", retain_accuracy=0.95) for row in rows]
    assert not list_remarks(random, "bad-teacher", 0)


class Row(dict):
    """A row whose measures are all undefined."""

    def __missing__(self, column):
        return False if column == "beyond_its_purpose" else float("nan")
