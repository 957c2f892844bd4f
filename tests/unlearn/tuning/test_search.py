"""Hunts: what is sought, how attempts are kept, and what the two selections take of made rows."""

import json
import math
from dataclasses import replace

import pytest

from memscore.store.json_records import hash_record
from memscore.store.store import Store
from memscore.store.trial_files import list_trials, read_trial
from tests.fixtures.opened import open_bank
from tests.fixtures.sweeps import BANK
from tests.memscore.pipeline.test_jobs import InOrder
from unlearn.oracles import build_reference_jobs, build_trial_data, train_reference_models
from unlearn.search_space import Choice, build_domain_around
from unlearn.trials.config import Step, TrialConfig
from unlearn.tuning.search import (
    MAX_ACCURACY_DROP,
    SEARCH_MEASURES,
    HyperparameterSearch,
    build_search,
    deduplicate_results,
    evaluate_config,
    find_boundary_params,
    get_search_space,
    make_baseline_trial,
    oracle_free_objective,
    read_config_results,
    select_config,
    set_params,
)

FORGET = tuple(range(0, 24, 2))


def trial(name="finetune", url="nowhere", **more):
    return TrialConfig(
        store=url, algorithm=name, forget_set="mine", forget=FORGET, measures=SEARCH_MEASURES, core=False, **more
    )


SEQUENCE = trial(
    "salun",
    params=(("lr", 0.25),),
    before=(Step(algorithm="original", rows=FORGET[:4]), Step(algorithm="finetune", rows=FORGET[4:8])),
    part=FORGET[8:],
)


def make_result(tow, objective=0.5, *, diverged=0, runs=2, **values):
    return {"tow": tow, "blind": objective, "diverged": diverged, "trials": ["t"] * runs, "values": values}


def row(accuracy, gap, status="ok"):
    return {"status": status, "kept_class_accuracy_validation": accuracy, "class_matched_gap_validation": gap}


THETA_O = row(0.9, 0.3)


def test_above_the_floor_what_counts_is_how_unseen_the_forget_set_looks():
    assert oracle_free_objective(row(0.9 - MAX_ACCURACY_DROP, 0.1), THETA_O) == pytest.approx(0.9)
    assert oracle_free_objective(row(0.95, 0.25), THETA_O) == pytest.approx(0.75)


def test_below_the_floor_what_counts_is_how_far():
    assert oracle_free_objective(row(0.9 - MAX_ACCURACY_DROP - 0.05, 0.0), THETA_O) == pytest.approx(-0.05)


def test_whatever_is_above_the_floor_is_better_than_what_is_below_and_that_than_a_diverged_run():
    worst_above, best_below = (
        oracle_free_objective(row(0.88, 1.0), THETA_O),
        oracle_free_objective(row(0.8799, 0.0), THETA_O),
    )
    assert worst_above >= 0 > best_below > oracle_free_objective(row(math.nan, math.nan, "diverged"), THETA_O)


def test_without_an_unseen_example_of_a_class_it_is_undefined():
    assert math.isnan(oracle_free_objective(row(0.9, math.nan), THETA_O))


def test_each_selection_takes_the_best_of_its_own_column_and_the_first_of_equals():
    results = [make_result(0.3, 0.8, lr=1), make_result(0.9, 0.2, lr=2), make_result(0.9, 0.8, lr=3)]
    assert select_config(results, "oracle") is results[1]
    assert select_config(results, "blind") is results[0]


def test_what_diverged_everywhere_or_is_undefined_is_not_taken():
    diverged_result, half, unknown = (
        make_result(0.9, 0.9, diverged=2),
        make_result(0.4, 0.1, diverged=1),
        make_result(0.5, math.nan),
    )
    assert select_config([diverged_result, half, unknown], "oracle") is unknown
    assert select_config([diverged_result, half, unknown], "blind") is half
    # half of its runs, or more: only where there is no other
    other, few = make_result(0.1, 0.05), make_result(0.2, 0.2, diverged=1, runs=4)
    assert select_config([half, other], "oracle") is select_config([half, other], "blind") is other
    assert select_config([half, other, few], "oracle") is few
    assert select_config([half, diverged_result], "oracle") is half
    assert select_config([diverged_result], "oracle") is None
    assert select_config([], "blind") is None


def test_a_hunt_seeks_the_last_step_and_leaves_out_what_is_given():
    whole = set(HyperparameterSearch(trials=(replace(SEQUENCE, params=()),)).space)
    assert whole == {"lr", "density"}
    assert set(HyperparameterSearch(trials=(SEQUENCE,)).space) == {"density"}
    assert HyperparameterSearch(trials=(SEQUENCE,), tuned=False).space == {}


def test_a_joint_hunt_names_parameters_by_their_step():
    search = HyperparameterSearch(trials=(SEQUENCE,), joint=True)
    assert set(search.space) == {"2.lr", "3.density"}  # nothing to seek of doing nothing, and the third has its rate
    assert search.defaults == {"2.lr": 0.1, "3.density": 0.5}
    [one] = search.make_trials({"2.lr": 0.5, "3.density": 0.1})
    assert [step.params for step in one.steps] == [(), (("lr", 0.5),), (("density", 0.1), ("lr", 0.25))]


def test_values_of_a_hunt_by_steps_go_to_the_last_one():
    one = set_params(SEQUENCE, {"density": 0.1}, joint=False)
    assert one.params == (("density", 0.1), ("lr", 0.25))
    assert one.before == SEQUENCE.before


def test_every_algorithms_defaults_are_the_first_attempt_of_its_hunt():
    search = HyperparameterSearch(trials=(trial("scrub"),))
    request = build_search(search, "key", 5, [])
    assert request.initial == [search.defaults]
    assert set(search.defaults) == set(request.space)
    assert build_search(HyperparameterSearch(trials=(trial("original"),)), "key", 5, []).budget == 1


def test_the_papers_ranges_are_a_space_of_their_own():
    step = Step(algorithm="bad-teacher", rows=FORGET)
    wide, paper = (get_search_space(step, name) for name in ("wide", "paper"))
    assert (wide["lr"].low, wide["lr"].high) == (1e-5, 0.1)
    assert (paper["lr"].low, paper["lr"].high) == (1e-4, 1e-3)
    assert (wide.keys(), paper.keys()) == ({"lr", "alpha"}, {"lr"})  # no paper searches alpha
    search = HyperparameterSearch(trials=(trial("bad-teacher"),), space_name="paper")
    assert search.space == paper


def test_epochs_and_batch_are_searched_around_what_the_data_give():
    numbers = ({"lr": 0.1, "epochs": 10, "batch": 32},)
    search = HyperparameterSearch(
        trials=(trial(),), added=("finetune.epochs", "finetune.batch", "salun.epochs"), numbers=numbers
    )
    assert set(search.space) == {"lr", "epochs", "batch"}
    assert (min(search.space["epochs"].values), max(search.space["epochs"].values)) == (5, 30)
    assert (min(search.space["batch"].values), max(search.space["batch"].values)) == (8, 128)
    assert search.defaults == {"lr": 0.1, "epochs": 10, "batch": 32}
    assert build_domain_around("epochs", 1).values == (1, 2, 3)


def test_idle_is_theta_o_on_the_whole_forget_set():
    bare = make_baseline_trial(SEQUENCE)
    assert bare.steps == (Step(algorithm="original", rows=FORGET),)


def test_ends_of_a_space_are_named_and_choices_have_none():
    search = HyperparameterSearch(trials=(trial("scrub"),))
    ends = {name: getattr(space, "low", None) for name, space in search.space.items()}
    numbers = {name: low for name, low in ends.items() if low is not None}
    assert any(isinstance(space, Choice) for space in search.space.values())
    first = {name: space.values[0] for name, space in search.space.items() if isinstance(space, Choice)}
    assert set(find_boundary_params(search, numbers | first)) == set(numbers)


def test_attempts_have_one_order_whenever_they_were_made():
    one, two = make_result(0.1, lr=1.0), make_result(0.2, lr=2.0)
    assert deduplicate_results([one, two]) == deduplicate_results([two, one])
    assert len(deduplicate_results([one, one, two])) == 2


def test_attempts_that_were_drawn_have_the_order_of_their_draws():
    results = [make_result(0.1, lr=lr) for lr in (1.0, 2.0, 3.0)]
    for lrs in ((3.0, 1.0, 2.0), (2.0, 3.0, 1.0)):
        assert [one["values"]["lr"] for one in deduplicate_results(results, [{"lr": lr} for lr in lrs])] == list(lrs)


@pytest.fixture(scope="module")
def trained_store(store):
    bank = open_bank(replace(BANK, store=store))
    trial_data = build_trial_data(bank.splits, bank.store.manifest.seed)
    train_reference_models(bank.store, build_reference_jobs(bank.store, [FORGET], [0, 1], "cpu"), trial_data, InOrder())
    return bank.store, trial_data


def test_hunts_that_seek_other_things_have_other_names(trained_store):
    """Their attempts are kept apart: with values of another space a search could not go on."""
    store, _ = trained_store
    short = trial("neggrad-plus", store.url)
    whole = HyperparameterSearch(trials=(short,))
    searches = [
        whole,
        HyperparameterSearch(trials=(short,), tuned=False),
        HyperparameterSearch(trials=(short,), guide="blind"),
        HyperparameterSearch(
            trials=(replace(short, params=(("lr", whole.defaults["lr"]),)),)
        ),  # the same trial, but less is sought
        HyperparameterSearch(trials=(short,), space_name="paper"),
        HyperparameterSearch(
            trials=(short,), added=("neggrad-plus.epochs",), numbers=({"epochs": 5, "lr": 0.02, "beta": 0.95},)
        ),
        HyperparameterSearch(trials=(replace(short, index=1),)),
        HyperparameterSearch(trials=(short, replace(short, index=1))),
    ]
    assert len({search.key(store) for search in searches}) == len(searches)
    assert HyperparameterSearch(trials=(replace(short, variant="rum x"),)).key(store) == searches[0].key(store)


def test_an_attempt_is_means_over_originals_and_is_kept(trained_store):
    store, trial_data = trained_store
    both = tuple(trial("neggrad-plus", store.url, index=index, params=(("epochs", 1),)) for index in (0, 1))
    search, values = HyperparameterSearch(trials=both, guide="blind"), {"lr": 0.02, "beta": 0.9}
    results = evaluate_config(search, values, trial_data)
    rows = [read_trial(store, name) for name in results["trials"]]
    bases = [row for name in list_trials(store) if (row := read_trial(store, name))["algorithm"] == "original"]
    assert [json.loads(row["config"])["lr"] for row in rows] == [0.02, 0.02]
    assert sorted(row["index"] for row in bases) == [0, 1]
    by_index = {row["index"]: row for row in bases}
    assert results["tow"] == pytest.approx(sum(row["tow_validation"] for row in rows) / 2)
    assert results["blind"] == pytest.approx(
        sum(oracle_free_objective(row, by_index[row["index"]]) for row in rows) / 2
    )
    assert results["objective"] == results["blind"]
    assert results["examples"] == sum(row["examples"] for row in rows)
    [stored] = read_config_results(store, search, list_trials(store))
    assert stored == {"values": values, **{name: results[name] for name in results if name != "objective"}}
    assert store.folder.exists(f"attempts/{search.folder_key(store)}/{hash_record(values)}.json")


def test_one_spoilt_original_is_not_made_good_by_another(trained_store):
    store, trial_data = trained_store
    both = tuple(trial("gradient-ascent", store.url, index=index, params=(("epochs", 4),)) for index in (0, 1))
    spoilt, stored = {"lr": 0.2}, {"lr": 1e-6}

    def evaluate(values, *which):
        return evaluate_config(HyperparameterSearch(trials=tuple(both[index] for index in which)), values, trial_data)[
            "blind"
        ]

    assert evaluate(spoilt, 0) < 0
    assert evaluate(stored, 0, 1) == pytest.approx((evaluate(stored, 0) + evaluate(stored, 1)) / 2)
    assert evaluate(spoilt, 0, 1) == min(evaluate(spoilt, 0), evaluate(spoilt, 1))


def test_a_diverged_attempt_counts_nothing_and_is_kept(trained_store):
    store, trial_data = trained_store
    search = HyperparameterSearch(trials=(trial("gradient-ascent", store.url),))
    results = evaluate_config(search, {"lr": 1e30}, trial_data)
    assert (results["tow"], results["blind"], results["diverged"]) == (0.0, -1.0, 1)
    assert select_config(read_config_results(store, search, list_trials(store)), "oracle") is None


def test_what_is_undefined_comes_back_from_file_as_such(trained_store, monkeypatch):
    store, trial_data = trained_store
    monkeypatch.setattr("unlearn.tuning.search.oracle_free_objective", lambda row, base: math.nan)
    search = HyperparameterSearch(trials=(trial("finetune", store.url, params=(("epochs", 1),)),))
    evaluate_config(search, {"lr": 0.01}, trial_data)
    [stored] = read_config_results(Store.open(store.url), search, list_trials(store))
    assert math.isnan(stored["blind"])
    assert select_config([stored], "blind") is None
    assert select_config([stored], "oracle") is stored
