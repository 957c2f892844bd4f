"""Cells and tables of trials."""

import io
import re

import pytest
from rich.console import Console

from memscore.statistics.means import estimate_mean
from tests.fixtures.populations import make_population
from unlearn.measures.epsilon import epsilon
from unlearn.trials.prepare import TrialResults
from unlearn.trials.request import TrialRequest
from unlearn.trials.tables import TABLE_COLUMNS, format_column, format_mean, list_remarks, print_trials


def test_intervals_over_seeds():
    assert format_mean([0.5]) == "0.500"
    assert format_mean([float("nan")]) == "-"
    assert format_mean([0.5, 0.5, float("nan")]) == "0.500 ±0.000 (n=2)"


def test_an_interval_ends_where_its_column_does():
    """Of .8 and 1 the mean is .9 with a t interval of ±1.271; seconds have no upper end, other columns none at all."""
    assert format_mean([0.8, 1.0]) == "0.900 ±1.271"
    rows = [{"algorithm": "a", "status": "ok", **dict.fromkeys(("tow_test", "wall_s", "mine"), x)} for x in (0.8, 1.0)]
    assert format_column(rows, "tow_test") == "0.900 [0.000, 1.000]"
    assert format_column(rows, "wall_s") == "0.900 [0.000, 2.171]"
    assert format_column(rows, "mine") == "0.900 ±1.271"
    narrow = [{**row, "tow_test": value} for row, value in zip(rows, (0.5, 0.51), strict=True)]
    assert format_column(narrow, "tow_test") == "0.505 ±0.064"
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
    usual = {"forget_set": "class:3", "index": 0, "beyond_its_purpose": False, "forget_accuracy_gap_original": 0.9}
    rows = [
        Row(usual, algorithm=name, retain_accuracy=value)
        for name, value in (("original", 0.99), ("oracle", 0.98), ("finetune", 0.85), ("bad-teacher", 0.12))
    ]
    destroyed, kept = list_remarks(rows, "bad-teacher")
    assert destroyed.startswith("bad-teacher destroyed what should stay: retain accuracy fell from 0.990 to 0.120")
    assert "the forgotten class among them, on which a model should be wrong; kept_class_accuracy_test" in kept
    random = [Row(row, forget_set="random of 12", retain_accuracy=0.95) for row in rows]
    assert not list_remarks(random, "bad-teacher")
    # what retraining loses too is not the algorithm's fault
    lost = [Row(row, forget_set="half", retain_accuracy=min(row["retain_accuracy"], 0.15)) for row in rows]
    assert not list_remarks(lost, "bad-teacher")


def make_forgetting(original, oracle, finetune, originals=1):
    """Rows by their accuracy on the forget set."""
    values = {"original": original, "oracle": oracle, "finetune": finetune}
    return [
        Row(
            {"forget_set": "random of 12", "n_forget": 12, "status": "ok", "index": index},
            algorithm=name,
            forget_accuracy=value + 0.01 * index,
            forget_accuracy_gap_original=abs(value - original),
            retain_accuracy=1.0,
            accuracy_test=0.9,
            tow_test=1 - abs(value - oracle),
        )
        for name, value in values.items()
        for index in range(originals)
    ]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((1.0, 0.4, 1.0), "finetune forgot nothing here: .* on 1.000 of it, and the oracle on 0.400. Defaults"),
        ((1.0, 1.0, 1.0), "as right on the forget set as the original, and so is the oracle; where retraining changes"),
        (
            (1.0, 0.4, 0.2),
            "forgot more than retraining does: it is right on 0.200 of the forget set, the oracle on 0.4",
        ),
    ],
)
def test_advice_on_what_was_forgotten_looks_at_the_oracle_first(values, words):
    [remark] = list_remarks(make_forgetting(*values), "finetune")
    assert re.search(words, remark)
    assert not list_remarks(make_forgetting(1.0, 0.4, 0.5), "finetune")


def test_a_page_says_what_each_measure_is_and_where_the_oracle_lies():
    text = io.StringIO()
    rows = make_forgetting(1.0, 0.4, 0.5, originals=3)
    request = TrialRequest(store="s", algorithm="finetune")
    print_trials(Console(file=text, width=3000), TrialResults(rows=rows, failed=[], population_values={}), request)
    lines = [line.strip() for line in text.getvalue().splitlines()]
    assert (
        "forget_accuracy: share of the 12 examples to forget that the model is right on; best at the oracle's, 0.410"
        in lines
    )
    assert [line for line in lines if line.startswith("mia_test: share of the 12 examples")]
    assert [line for line in lines if line.startswith("tow_test: tug of war, the agreement with the oracle")]
    shown = {column for columns in TABLE_COLUMNS for column in columns}
    assert {column for column in shown if any(line.startswith(f"{column}: ") for line in lines)} == shown - {
        "rrt_wall",
        "rrt_examples",
        "steps",
    }


def test_a_diverged_run_is_counted_and_said():
    rows = make_forgetting(1.0, 0.4, 0.5, originals=2)
    nan = float("nan")
    rows[-1] |= {"status": "diverged", "tow_test": nan, "forget_accuracy": nan, "retain_accuracy": nan}
    assert format_column(rows[-2:], "tow_test") == "0.450 [0.000, 1.000]"
    assert format_column(rows[-2:], "forget_accuracy") == "0.500 (n=1)"
    [remark] = list_remarks(rows, "finetune")
    assert remark.startswith("1 of 2 runs of finetune diverged; they count 0 in tow and tow_mia")


class Row(dict):
    """A row whose measures are all undefined."""

    def __missing__(self, column):
        return False if column == "beyond_its_purpose" else float("nan")
