"""The sampler that refines: what its design covers, and where its proposals go."""

import numpy as np
import pytest

from unlearn.search_space import Choice, Integer, LogUniform, Uniform
from unlearn.tuning.refinement import count_design, draw_design, draw_recurrence, encode, from_unit, propose, to_unit

LR = {"lr": LogUniform(low=1e-4, high=1.0, source="")}
ALL = {
    **LR,
    "alpha": Uniform(low=-1.0, high=1.0, source=""),
    "steps": Integer(low=1, high=5, source=""),
    "order": Choice(values=("mixed", "sequential", None), source=""),
}


def search(space, f, budget, seed=0, stream="a/0"):
    """Search as run_searches does, without a store."""
    plan = draw_design(space, count_design(len(space)), seed, stream)
    while len(plan) < budget:
        plan.append(propose(space, [(values, f(values)) for values in plan], seed, stream))
    return plan


def test_values_and_points_of_the_unit_cube_are_converted_both_ways():
    for values in draw_design(ALL, 50, 0, "both ways"):
        assert from_unit(ALL, to_unit(ALL, values)) == pytest.approx(values) or values["order"] is None
        assert ALL["lr"].low <= values["lr"] <= ALL["lr"].high
        assert 1 <= values["steps"] <= 5
        assert isinstance(values["steps"], int)
    assert {values["order"] for values in draw_design(ALL, 50, 0, "all")} == {"mixed", "sequential", None}
    assert to_unit(LR, {"lr": 5.0}) == [1.0]  # the papers' value may lie outside


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_a_design_leaves_no_large_gap(dimensions):
    points, drawn = draw_recurrence(8, dimensions, np.random.default_rng(0)), np.random.default_rng(1)
    tested = drawn.random((2000, dimensions))
    gaps = np.abs(tested[:, None] - points).max(axis=2).min(axis=1)
    at_random = [
        np.abs(tested[:, None] - drawn.random((8, dimensions))).max(axis=2).min(axis=1).max() for _ in range(20)
    ]
    assert gaps.max() < np.median(at_random)


def test_a_larger_design_begins_with_the_smaller():
    assert draw_design(ALL, 9, 3, "x")[:4] == draw_design(ALL, 4, 3, "x")
    assert draw_design(ALL, 4, 3, "x") != draw_design(ALL, 4, 3, "y")
    assert draw_design(ALL, 4, 3, "x") != draw_design(ALL, 4, 4, "x")


def test_proposals_find_a_narrow_optimum_more_often_than_random_draws():
    """A peak half a decade wide in four decades, as fine-tuning's rates have it, with a cliff above it."""
    found: dict[str, list[float]] = {"refine": [], "random": []}
    for number in range(40):
        rng = np.random.default_rng(number)
        best = rng.uniform(-3.5, -0.5)

        def f(values, best=best):
            x = np.log10(values["lr"]) - best
            return float(np.exp(-0.5 * (x / (0.5 if x < 0 else 0.15)) ** 2))

        found["refine"].append(max(map(f, search(LR, f, 8, seed=number))))
        found["random"].append(max(f({"lr": LR["lr"].draw(rng)}) for _ in range(8)))
    assert np.mean(found["refine"]) > np.mean(found["random"]) + 0.02
    assert np.std(found["refine"]) < 0.5 * np.std(found["random"])


def test_undefined_results_count_as_the_worst_and_proposals_keep_away_from_them():
    results = [({"lr": 1e-3}, 0.5), ({"lr": 1e-2}, 0.6), ({"lr": 1e-1}, float("nan")), ({"lr": 0.9}, float("nan"))]
    assert 1e-4 <= propose(LR, results, 0, "nan")["lr"] < 0.08


def test_where_all_results_are_undefined_something_new_is_proposed():
    results = [({"lr": lr}, float("nan")) for lr in (1e-3, 1e-2)]
    assert propose(LR, results, 0, "same")["lr"] not in {1e-3, 1e-2}


def test_where_nothing_had_an_effect_the_largest_rate_comes_next_and_then_what_is_far_from_all():
    """Differences of some thousandths are noise, and no reason to look for more beside the best of them."""
    results = [({"lr": lr}, 0.63 + noise) for lr, noise in ((1e-4, 0.004), (3e-4, 0.0), (1e-3, 0.0), (3e-3, -0.003))]
    assert propose(LR, results, 0, "flat") == {"lr": 1.0}
    results.append(({"lr": 1.0}, 0.631))
    assert 0.01 < propose(LR, results, 0, "flat")["lr"] < 0.5
    kept = propose(ALL, [({"lr": 1e-3, "alpha": 0.2, "steps": 2, "order": None}, 0.5)], 0, "flat")
    assert kept == {"lr": 1.0, "alpha": 0.2, "steps": 2, "order": None}


def test_a_finite_space_ends_where_every_value_has_a_result():
    space = {"order": Choice(values=("a", "b"), source="")}
    assert propose(space, [({"order": "a"}, 0.1)], 0, "x") == {"order": "b"}
    assert propose(space, [({"order": "a"}, 0.1), ({"order": "b"}, 0.2)], 0, "x") is None


def test_choices_are_as_far_apart_as_one_and_a_half_length_scales():
    space = {"order": Choice(values=("a", "b", "c"), source="")}
    a, b, c = (np.array(encode(space, {"order": value})) for value in "abc")
    distances = [float(np.linalg.norm(first - second)) for first, second in ((a, b), (a, c), (b, c))]
    assert distances == pytest.approx([0.375] * 3)
