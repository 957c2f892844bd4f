"""Hunts: what is sought, how attempts are kept, and what the two selections take of made rows."""

import json
import math
from dataclasses import replace

import pytest

from memscore.pipeline.runner import open_bank
from memscore.store.json_records import hash_record
from memscore.store.store import Store
from tests.fixtures.sweeps import BANK
from tests.memscore.pipeline.test_jobs import InOrder
from unlearn.oracles import build_reference_jobs, build_trial_data, train_reference_models
from unlearn.search_space import Choice
from unlearn.trials.config import Step, TrialConfig
from unlearn.tuning.search import (
    MAX_ACCURACY_DROP,
    SEARCH_MEASURES,
    HyperparameterSearch,
    build_search,
    deduplicate_results,
    evaluate_config,
    find_boundary_params,
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


def made(tow, said=0.5, *, diverged=0, runs=2, **values):
    return {"tow": tow, "blind": said, "diverged": diverged, "trials": ["t"] * runs, "values": values}


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
    found = [made(0.3, 0.8, lr=1), made(0.9, 0.2, lr=2), made(0.9, 0.8, lr=3)]
    assert select_config(found, "oracle") is found[1]
    assert select_config(found, "blind") is found[0]


def test_what_diverged_everywhere_or_is_undefined_is_not_taken():
    gone, half, unknown = made(0.9, 0.9, diverged=2), made(0.4, 0.1, diverged=1), made(0.5, math.nan)
    assert select_config([gone, half, unknown], "oracle") is unknown
    assert select_config([gone, half, unknown], "blind") is half
    assert select_config([gone], "oracle") is None
    assert select_config([], "blind") is None


def test_a_hunt_seeks_the_last_step_and_leaves_out_what_is_given():
    whole = set(HyperparameterSearch(trials=(replace(SEQUENCE, params=()),)).space)
    assert whole == {"lr", "density"}
    assert set(HyperparameterSearch(trials=(SEQUENCE,)).space) == {"density"}
    assert HyperparameterSearch(trials=(SEQUENCE,), tuned=False).space == {}


def test_a_joint_hunt_names_parameters_by_their_step():
    hunt = HyperparameterSearch(trials=(SEQUENCE,), joint=True)
    assert set(hunt.space) == {"2.lr", "3.density"}  # nothing to seek of doing nothing, and the third has its rate
    assert hunt.defaults == {"2.lr": 0.03, "3.density": 0.5}
    [one] = hunt.filled({"2.lr": 0.5, "3.density": 0.1})
    assert [step.params for step in one.steps] == [(), (("lr", 0.5),), (("density", 0.1), ("lr", 0.25))]


def test_values_of_a_hunt_by_steps_go_to_the_last_one():
    one = set_params(SEQUENCE, {"density": 0.1}, joint=False)
    assert one.params == (("density", 0.1), ("lr", 0.25))
    assert one.before == SEQUENCE.before


def test_every_algorithms_defaults_are_the_first_attempt_of_its_hunt():
    hunt = HyperparameterSearch(trials=(trial("scrub"),))
    told = build_search(hunt, "key", 5, [])
    assert told.first == [hunt.defaults]
    assert set(hunt.defaults) == set(told.space)
    assert build_search(HyperparameterSearch(trials=(trial("original"),)), "key", 5, []).budget == 1


def test_idle_is_theta_o_on_the_whole_forget_set():
    bare = make_baseline_trial(SEQUENCE)
    assert bare.steps == (Step(algorithm="original", rows=FORGET),)


def test_ends_of_a_space_are_named_and_choices_have_none():
    hunt = HyperparameterSearch(trials=(trial("scrub"),))
    ends = {name: getattr(space, "low", None) for name, space in hunt.space.items()}
    numbers = {name: low for name, low in ends.items() if low is not None}
    assert any(isinstance(space, Choice) for space in hunt.space.values())
    first = {name: space.values[0] for name, space in hunt.space.items() if isinstance(space, Choice)}
    assert set(find_boundary_params(hunt, numbers | first)) == set(numbers)


def test_attempts_have_one_order_whenever_they_were_made():
    one, two = made(0.1, lr=1.0), made(0.2, lr=2.0)
    assert deduplicate_results([one, two]) == deduplicate_results([two, one])
    assert len(deduplicate_results([one, one, two])) == 2


def test_attempts_that_were_drawn_have_the_order_of_their_draws():
    found = [made(0.1, lr=rate) for rate in (1.0, 2.0, 3.0)]
    for rates in ((3.0, 1.0, 2.0), (2.0, 3.0, 1.0)):
        assert [one["values"]["lr"] for one in deduplicate_results(found, [{"lr": rate} for rate in rates])] == list(
            rates
        )


@pytest.fixture(scope="module")
def filled_store(store):
    bank = open_bank(replace(BANK, store=store))
    bench = build_trial_data(bank.splits, bank.store.manifest.seed)
    train_reference_models(bank.store, build_reference_jobs(bank.store, [FORGET], [0, 1], "cpu"), bench, InOrder())
    return bank.store, bench


def test_hunts_that_seek_other_things_have_other_names(filled_store):
    """Their attempts are kept apart: with values of another space a search could not go on."""
    store, _ = filled_store
    short = trial("neggrad-plus", store.url)
    whole = HyperparameterSearch(trials=(short,))
    hunts = [
        whole,
        HyperparameterSearch(trials=(short,), tuned=False),
        HyperparameterSearch(trials=(short,), guide="blind"),
        HyperparameterSearch(
            trials=(replace(short, params=(("lr", whole.defaults["lr"]),)),)
        ),  # the same trial, but less is sought
        HyperparameterSearch(trials=(replace(short, index=1),)),
        HyperparameterSearch(trials=(short, replace(short, index=1))),
    ]
    assert len({hunt.name(store) for hunt in hunts}) == len(hunts)
    assert HyperparameterSearch(trials=(replace(short, variant="rum x"),)).name(store) == hunts[0].name(store)


def test_an_attempt_is_means_over_originals_and_is_kept(filled_store):
    store, bench = filled_store
    both = tuple(trial("neggrad-plus", store.url, index=index, params=(("epochs", 1),)) for index in (0, 1))
    hunt, values = HyperparameterSearch(trials=both, guide="blind"), {"lr": 0.02, "beta": 0.9}
    found = evaluate_config(hunt, values, bench)
    rows = [store.read_trial(name) for name in found["trials"]]
    bases = [row for row in map(store.read_trial, store.trials()) if row["algorithm"] == "original"]
    assert [json.loads(row["config"])["lr"] for row in rows] == [0.02, 0.02]
    assert sorted(row["index"] for row in bases) == [0, 1]
    by_index = {row["index"]: row for row in bases}
    assert found["tow"] == pytest.approx(sum(row["tow_validation"] for row in rows) / 2)
    assert found["blind"] == pytest.approx(sum(oracle_free_objective(row, by_index[row["index"]]) for row in rows) / 2)
    assert found["objective"] == found["blind"]
    assert found["examples"] == sum(row["examples"] for row in rows)
    [kept] = read_config_results(store, hunt, store.trials())
    assert kept == {"values": values, **{name: found[name] for name in found if name != "objective"}}
    assert store.folder.exists(f"attempts/{hunt.name(store)}/{hash_record(values)}.json")


def test_one_spoilt_original_is_not_made_good_by_another(filled_store):
    store, bench = filled_store
    both = tuple(trial("gradient-ascent", store.url, index=index, params=(("epochs", 4),)) for index in (0, 1))
    spoilt, kept = {"lr": 0.2}, {"lr": 1e-6}

    def of(values, *which):
        return evaluate_config(HyperparameterSearch(trials=tuple(both[index] for index in which)), values, bench)[
            "blind"
        ]

    assert of(spoilt, 0) < 0
    assert of(kept, 0, 1) == pytest.approx((of(kept, 0) + of(kept, 1)) / 2)
    assert of(spoilt, 0, 1) == min(of(spoilt, 0), of(spoilt, 1))


def test_a_diverged_attempt_counts_nothing_and_is_kept(filled_store):
    store, bench = filled_store
    hunt = HyperparameterSearch(trials=(trial("gradient-ascent", store.url),))
    found = evaluate_config(hunt, {"lr": 1e30}, bench)
    assert (found["tow"], found["blind"], found["diverged"]) == (0.0, -1.0, 1)
    assert select_config(read_config_results(store, hunt, store.trials()), "oracle") is None


def test_what_is_undefined_comes_back_from_file_as_such(filled_store, monkeypatch):
    store, bench = filled_store
    monkeypatch.setattr("unlearn.tuning.search.oracle_free_objective", lambda row, base: math.nan)
    hunt = HyperparameterSearch(trials=(trial("finetune", store.url, params=(("epochs", 1),)),))
    evaluate_config(hunt, {"lr": 0.01}, bench)
    [kept] = read_config_results(Store.open(store.url), hunt, store.trials())
    assert math.isnan(kept["blind"])
    assert select_config([kept], "blind") is None
    assert select_config([kept], "oracle") is kept
