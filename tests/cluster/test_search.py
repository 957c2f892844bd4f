"""Search backends in one process, and which values they evaluate; for Ray Tune see tune/test_tune_search.py."""

import math

import numpy as np
import pytest

from cluster.pool import Failure, RepeatedFailure, RunStopped
from cluster.search import ConfigSampler, SerialSearch
from cluster.search_space import Search
from tests.fixtures import jobs, objectives

UNIT = {"x": ("uniform", 0.0, 1.0)}
FEW = {"k": ("choice", (1, 2, 3))}


class Results(list):
    """The results that a search reported, in order."""

    def __call__(self, search, values, outcome):
        self.append((search.name, values, outcome))

    def values_for(self, name):
        return [values for search, values, _ in self if search == name]


def run_searches(fn, searches, shared=None, **options):
    results = Results()
    SerialSearch().search(fn, searches, shared, results, **options)
    return results


def test_each_search_has_its_budget_and_earlier_results_count():
    evaluated = [({"x": 0.125}, -1.0), ({"x": 0.25}, math.nan)]
    searches = [
        Search(name="a", space=UNIT, budget=3, job=7),
        Search(name="b", space=UNIT, budget=4, job=8, evaluated=evaluated),
        Search(name="empty", space={}, budget=5, job=9),
        Search(name="done", space=UNIT, budget=2, job=10, evaluated=evaluated),
    ]
    results = run_searches(objectives.product, searches)
    assert {name: len(results.values_for(name)) for name in ("a", "b", "empty", "done")} == {
        "a": 3,
        "b": 2,
        "empty": 1,
        "done": 0,
    }
    assert all(outcome == {"objective": math.prod(values.values())} for _, values, outcome in results)
    assert all(0 <= values["x"] <= 1 for name, values, _ in results if name != "empty")


def test_initial_values_are_evaluated_first_unless_they_were_before_and_may_lie_outside():
    search = Search(
        name="a", space=UNIT, budget=4, job="spec", initial=[{"x": 0.5}, {"x": 7.0}], evaluated=[({"x": 0.5}, 1.0)]
    )
    results = run_searches(objectives.square, [search])
    assert len(results) == 3
    assert results[0] == ("a", {"x": 7.0}, {"objective": -(6.7**2), "job": "spec"})


def test_a_function_that_raises_is_a_failure_and_the_others_go_on():
    results = run_searches(objectives.raise_at_two, [Search(name="a", space=FEW, budget=3, job=None)])
    outcomes = {values["k"]: outcome for _, values, outcome in results}
    failure = outcomes.pop(2)
    assert outcomes == {1: {"objective": 1.0}, 3: {"objective": 3.0}}
    assert isinstance(failure, Failure)
    assert (failure.error, failure.kind, failure.attempts) == ("ValueError: two is not allowed", "exception", 1)
    assert "raise_at_two" in failure.traceback


def test_a_search_whose_first_evaluations_all_fail_in_the_same_way_ends_unless_it_is_to_keep_going():
    def fail(job, values, shared):
        raise SystemExit(f"x is {values['x']}")

    results = Results()
    searches = [Search(name="a", space=UNIT, budget=12, job=None), Search(name="b", space=UNIT, budget=12, job=None)]
    with pytest.raises(RepeatedFailure, match="first 8 jobs all failed in the same way"):
        SerialSearch().search(fail, searches, None, results)
    assert len(results) == 8
    results.clear()
    SerialSearch(keep_going=True).search(fail, searches, None, results)
    assert len(results) == 24


@pytest.mark.parametrize("are_earlier", [False, True])
@pytest.mark.parametrize("undefined", [math.nan, math.inf, -math.inf])
def test_an_undefined_objective_is_worse_than_any_other(undefined, are_earlier):
    """All that is defined is below 0, so that 0 in its place would draw the sampler to what has no value."""

    def evaluate(job, values, shared):
        return {"objective": undefined if values["x"] < 0.5 else values["x"] - 2.0}

    earlier = [({"x": x}, evaluate(None, {"x": x}, None)["objective"]) for x in np.linspace(0.02, 0.98, 25).tolist()]
    search = Search(name="a", space=UNIT, budget=65, job=None, evaluated=earlier if are_earlier else [])
    x = [values["x"] for values in run_searches(evaluate, [search]).values_for("a")]
    assert np.mean(np.array(x[-30:]) >= 0.5) > 0.8


def test_an_answer_without_an_objective_is_a_failure():
    [(_, _, failure)] = run_searches(objectives.without_objective, [Search(name="a", space={}, budget=1, job=None)])
    assert failure.error.startswith("TypeError: without_objective gave no float 'objective' but {'score': 1.0}")


def test_an_exception_that_stops_the_run_does():
    with pytest.raises(jobs.StoreGone, match="the disk is full"):
        run_searches(objectives.stop_at_two, [Search(name="a", space=FEW, budget=3, job=None)])


def test_what_on_result_raises_ends_the_search_and_reaches_the_caller():
    def on_result(search, values, outcome):
        raise OSError("the row cannot be stored")

    with pytest.raises(OSError, match="the row cannot be stored"):
        SerialSearch().search(objectives.product, [Search(name="a", space=FEW, budget=3, job=None)], None, on_result)


def test_a_finite_space_is_tried_once_and_ends_its_search():
    space = {"k": ("choice", (1, 2)), "n": ("whole", 1, 3)}
    results = run_searches(objectives.product, [Search(name="a", space=space, budget=50, job=None)], sampler="random")
    assert sorted((values["k"], values["n"]) for _, values, _ in results) == [(k, n) for k in (1, 2) for n in (1, 2, 3)]


def test_a_search_that_goes_on_makes_only_the_rest():
    def make_search(evaluated=()):
        return Search(name="a", space=UNIT, budget=6, job=None, evaluated=evaluated)

    whole = run_searches(objectives.square, [make_search()], sampler="random").values_for("a")
    evaluated = [({"x": values["x"]}, 0.0) for values in whole[1:4]]
    rest = run_searches(objectives.square, [make_search(evaluated)], sampler="random").values_for("a")
    assert sorted(v["x"] for v in rest) == sorted(v["x"] for v in [whole[0], *whole[4:]])  # no value is made twice


def test_a_grid_is_a_product_of_few_points():
    space = {"lr": ("log", 0.01, 1.0), "n": ("whole", 1, 2), "k": ("choice", (1, 2))}
    results = run_searches(objectives.product, [Search(name="a", space=space, budget=13, job=None)], sampler="grid")
    points = sorted((values["lr"], values["n"], values["k"]) for _, values, _ in results)
    assert points == [(pytest.approx(lr, rel=1e-12), n, k) for lr in (0.01, 0.1, 1.0) for n in (1, 2) for k in (1, 2)]
    assert (points[0][0], points[-1][0]) == (0.01, 1.0)  # the ends exactly


def test_what_is_shared_arrives_read_only():
    scores = np.array([0.5, 0.25])
    searches = [Search(name=f"search {job}", space=UNIT, budget=2, job=job) for job in range(2)]
    results = run_searches(objectives.from_shared, searches, {"scores": scores})
    assert {(name, outcome["objective"]) for name, _, outcome in results} == {("search 0", 0.5), ("search 1", 0.25)}
    assert not any(outcome["writeable"] for _, _, outcome in results)


def test_searches_take_turns_and_the_same_seed_tries_the_same():
    def make_searches(names):
        return [Search(name=name, space=UNIT, budget=12, job=None) for name in names]

    results = run_searches(objectives.square, make_searches("abc"), seed=3)
    assert [name for name, _, _ in results] == list("abc") * 12
    again = run_searches(objectives.square, make_searches("cb"), seed=3)
    assert again.values_for("b") == results.values_for("b")  # whatever the other searches are
    assert results.values_for("a") != results.values_for("b")
    assert run_searches(objectives.square, make_searches("b"), seed=0).values_for("b") != results.values_for("b")


def test_tpe_learns_from_its_results_and_from_earlier_ones():
    """After ten random draws TPE draws near the best; uniform draws would put 10 of 20 within .25 of it."""
    results = run_searches(objectives.square, [Search(name="a", space=UNIT, budget=30, job=None)])
    assert sum(abs(values["x"] - 0.3) < 0.25 for values in results.values_for("a")[10:]) >= 16
    evaluated = [(values, outcome["objective"]) for _, values, outcome in results]
    more = run_searches(objectives.square, [Search(name="a", space=UNIT, budget=50, job=None, evaluated=evaluated)])
    assert sum(abs(values["x"] - 0.3) < 0.25 for values in more.values_for("a")) >= 16


def test_an_objective_that_is_no_number_has_no_value_for_the_sampler():
    results = run_searches(objectives.return_nan, [Search(name="a", space=UNIT, budget=3, job=None)])
    assert [math.isnan(outcome["objective"]) for _, _, outcome in results] == [True] * 3
    sampler = ConfigSampler([Search(name="a", space=UNIT, budget=3, job=None, evaluated=[({"x": 0.5}, math.inf)])])
    sample = sampler.next()
    sampler.report(sample, {"objective": math.nan})
    assert [trial.value for trial in sampler._samplers[0].study.trials] == [None, None]


def test_values_from_a_file_are_recognized_whatever_their_type():
    space = {"k": ("whole", 1, 2), "pair": ("choice", ((1, 2), None))}
    evaluated = [({"k": 1.0, "pair": [1, 2]}, 0.5), ({"k": 2, "pair": None}, 0.5)]
    sampler = ConfigSampler([Search(name="a", space=space, budget=9, job=None, evaluated=evaluated)], "random")
    values = [sampler.next().values, sampler.next().values]
    assert sorted(values, key=lambda row: row["k"]) == [{"k": 1, "pair": None}, {"k": 2, "pair": (1, 2)}]
    assert sampler.next() is None


@pytest.mark.parametrize("odd", [None, math.nan, math.inf, 2.5, "auto", -1])
def test_first_values_that_the_space_lacks_are_tried_and_teach_nothing(odd):
    sampler = ConfigSampler([Search(name="a", space={"k": ("whole", 1, 9)}, budget=2, job=None, initial=[{"k": odd}])])
    sample = sampler.next()
    assert sample.values["k"] is odd or sample.values["k"] == odd
    sampler.report(sample, {"objective": 1.0})
    assert sampler._samplers[0].study.trials == []
    assert 1 <= sampler.next().values["k"] <= 9
    assert sampler.next() is None


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"budget": 0}, "'a' has a budget of 0 evaluations; give it 1 or more"),
        ({"space": {"x": ("log", 0.0, 1.0)}}, "the domain of 'x' in the search 'a' is"),
        ({"space": {"x": ("uniform", 1.0, 0.0)}}, "low not above high"),
        ({"space": {"x": ("whole", 1.5, 3)}}, "must be"),
        ({"space": {"x": ("choice", ())}}, "must be"),
        ({"space": {"x": ("normal", 0, 1)}}, "must be"),
        ({"initial": [{"y": 1.0}]}, r"is given values of \['y'\], but its space has \['x'\]"),
        ({"evaluated": [({}, 1.0)]}, r"is given values of \[\]"),
    ],
)
def test_an_invalid_search_is_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        Search(**({"name": "a", "space": UNIT, "budget": 2, "job": None} | wrong))


def test_searches_of_one_name_an_unknown_sampler_and_a_grid_too_large_are_refused():
    search = Search(name="a", space={"k": ("choice", (1, 2, 3))}, budget=2, job=None)
    with pytest.raises(ValueError, match="several searches are called 'a'"):
        ConfigSampler([search, search])
    with pytest.raises(ValueError, match="unknown sampler 'bayes'; use tpe, random or grid"):
        ConfigSampler([search], "bayes")
    with pytest.raises(ValueError, match="has at least 3 points, all of its choices, but 2 evaluations are left"):
        ConfigSampler([search], "grid")


def test_a_serial_search_whose_process_lost_its_gpu_stops_after_the_second_evaluation():
    results = Results()
    with pytest.raises(RunStopped, match="lost its GPU, in 2 jobs in a row"):
        SerialSearch().search(
            objectives.always_lose_gpu, [Search(name="a", space=UNIT, budget=9, job=None)], None, results
        )
    assert len(results) == 2
