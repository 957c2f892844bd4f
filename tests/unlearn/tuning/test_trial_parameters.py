"""Trials whose parameters are tuned first, or a sweep's: never chosen on what is reported."""

import pytest

from cluster.pool import SerialPool
from cluster.search import SerialSearch
from tests.fixtures.sweeps import SCORE, make_config, run_sweep
from unlearn.trials.prepare import prepare_trials
from unlearn.trials.request import TrialRequest
from unlearn.tuning.trial_parameters import list_tuning_originals, prepare_tuned_trials

REQUEST = {"algorithm": "finetune", "forget": "random", "size": 12, "seeds": 1, "set": ("epochs=1",)}


def choose(store, **more):
    tuned = prepare_tuned_trials(TrialRequest(store=store, **REQUEST | more))
    return tuned.choose(SerialPool(), SerialSearch(), "cpu")


def test_tuning_gives_the_row_of_its_choice_by_hand(store):
    trials = choose(store, tune=2)
    [line] = [note for note in trials.notes if note.startswith("parameters chosen by oracle")]
    assert "among 2 configurations, on another random of 12 and originals 1 to 2, none of which is reported" in line
    assert not set(list_tuning_originals(trials)) & set(trials.indices)
    settings = tuple(f"{name}={value}" for name, value in trials.params.items())
    assert set(trials.params) == {"epochs", "lr"}
    by_hand = prepare_trials(TrialRequest(store=store, **REQUEST | {"set": settings}))
    keys = [[row["trial"] for row in prepared.run(SerialPool(), "cpu").rows] for prepared in (trials, by_hand)]
    assert keys[0] == keys[1]


def test_epochs_are_tuned_too_where_that_is_asked(store):
    trials = choose(store, tune=2, set=(), search=("epochs",))
    assert set(trials.params) == {"epochs", "lr"}


def test_the_papers_numbers_are_one_flag_away(store):
    tuned = prepare_tuned_trials(TrialRequest(store=store, **REQUEST | {"set": ("lr=0.1",), "steps": "paper"}))
    assert tuned.trials.params == {"epochs": 10, "batch": 256, "lr": 0.1}
    tuned = prepare_tuned_trials(TrialRequest(store=store, **REQUEST | {"steps": "paper"}))
    assert tuned.trials.params == {"epochs": 1, "batch": 256}
    scrub = prepare_tuned_trials(
        TrialRequest(store=store, **REQUEST | {"algorithm": "scrub", "set": (), "tune": 2, "steps": "paper"})
    )
    assert scrub.trials.params == {"epochs": 5, "batch": 128, "msteps": 3, "decay_after": (3, 5, 9)}
    assert any("the first of the ascent passes changes nothing" in note for note in scrub.trials.notes)


def test_without_an_algorithm_one_is_tuned_and_a_line_says_so(store):
    tuned = prepare_tuned_trials(TrialRequest(store=store, forget="random", size=12))
    assert (tuned.trials.algorithm, tuned.trials.request.tune) == ("neggrad-plus", 10)
    assert "algorithm neggrad-plus, tuned on 10 configurations" in tuned.trials.notes[0]


def test_a_sweeps_choice_is_reported_on_what_the_sweep_judged(store, plain):
    sweep, result, _ = plain
    name = sweep.path.rpartition("/")[2]
    state = next(s for s in result.states if s.method.name == "finetune" and s.select == "blind")
    trials = choose(store, seeds=2, set=(), from_sweep=name, select="blind")
    assert trials.params == dict(state.steps[0][1])
    assert list(trials.indices) == [1, 2]
    rows = [row for row in trials.run(SerialPool(), "cpu").rows if row["algorithm"] == "finetune"]
    judged = [r for r in result.judged_rows if r["contender"] == "finetune" and r["select"] == "blind"]
    measured = [name for name in rows[0] if name.endswith("_test")]
    assert [[row[name] for name in measured] for row in rows] == [[row[name] for name in measured] for row in judged]


def test_a_choice_on_reported_examples_is_refused(store):
    config = make_config(store, algorithms=("finetune",), budget=1, seeds=1, tune_forget="same", name="same")
    run_sweep(config)
    with pytest.raises(
        ValueError, match=r"--from-sweep same: its parameters were chosen on random of 12, which has 12 of"
    ):
        choose(store, set=(), from_sweep="same")
    with pytest.raises(ValueError, match="--tune would choose parameters on 1 of the 1 examples that it reports"):
        choose(store, forget="id:all/00001", tune=2)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"tune": -1}, "--tune -1: a number of configurations is 0 or more"),
        ({"tune": 2, "from_sweep": "x"}, "--from-sweep takes parameters that were tuned"),
        ({"from_sweep": "x"}, "--from-sweep takes the parameters of a sweep, and --set gives others"),
        ({"from_sweep": "x", "set": ()}, "--from-sweep x: no such sweep in"),
        ({"select": "blind"}, "--select blind does nothing here"),
        ({"space": "paper"}, "--space paper does nothing here: no parameter is searched; add --tune 10"),
        ({"search": ("epochs",)}, "--search epochs does nothing here: no parameter is searched; add --tune 10"),
        ({"tune": 2, "search": ("epochs",)}, "--search finetune.epochs searches what has a fixed value, epochs=1"),
        ({"tune": 2, "search": ("lr",)}, "unknown parameter that --search adds to those of finetune 'lr'"),
        ({"from_sweep": "a", "set": (), "steps": "paper"}, "--from-sweep takes the parameters and steps of a sweep"),
        ({"algorithm": "original", "set": (), "tune": 2}, "--tune 2: original has no parameter to search"),
        ({"set": ("lr=0.1",), "tune": 2}, "no parameter to search that --set leaves free"),
        ({"tune": 10_001}, "--tune 10001"),
        ({"forget": f"{SCORE}:high", "size": 101, "tune": 2}, "no second forget set to choose parameters on"),
    ],
)
def test_what_cannot_hold_is_refused(store, more, message):
    with pytest.raises(ValueError, match=message):
        prepare_tuned_trials(TrialRequest(store=store, **REQUEST | more))


def test_a_sweep_without_that_algorithm_names_those_it_has(store, plain):
    name = plain[0].path.rpartition("/")[2]
    with pytest.raises(ValueError, match=r"'scrub'.*finetune"):
        prepare_tuned_trials(
            TrialRequest(store=store, **REQUEST | {"algorithm": "scrub", "set": (), "from_sweep": name})
        )
