"""Hunts: what is sought, how attempts are kept, and what the two selections take of made rows."""

import json
import math
from dataclasses import replace

import pytest

from memscore.pipeline.runner import open_bank
from memscore.store.json_records import sha256_of
from memscore.store.store import Store
from tests.fixtures.sweeps import BANK
from tests.memscore.pipeline.test_jobs import InOrder
from unlearn.oracles import bench_of, fill_oracles, needed
from unlearn.search_space import Choice
from unlearn.trials.config import Step, TrialConfig
from unlearn.tuning.search import (
    FLOOR,
    READ,
    Hunt,
    attempt,
    blind,
    boundaries,
    chosen,
    distinct,
    errand,
    filled,
    idle,
    on_file,
)

FORGET = tuple(range(0, 24, 2))


def trial(name="finetune", url="nowhere", **more):
    return TrialConfig(store=url, algorithm=name, forget_set="mine", forget=FORGET, measures=READ, core=False, **more)


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
    assert blind(row(0.9 - FLOOR, 0.1), THETA_O) == pytest.approx(0.9)
    assert blind(row(0.95, 0.25), THETA_O) == pytest.approx(0.75)


def test_below_the_floor_what_counts_is_how_far():
    assert blind(row(0.9 - FLOOR - 0.05, 0.0), THETA_O) == pytest.approx(-0.05)


def test_whatever_is_above_the_floor_is_better_than_what_is_below_and_that_than_a_diverged_run():
    worst_above, best_below = blind(row(0.88, 1.0), THETA_O), blind(row(0.8799, 0.0), THETA_O)
    assert worst_above >= 0 > best_below > blind(row(math.nan, math.nan, "diverged"), THETA_O)


def test_without_an_unseen_example_of_a_class_it_is_undefined():
    assert math.isnan(blind(row(0.9, math.nan), THETA_O))


def test_each_selection_takes_the_best_of_its_own_column_and_the_first_of_equals():
    found = [made(0.3, 0.8, lr=1), made(0.9, 0.2, lr=2), made(0.9, 0.8, lr=3)]
    assert chosen(found, "oracle") is found[1]
    assert chosen(found, "blind") is found[0]


def test_what_diverged_everywhere_or_is_undefined_is_not_taken():
    gone, half, unknown = made(0.9, 0.9, diverged=2), made(0.4, 0.1, diverged=1), made(0.5, math.nan)
    assert chosen([gone, half, unknown], "oracle") is unknown
    assert chosen([gone, half, unknown], "blind") is half
    assert chosen([gone], "oracle") is None
    assert chosen([], "blind") is None


def test_a_hunt_seeks_the_last_step_and_leaves_out_what_is_given():
    whole = set(Hunt(trials=(replace(SEQUENCE, params=()),)).space)
    assert whole == {"lr", "density"}
    assert set(Hunt(trials=(SEQUENCE,)).space) == {"density"}
    assert Hunt(trials=(SEQUENCE,), tuned=False).space == {}


def test_a_joint_hunt_names_parameters_by_their_step():
    hunt = Hunt(trials=(SEQUENCE,), joint=True)
    assert set(hunt.space) == {"2.lr", "3.density"}  # nothing to seek of doing nothing, and the third has its rate
    assert hunt.defaults == {"2.lr": 0.03, "3.density": 0.5}
    [one] = hunt.filled({"2.lr": 0.5, "3.density": 0.1})
    assert [step.params for step in one.steps] == [(), (("lr", 0.5),), (("density", 0.1), ("lr", 0.25))]


def test_values_of_a_hunt_by_steps_go_to_the_last_one():
    one = filled(SEQUENCE, {"density": 0.1}, joint=False)
    assert one.params == (("density", 0.1), ("lr", 0.25))
    assert one.before == SEQUENCE.before


def test_every_algorithms_defaults_are_the_first_attempt_of_its_hunt():
    hunt = Hunt(trials=(trial("scrub"),))
    told = errand(hunt, "key", 5, [])
    assert told.first == [hunt.defaults]
    assert set(hunt.defaults) == set(told.space)
    assert errand(Hunt(trials=(trial("original"),)), "key", 5, []).budget == 1


def test_idle_is_theta_o_on_the_whole_forget_set():
    bare = idle(SEQUENCE)
    assert bare.steps == (Step(algorithm="original", rows=FORGET),)


def test_ends_of_a_space_are_named_and_choices_have_none():
    hunt = Hunt(trials=(trial("scrub"),))
    ends = {name: getattr(space, "low", None) for name, space in hunt.space.items()}
    numbers = {name: low for name, low in ends.items() if low is not None}
    assert any(isinstance(space, Choice) for space in hunt.space.values())
    first = {name: space.values[0] for name, space in hunt.space.items() if isinstance(space, Choice)}
    assert set(boundaries(hunt, numbers | first)) == set(numbers)


def test_attempts_have_one_order_whenever_they_were_made():
    one, two = made(0.1, lr=1.0), made(0.2, lr=2.0)
    assert distinct([one, two]) == distinct([two, one])
    assert len(distinct([one, one, two])) == 2


def test_attempts_that_were_drawn_have_the_order_of_their_draws():
    found = [made(0.1, lr=rate) for rate in (1.0, 2.0, 3.0)]
    for rates in ((3.0, 1.0, 2.0), (2.0, 3.0, 1.0)):
        assert [one["values"]["lr"] for one in distinct(found, [{"lr": rate} for rate in rates])] == list(rates)


@pytest.fixture(scope="module")
def filled_store(store):
    bank = open_bank(replace(BANK, store=store))
    bench = bench_of(bank.splits, bank.store.manifest.seed)
    fill_oracles(bank.store, needed(bank.store, [FORGET], [0, 1], "cpu"), bench, InOrder())
    return bank.store, bench


def test_hunts_that_seek_other_things_have_other_names(filled_store):
    """Their attempts are kept apart: with values of another space a search could not go on."""
    store, _ = filled_store
    short = trial("neggrad-plus", store.url)
    whole = Hunt(trials=(short,))
    hunts = [
        whole,
        Hunt(trials=(short,), tuned=False),
        Hunt(trials=(short,), guide="blind"),
        Hunt(trials=(replace(short, params=(("lr", whole.defaults["lr"]),)),)),  # the same trial, but less is sought
        Hunt(trials=(replace(short, index=1),)),
        Hunt(trials=(short, replace(short, index=1))),
    ]
    assert len({hunt.name(store) for hunt in hunts}) == len(hunts)
    assert Hunt(trials=(replace(short, variant="rum x"),)).name(store) == hunts[0].name(store)


def test_an_attempt_is_means_over_originals_and_is_kept(filled_store):
    store, bench = filled_store
    both = tuple(trial("neggrad-plus", store.url, index=index, params=(("epochs", 1),)) for index in (0, 1))
    hunt, values = Hunt(trials=both, guide="blind"), {"lr": 0.02, "beta": 0.9}
    found = attempt(hunt, values, bench)
    rows = [store.read_trial(name) for name in found["trials"]]
    bases = [row for row in map(store.read_trial, store.trials()) if row["algorithm"] == "original"]
    assert [json.loads(row["config"])["lr"] for row in rows] == [0.02, 0.02]
    assert sorted(row["index"] for row in bases) == [0, 1]
    by_index = {row["index"]: row for row in bases}
    assert found["tow"] == pytest.approx(sum(row["tow_validation"] for row in rows) / 2)
    assert found["blind"] == pytest.approx(sum(blind(row, by_index[row["index"]]) for row in rows) / 2)
    assert found["objective"] == found["blind"]
    assert found["examples"] == sum(row["examples"] for row in rows)
    [kept] = on_file(store, hunt, store.trials())
    assert kept == {"values": values, **{name: found[name] for name in found if name != "objective"}}
    assert store.folder.exists(f"attempts/{hunt.name(store)}/{sha256_of(values)}.json")


def test_one_spoilt_original_is_not_made_good_by_another(filled_store):
    store, bench = filled_store
    both = tuple(trial("gradient-ascent", store.url, index=index, params=(("epochs", 4),)) for index in (0, 1))
    spoilt, kept = {"lr": 0.2}, {"lr": 1e-6}

    def of(values, *which):
        return attempt(Hunt(trials=tuple(both[index] for index in which)), values, bench)["blind"]

    assert of(spoilt, 0) < 0
    assert of(kept, 0, 1) == pytest.approx((of(kept, 0) + of(kept, 1)) / 2)
    assert of(spoilt, 0, 1) == min(of(spoilt, 0), of(spoilt, 1))


def test_a_diverged_attempt_counts_nothing_and_is_kept(filled_store):
    store, bench = filled_store
    hunt = Hunt(trials=(trial("gradient-ascent", store.url),))
    found = attempt(hunt, {"lr": 1e30}, bench)
    assert (found["tow"], found["blind"], found["diverged"]) == (0.0, -1.0, 1)
    assert chosen(on_file(store, hunt, store.trials()), "oracle") is None


def test_what_is_undefined_comes_back_from_file_as_such(filled_store, monkeypatch):
    store, bench = filled_store
    monkeypatch.setattr("unlearn.tuning.search.blind", lambda row, base: math.nan)
    hunt = Hunt(trials=(trial("finetune", store.url, params=(("epochs", 1),)),))
    attempt(hunt, {"lr": 0.01}, bench)
    [kept] = on_file(Store.open(store.url), hunt, store.trials())
    assert math.isnan(kept["blind"])
    assert chosen([kept], "blind") is None
    assert chosen([kept], "oracle") is kept
