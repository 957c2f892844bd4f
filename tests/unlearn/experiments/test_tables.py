"""What is printed and written of an experiment has the columns of the papers' tables."""

import io
from dataclasses import asdict, replace

import pytest
from rich.console import Console

from benchmarks.experiments import claim_table, counted, originals_of, page
from memscore.statistics.claims import correct_families, judge_claim
from memscore.statistics.means import estimate_mean
from tests.fixtures import tiny
from unlearn.experiments.base import ExperimentResult, make_record
from unlearn.experiments.registry import EXPERIMENTS
from unlearn.experiments.tables import COLUMNS, RUM_NOTE, list_claim_notes, print_experiment

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


def list_means(values):
    """The values that are printed as means with intervals: steps are whole numbers."""
    return cells(value for column, value in values.items() if column != "steps")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_what_is_printed_has_every_column_and_cuts_none(name):
    values, rows = make_judged_rows(name)
    console = Console(width=160, file=io.StringIO())
    print_experiment(console, EXPERIMENTS[name], ExperimentResult(results={"union": rows}, claims=[]), "here")
    printed = console.file.getvalue()
    expected = {column: value for column, value in values.items() if column != "wall_s" or name == "proxies"}
    assert all(column in printed for column in expected)
    assert all(cell in printed for cell in list_means(expected))
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
    assert all(cell in text for cell in list_means(values))
    assert all(
        f" {word} |" in text for word in ("forget accuracy", "retain accuracy", "test accuracy", "MIA", "MIA gap")
    )
    assert (" seconds a round |" in text) == (name == "five-steps")


def test_a_page_says_how_large_the_forget_set_is():
    assert " Forget set: 12 examples;" in render_page("rum")[1]
    assert " Forget set: a tenth of the classes, or of the examples," in render_page("rsu", size=0)[1]


def test_a_page_says_how_many_originals_each_method_has():
    rows = [*tiny.make_rows("finetune", tow_test=0.5)[:2], *tiny.make_rows("salun", tow_test=0.5)]
    assert originals_of(rows) == "2 of finetune, 4 of salun"
    assert originals_of(rows[2:]) == "4"
    assert (
        originals_of(tiny.make_rows("original>salun", tow_test=0.5) + rows[:2]) == "2 of finetune, 4 of nothing>salun"
    )


def test_claims_of_earlier_records_are_shown_in_words_of_today_without_a_correction():
    value = {"value": 0.1, "lo": 0.05, "hi": 0.15}
    old = {"claim": "nothing, fine-tuning, SalUn has a higher ToW than RUM^F of salun", "paper": "p"}
    lines = claim_table([old | {"value": value, "verdict": "holds"}])
    assert lines[0] == "| claim | paper | here | verdict |"
    assert lines[2].startswith("| nothing>finetune>salun has a higher ToW than RUM^F of salun | p | +0.100")
    assert lines[-1] == RUM_NOTE
    claim = correct_families([judge_claim("a", "p", estimate_mean([0.1, 0.2, 0.15]), family="f")] * 4)[0]
    head, _, line = claim_table([asdict(claim)])
    assert head == "| claim | paper | here | p | verdict | uncorrected |"
    assert line.endswith("| 0.140 | undecided | holds |")


def test_verdicts_are_counted_with_what_they_rest_on():
    verdicts = ["undecided", "holds, given this tuning", "no verdict: 2 of 8 runs diverged", "holds", "fails", "holds"]
    assert counted(verdicts) == "holds 2; holds, given this tuning 1; fails 1; undecided 1; no verdict 1"
    assert counted([]) == "not run"
    assert counted(["fails"]) == "fails"


def test_what_verdicts_rest_on_is_said_below_them():
    value = estimate_mean([0.1, 0.2, 0.15], ["a"] * 3)
    claims = correct_families([judge_claim(f"RUM^F {i}", "", value, family="orders") for i in range(2)])
    notes = list_claim_notes(claims)
    assert notes[1:] == ["claims of one kind: orders (2)", notes[2], RUM_NOTE]
    assert notes[2].startswith("given this tuning: parameters were chosen once")
    alone = [judge_claim("a", "", estimate_mean([0.1, 0.2]), family="one")]
    assert len(list_claim_notes(alone)) == 1
    assert list_claim_notes([]) == []


def test_methods_of_a_part_have_their_diverged_runs():
    _, rows = make_judged_rows("rum")
    rows[0] |= {"status": "diverged", "tow_test": float("nan")}
    console = Console(width=200, file=io.StringIO())
    print_experiment(console, EXPERIMENTS["rum"], ExperimentResult(results={"union": rows}, claims=[]), "here")
    printed = console.file.getvalue()
    assert " diverged " in printed
    counted_mean = sum(row["tow_test"] for row in rows[1:]) / 4
    assert f"{counted_mean:.3f} [0.000, " in printed
