"""Measures of many models in a sweep: which trials are measured together, and what is printed of them."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from tests.unlearn.tuning.test_results import ROWS, VANILLA, make_result, make_state
from unlearn.trials.config import TrialConfig
from unlearn.tuning import populations
from unlearn.tuning.populations import METHOD_COLUMNS, measure_populations
from unlearn.tuning.tables import print_sweep

CONTEXT = SimpleNamespace(store=None, trial_data=None)


def plan(name, contender, select, indices, *, level=1, levels=1, **more):
    """Judged trials of a method with the columns of their rows."""
    columns = {"contender": contender, "variant": "", "select": select, "level": level, "levels": levels}
    return [
        (TrialConfig(store="", algorithm=name, forget_set="f", forget=(1,), index=index, **more), columns)
        for index in indices
    ]


@pytest.fixture
def measured(monkeypatch):
    """What was measured together: the originals of each side."""
    calls = []

    def measure(store, unlearned, oracles, trial_data, names):
        calls.append(([trial.index for trial in unlearned], [trial.index for trial in oracles]))
        if len(unlearned) < 2:
            raise ValueError("1 pair: too few")
        return {"u_lira_auc": 0.5 + 0.1 * len(calls)}

    monkeypatch.setattr(populations, "measure_population", measure)
    monkeypatch.setattr(
        populations, "trial_key", lambda store, trial: f"{trial.algorithm}-{trial.params}-{trial.index}"
    )
    return calls


def run(planned, names=("u-lira",), missing=()):
    rows = [{"trial": f"{trial.algorithm}-{trial.params}-{trial.index}"} for trial, _ in planned]
    return measure_populations(CONTEXT, names, planned, [row for row in rows if row["trial"] not in missing])


def test_the_models_of_a_method_are_measured_with_their_own_oracles(measured):
    # two tunings chose other parameters, and one run of the oracle failed
    planned = [
        *plan("oracle", "oracle", "", range(4), level=0, levels=0),
        *plan("finetune", "finetune", "oracle", (0, 1), params=(("lr", 0.1),)),
        *plan("finetune", "finetune", "oracle", (2, 3), params=(("lr", 0.2),)),
        *plan("salun", "nothing>salun", "oracle", (0, 1, 2), level=1, levels=2),
        *plan("salun", "nothing>salun", "oracle", (0, 1, 2), level=2, levels=2),
        *plan("ssd", "ssd", "blind", (1,)),
    ]
    found, too_few = run(planned, missing=("oracle-()-1",))
    assert measured == [([0, 2, 3], [0, 2, 3]), ([0, 2], [0, 2]), ([], [])]
    assert [tuple(row[column] for column in METHOD_COLUMNS) for row in found] == [
        ("finetune", "", "oracle"),
        ("nothing>salun", "", "oracle"),
    ]
    assert found[0]["u_lira_auc"] == 0.6
    assert too_few == ["ssd blind: 1 pair: too few"]


def test_nothing_is_measured_that_was_not_asked_for(measured):
    assert run(plan("oracle", "oracle", "", range(4), level=0, levels=0), names=("relearn",)) == ((), [])
    assert not measured


def test_the_page_of_a_sweep_has_them_and_what_they_are():
    row = {"contender": "finetune", "variant": "vanilla", "select": "oracle", "u_lira_auc": 0.625, "u_lira_n": 8.0}
    result, text = make_result(make_state(VANILLA), rows=ROWS[:9]), io.StringIO()
    object.__setattr__(result, "populations", (row,))
    print_sweep(Console(file=text, width=200), result, "here")
    lines = [" ".join(line.split()) for line in text.getvalue().splitlines()]
    assert "finetune vanilla oracle 0.625 8" in lines
    assert "u_lira_auc: ROC area of the same, mean over targets; best at its minimum, ideal 0.5" in lines
