"""What is printed and written of an experiment has the columns of the papers' tables."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from benchmarks.experiments import page
from tests.fixtures import tiny
from unlearn.experiments.base import ExperimentResult, make_record
from unlearn.experiments.registry import EXPERIMENTS
from unlearn.experiments.tables import COLUMNS, print_experiment

MEASURED = (*COLUMNS[0], *COLUMNS[1], "wall_s")
LONG = ("nothing>finetune>salun", f"rum-reversed {tiny.SCORE}")


def make_judged_rows(name):
    """Rows of the longest plan, with a value of its own in every column that an experiment shows."""
    columns = dict.fromkeys((*MEASURED, *EXPERIMENTS[name].columns))
    values = {column: 0.1 + 0.05 * number for number, column in enumerate(columns)}
    rows = [row | {"forget_set": "union of 12"} for row in tiny.make_rows(*LONG, **values)]
    return values, rows


def cells(values):
    return [f"{value:.3f} ±" for value in values]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_what_is_printed_has_every_column_and_cuts_none(name):
    values, rows = make_judged_rows(name)
    console = Console(width=160, file=io.StringIO())
    print_experiment(console, EXPERIMENTS[name], ExperimentResult(results={"union": rows}, claims=[]), "here")
    printed = console.file.getvalue()
    expected = {column: value for column, value in values.items() if column != "wall_s" or name == "proxies"}
    assert all(column in printed for column in expected)
    assert all(cell in printed for cell in cells(expected.values()))
    assert "…" not in printed


def render_page(name, **scale):
    """The page of an experiment with these rows."""
    values, rows = make_judged_rows(name)
    config = tiny.make_config("finetune")
    result = ExperimentResult(results={}, claims=[], cost={"attempts": 1, "runs": 1, "tuning_s": 1.0})
    record = make_record(replace(config, name=name, **scale), result)
    more = {"page": "p", "bank": "digits", "originals": 4, "theta_o_train_accuracy": 1.0}
    return values, "\n".join(page(record | more | {"rows": [row | {"part": "union"} for row in rows]}))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_page_has_every_column(name):
    values, text = render_page(name)
    assert all(cell in text for cell in cells(values.values()))
    assert all(
        f" {word} |" in text for word in ("forget accuracy", "retain accuracy", "test accuracy", "MIA", "MIA gap")
    )
    assert (" seconds a round |" in text) == (name == "five-steps")


def test_a_page_says_how_large_the_forget_set_is():
    assert " Forget set: 12 examples;" in render_page("rum")[1]
    assert " Forget set: a tenth of the classes, or of the examples," in render_page("rsu", size=0)[1]
