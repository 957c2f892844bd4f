"""The challenge's score: hand-counted attacks, a grid as in its code, and what no difference looks like."""

import math
from dataclasses import replace

import numpy as np
import pytest

from tests.fixtures.populations import make_population
from unlearn.measures.epsilon import DELTA, challenge_score, compute_epsilons, epsilon, score_epsilons
from unlearn.measures.inputs import PopulationInputs


def compute_one(unlearned, retrained):
    """Epsilon of one example."""
    return float(compute_epsilons(np.array(unlearned, float)[:, None], np.array(retrained, float)[:, None])[0])


def epsilon_from_rates(fpr, fnr):
    return max(math.log(1 - DELTA - fpr) - math.log(fnr), math.log(1 - DELTA - fnr) - math.log(fpr))


def test_four_models_a_side_by_hand():
    # high {1, 3, 5, 7}, low {0, 2, 4, 6}: at or above 3, one of the high is missed and two of the low pass, and so on
    assert compute_one([1, 3, 5, 7], [0, 2, 4, 6]) == pytest.approx(epsilon_from_rates(0.25, 0.5))
    # between 1 and 2 lie three of four of the narrow side and one of the other; above 1 no threshold does as well
    assert compute_one([1, 1.5, 2, 2.5], [0, 1.75, 3, 3.5]) == pytest.approx(epsilon_from_rates(0.25, 0.25))


def test_no_finite_epsilon_lies_above_the_logarithm_of_the_models_less_one():
    rng = np.random.default_rng(0)
    values = compute_epsilons(rng.normal(0, 1, (8, 500)), rng.normal(1, 1, (8, 500)))
    finite = values[values < 50]
    assert 0 < len(finite) < len(values)
    assert finite.max() <= math.log(7)
    assert finite.max() == pytest.approx(math.log(7), abs=1e-3)
    assert epsilon(make_population(models=(8, 8)))["epsilon_ceiling"] == math.log(7)


def test_the_median_is_an_epsilon_and_never_between_a_number_and_none():
    """Of two examples, one separated and one not: 50, with half of them separated; never the mean of 50 and log 3."""
    overlapping, separated = ([1, 3, 5, 7], [0, 2, 4, 6]), ([5, 6, 7, 8], [0, 1, 2, 3])
    sides = [np.array([first, second], float).T for first, second in zip(overlapping, separated, strict=True)]
    models = PopulationInputs(
        unlearned=sides[0],
        retrained=sides[1],
        margin_unlearned=sides[0],
        margin_retrained=sides[1],
        forget=np.arange(2),
        held_out=np.arange(0),
        retain=np.arange(0),
    )
    values = epsilon(models)
    assert (values["epsilon_median"], values["epsilon_separated"]) == (50.0, 0.5)
    near_only = epsilon(replace(models, forget=np.array([0])))
    assert near_only["epsilon_median"] == pytest.approx(epsilon_from_rates(0.25, 0.5))
    assert near_only["epsilon_median"] <= near_only["epsilon_ceiling"] == math.log(3)
    assert near_only["epsilon_separated"] == 0.0


def test_what_is_separated_or_peaked_is_fifty():
    assert compute_one([5, 6, 7, 8], [0, 1, 2, 3]) == 50
    assert compute_one([0, 1, 2, 3], [5, 6, 7, 8]) == 50
    assert compute_one([5, 5.001, 5.002, 5.003], [0, 3, 6, 9]) == 50
    assert compute_one([5, 6, 5, 6], [0, 9, 1, 12]) == 50  # between two thresholds
    assert compute_one([1, 1, 1, 1], [1, 1, 1, 1]) == 0


def compute_on_grid(high_or_low_a, high_or_low_b, step=0.01):
    """The published search, one example: a grid of thresholds, alone and in pairs."""
    a, b = high_or_low_a, high_or_low_b
    high, low = (b, a) if np.median(b) > np.median(a) else (a, b)
    narrow, wide = (high, low) if np.ptp(high) < np.ptp(low) else (low, high)
    everything = np.concatenate([a, b])
    ones = np.linspace(everything.min(), everything.max(), math.ceil(np.ptp(everything) / step))
    rates = [((low >= t).mean(), (high < t).mean()) for t in ones]
    rights = np.linspace(narrow.max() - 2, narrow.max() + 2 + 1e-9, math.ceil(4 / step))
    for right in rights:
        lefts = right - np.ptp(narrow) + np.linspace(-2, 2, math.ceil(4 / step))
        within = [((side[:, None] >= lefts) & (side[:, None] <= right)).mean(0) for side in (wide, narrow)]
        rates += list(zip(within[0], 1 - within[1], strict=True))
    rates = np.array(rates)
    if (rates.sum(1) == 0).any():
        return 50.0
    both = rates[(rates > 0).all(1)]
    with np.errstate(invalid="ignore", divide="ignore"):
        fpr, fnr = both.T
        each = np.fmax(np.log(1 - DELTA - fpr) - np.log(fnr), np.log(1 - DELTA - fnr) - np.log(fpr))
    return float(np.clip(np.nanmax(each), 0, 50))


@pytest.mark.parametrize("seed", range(6))
def test_every_threshold_is_what_the_published_grid_comes_to(seed):
    rng = np.random.default_rng(seed)
    values = rng.choice(np.arange(-60, 60), 24, replace=False) * 0.05  # farther apart than the grid is fine
    values[:12] += (0, 0.3, 0.9, 1.5, 2.1, 0)[seed]
    ours, theirs = values[:12] * (1, 1, 1, 1, 1, 0.4)[seed], values[12:]
    assert compute_one(ours, theirs) == pytest.approx(compute_on_grid(ours, theirs), abs=1e-9)


def test_a_tie_leaves_a_threshold():
    assert compute_one([10, 20, 30, 40], [40, 50, 60, 70]) == pytest.approx(epsilon_from_rates(0.25, 0.25))
    assert compute_one([1, 2, 3, 3], [3, 3, 8, 9]) < 50


def test_points_halve_every_half_and_end_at_the_ceiling():
    assert score_epsilons(np.array([0.0]), 64) == 1
    assert score_epsilons(np.array([4.9]), 64) == 0.5**9  # log 63 = 4.14: ten bins
    assert score_epsilons(np.array([5.0]), 64) == 0
    assert score_epsilons(np.array([1.9, 2.1]), 8) == 0.5 * 0.5**3  # log 7 = 1.95: four bins


def max_if_any(values):
    """The bug: the truth of an array of several thresholds."""
    assert np.array(values), "all thresholds gave nan"
    return max(values)


def test_bug_21_several_thresholds_are_no_error_and_the_ends_are_right():
    with pytest.raises(ValueError, match="truth value"):
        max_if_any([0.1, 0.2])
    equal, separated = epsilon(make_population(models=(64, 64))), epsilon(make_population(8.0, models=(64, 64)))
    assert separated["forgetting_score"] == 0.0
    assert separated["epsilon_median"] == 50.0
    assert equal["forgetting_score"] > 0.1
    assert equal["forgetting_score"] == pytest.approx(equal["forgetting_score_null"], rel=0.3)
    assert separated["forgetting_score_null"] > 0.05


def test_the_score_falls_as_models_give_more_away():
    values = [
        epsilon(make_population(difference, models=(32, 32)))["forgetting_score"] for difference in (0.0, 1.0, 2.0, 4.0)
    ]
    assert values == sorted(values, reverse=True)
    assert values[0] > 3 * values[3]


def test_two_models_a_side_have_no_score():
    values = epsilon(make_population(models=(2, 5)))
    assert np.isnan(values["forgetting_score"])
    assert values["epsilon_n"] == 2.0


def test_the_final_score_pays_for_lost_accuracy():
    models = make_population(models=(16, 16))
    plain = epsilon(models)["forgetting_score"]
    equal_accuracy = replace(models, margin_unlearned=models.margin_retrained)
    assert challenge_score(equal_accuracy)["challenge_score"] == pytest.approx(plain)
    worse = models.margin_retrained.copy()
    worse[:, models.retain[::2]] = -1
    lost = challenge_score(replace(equal_accuracy, margin_unlearned=worse))["challenge_score"]
    right = models.margin_retrained[:, models.retain] > 0
    assert lost == pytest.approx(plain * right[:, 1::2].sum() / right.sum())
    all_correct = replace(equal_accuracy, margin_retrained=worse, margin_unlearned=np.ones_like(worse))
    values = challenge_score(all_correct)
    assert values["challenge_score_clipped"] == min(1.0, values["challenge_score"])
