"""The promise of a search, and which values it tries; the same promise on Ray Tune is in test_tuning.py."""

import math

import numpy as np
import pytest

from cluster.pool import Failure
from cluster.search import ConfigSampler, SerialSearch
from cluster.search_space import Search
from tests.fixtures import jobs, judges

UNIT = {"x": ("uniform", 0.0, 1.0)}
FEW = {"k": ("choice", (1, 2, 3))}


class Told(list):
    """What a search has told, in order."""

    def __call__(self, arm, values, outcome):
        self.append((arm.name, values, outcome))

    def of(self, name):
        return [values for arm, values, _ in self if arm == name]


def tried(fn, arms, shared=None, **how):
    told = Told()
    SerialSearch().search(fn, arms, shared, told, **how)
    return told


def test_each_arm_has_its_budget_and_what_is_known_counts():
    known = [({"x": 0.125}, -1.0), ({"x": 0.25}, math.nan)]
    arms = [
        Search(name="a", space=UNIT, budget=3, job=7),
        Search(name="b", space=UNIT, budget=4, job=8, evaluated=known),
        Search(name="empty", space={}, budget=5, job=9),
        Search(name="done", space=UNIT, budget=2, job=10, evaluated=known),
    ]
    told = tried(judges.product, arms)
    assert {name: len(told.of(name)) for name in ("a", "b", "empty", "done")} == {"a": 3, "b": 2, "empty": 1, "done": 0}
    assert all(outcome == {"objective": math.prod(values.values())} for _, values, outcome in told)
    assert all(0 <= values["x"] <= 1 for name, values, _ in told if name != "empty")


def test_first_is_tried_first_unless_it_is_known_and_may_lie_outside():
    arm = Search(
        name="a", space=UNIT, budget=4, job="told", initial=[{"x": 0.5}, {"x": 7.0}], evaluated=[({"x": 0.5}, 1.0)]
    )
    told = tried(judges.square, [arm])
    assert len(told) == 3
    assert told[0] == ("a", {"x": 7.0}, {"objective": -(6.7**2), "job": "told"})


def test_a_function_that_raises_is_a_failure_and_the_others_go_on():
    told = tried(judges.raise_at_two, [Search(name="a", space=FEW, budget=3, job=None)])
    outcomes = {values["k"]: outcome for _, values, outcome in told}
    failure = outcomes.pop(2)
    assert outcomes == {1: {"objective": 1.0}, 3: {"objective": 3.0}}
    assert isinstance(failure, Failure)
    assert (failure.error, failure.kind, failure.attempts) == ("ValueError: two is not allowed", "exception", 1)
    assert "raise_at_two" in failure.traceback


def test_an_answer_without_an_objective_is_a_failure():
    [(_, _, failure)] = tried(judges.nothing, [Search(name="a", space={}, budget=1, job=None)])
    assert failure.error.startswith("TypeError: nothing gave no float 'objective' but {'score': 1.0}")


def test_an_exception_that_stops_the_run_does():
    with pytest.raises(jobs.StoreGone, match="the disk is full"):
        tried(judges.stop_at_two, [Search(name="a", space=FEW, budget=3, job=None)])


def test_what_told_raises_ends_the_search_and_reaches_the_caller():
    def told(arm, values, outcome):
        raise OSError("the row cannot be kept")

    with pytest.raises(OSError, match="the row cannot be kept"):
        SerialSearch().search(judges.product, [Search(name="a", space=FEW, budget=3, job=None)], None, told)


def test_a_finite_space_is_tried_once_and_ends_its_arm():
    space = {"k": ("choice", (1, 2)), "n": ("whole", 1, 3)}
    told = tried(judges.product, [Search(name="a", space=space, budget=50, job=None)], sampler="random")
    assert sorted((values["k"], values["n"]) for _, values, _ in told) == [(k, n) for k in (1, 2) for n in (1, 2, 3)]


def test_a_search_that_goes_on_makes_only_the_rest():
    def arm(known=()):
        return Search(name="a", space=UNIT, budget=6, job=None, evaluated=known)

    whole = tried(judges.square, [arm()], sampler="random").of("a")
    known = [({"x": values["x"]}, 0.0) for values in whole[1:4]]
    rest = tried(judges.square, [arm(known)], sampler="random").of("a")
    assert sorted(v["x"] for v in rest) == sorted(v["x"] for v in [whole[0], *whole[4:]])  # no value is made twice


def test_a_grid_is_a_product_of_few_points():
    space = {"lr": ("log", 0.01, 1.0), "n": ("whole", 1, 2), "k": ("choice", (1, 2))}
    told = tried(judges.product, [Search(name="a", space=space, budget=13, job=None)], sampler="grid")
    points = sorted((values["lr"], values["n"], values["k"]) for _, values, _ in told)
    assert points == [(pytest.approx(lr, rel=1e-12), n, k) for lr in (0.01, 0.1, 1.0) for n in (1, 2) for k in (1, 2)]
    assert (points[0][0], points[-1][0]) == (0.01, 1.0)  # the ends exactly


def test_what_is_shared_arrives_read_only():
    scores = np.array([0.5, 0.25])
    arms = [Search(name=f"arm {job}", space=UNIT, budget=2, job=job) for job in range(2)]
    told = tried(judges.from_shared, arms, {"scores": scores})
    assert {(name, outcome["objective"]) for name, _, outcome in told} == {("arm 0", 0.5), ("arm 1", 0.25)}
    assert not any(outcome["writeable"] for _, _, outcome in told)


def test_arms_take_turns_and_the_same_seed_tries_the_same():
    def arms(names):
        return [Search(name=name, space=UNIT, budget=12, job=None) for name in names]

    told = tried(judges.square, arms("abc"), seed=3)
    assert [name for name, _, _ in told] == list("abc") * 12
    again = tried(judges.square, arms("cb"), seed=3)
    assert again.of("b") == told.of("b")  # whatever the other arms are
    assert told.of("a") != told.of("b")
    assert tried(judges.square, arms("b"), seed=0).of("b") != told.of("b")


def test_tpe_learns_from_what_it_tried_and_from_what_is_known():
    """After ten draws at random TPE tries near the best; a chance of half would put 10 of 20 within .25 of it."""
    told = tried(judges.square, [Search(name="a", space=UNIT, budget=30, job=None)])
    assert sum(abs(values["x"] - 0.3) < 0.25 for values in told.of("a")[10:]) >= 16
    known = [(values, outcome["objective"]) for _, values, outcome in told]
    more = tried(judges.square, [Search(name="a", space=UNIT, budget=50, job=None, evaluated=known)])
    assert sum(abs(values["x"] - 0.3) < 0.25 for values in more.of("a")) >= 16


def test_an_objective_that_is_no_number_counts_as_nothing_for_the_sampler():
    told = tried(judges.nan, [Search(name="a", space=UNIT, budget=3, job=None)])
    assert [math.isnan(outcome["objective"]) for _, _, outcome in told] == [True] * 3
    turns = ConfigSampler([Search(name="a", space=UNIT, budget=3, job=None, evaluated=[({"x": 0.5}, math.inf)])])
    attempt = turns.next()
    turns.report(attempt, {"objective": math.nan})
    assert [trial.value for trial in turns._courses[0].study.trials] == [0.0, 0.0]


def test_values_from_a_file_are_known_whatever_their_type():
    space = {"k": ("whole", 1, 2), "pair": ("choice", ((1, 2), None))}
    known = [({"k": 1.0, "pair": [1, 2]}, 0.5), ({"k": 2, "pair": None}, 0.5)]
    turns = ConfigSampler([Search(name="a", space=space, budget=9, job=None, evaluated=known)], "random")
    values = [turns.next().values, turns.next().values]
    assert sorted(values, key=lambda row: row["k"]) == [{"k": 1, "pair": None}, {"k": 2, "pair": (1, 2)}]
    assert turns.next() is None


@pytest.mark.parametrize("odd", [None, math.nan, math.inf, 2.5, "auto", -1])
def test_first_values_that_the_space_lacks_are_tried_and_teach_nothing(odd):
    turns = ConfigSampler([Search(name="a", space={"k": ("whole", 1, 9)}, budget=2, job=None, initial=[{"k": odd}])])
    attempt = turns.next()
    assert attempt.values["k"] is odd or attempt.values["k"] == odd
    turns.report(attempt, {"objective": 1.0})
    assert turns._courses[0].study.trials == []
    assert 1 <= turns.next().values["k"] <= 9
    assert turns.next() is None


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"budget": 0}, "'a' has a budget of 0 attempts; give it 1 or more"),
        ({"space": {"x": ("log", 0.0, 1.0)}}, "the domain of 'x' in the search 'a' is"),
        ({"space": {"x": ("uniform", 1.0, 0.0)}}, "low not above high"),
        ({"space": {"x": ("whole", 1.5, 3)}}, "must be"),
        ({"space": {"x": ("choice", ())}}, "must be"),
        ({"space": {"x": ("normal", 0, 1)}}, "must be"),
        ({"first": [{"y": 1.0}]}, r"is told of \['y'\], but its space has \['x'\]"),
        ({"known": [({}, 1.0)]}, r"is told of \[\]"),
    ],
)
def test_an_arm_that_makes_no_sense_is_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        Search(**({"name": "a", "space": UNIT, "budget": 2, "job": None} | wrong))


def test_arms_of_one_name_an_unknown_sampler_and_a_grid_too_large_are_refused():
    arm = Search(name="a", space={"k": ("choice", (1, 2, 3))}, budget=2, job=None)
    with pytest.raises(ValueError, match="several arms of one search are called 'a'"):
        ConfigSampler([arm, arm])
    with pytest.raises(ValueError, match="unknown sampler 'bayes'; use tpe, random or grid"):
        ConfigSampler([arm], "bayes")
    with pytest.raises(ValueError, match="has at least 3 points, all of its choices, but 2 attempts are left"):
        ConfigSampler([arm], "grid")
