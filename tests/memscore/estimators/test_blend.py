"""Memorization by a blend of counts and clipped probit."""

import numpy as np
import pytest
from scipy.stats import norm

from memscore.estimators.memorization import MEMORIZATION, MEMORIZATION_PROBIT, memorization
from memscore.estimators.memorization_blend import PROBIT_FOR_BLEND, estimate_blend
from memscore.estimators.statistic import compute_table
from memscore.statistics.reliability import draw_random_halves
from memscore.subsets.designs import Arm, draw_membership


def draw_halves(models, halves=10):
    return draw_random_halves(np.arange(models), np.random.default_rng(5), halves)


def estimate(gap, member, halves=None):
    return estimate_blend(gap > 0, gap, member, draw_halves(len(gap)) if halves is None else halves)


def probit(gap, member):
    return compute_table(MEMORIZATION_PROBIT, gap, member)["value"]


def simulate(rng, models, n, *, is_gaussian, keep=0.5):
    """Draw gaps of a bank whose memorization is known: Gaussian, or a Gaussian with a second mode that is wrong."""
    member = draw_membership(Arm(design="exact", block=models, keep=keep), range(models), n)
    mean, rare = rng.uniform(0, 3, n), np.where(rng.random(n) < 0.5, 0, rng.uniform(0, 0.6, n))
    if is_gaussian:
        rare = np.zeros(n)
    gap = np.where(member, 3, mean) + rng.normal(0, 1, member.shape)
    gap = np.where(~member & (rng.random(member.shape) < rare), -0.4 + 0.3 * rng.normal(size=member.shape), gap)
    right_out = (1 - rare) * norm.cdf(mean) + rare * norm.cdf(-0.4 / 0.3)
    return gap, member, norm.cdf(3) - right_out


def test_the_weight_equals_its_formula_in_loops():
    rng = np.random.default_rng(0)
    gap, member, _ = simulate(rng, 16, 30, is_gaussian=False)
    pairs = draw_halves(16, 3)
    numerator, square = 0.0, 0.0
    full = memorization(gap > 0, member) - probit(gap, member)
    for a, b in pairs:
        (c_a, q_a), (c_b, q_b) = (
            (memorization(gap[side] > 0, member[side]), probit(gap[side], member[side])) for side in (a, b)
        )
        for i in range(30):
            middle = (q_a[i] + q_b[i]) / 2
            both = [(c_a[i] - q_a[i]) * (c_b[i] - middle), (c_b[i] - q_b[i]) * (c_a[i] - middle)]
            # probits of one model on a side are undefined here, and there in sets of models as well
            if not np.isnan(both).any():
                numerator, square = numerator + np.mean(both), square + full[i] ** 2
    table, fit = estimate(gap, member, pairs)
    assert fit.weight == pytest.approx(np.clip(numerator / square, 0, 1), rel=1e-5)
    expected = fit.weight * memorization(gap > 0, member) + (1 - fit.weight) * probit(gap, member)
    np.testing.assert_allclose(table["value"], expected, rtol=1e-12)


@pytest.mark.parametrize("is_gaussian", [True, False])
@pytest.mark.parametrize("models", [16, 64, 256])
def test_the_blend_is_as_good_as_the_best_weight_and_as_either_estimate(models, is_gaussian):
    rng = np.random.default_rng(models)
    gap, member, truth = simulate(rng, models, 4000, is_gaussian=is_gaussian)
    table, fit = estimate(gap, member)
    counts, other = memorization(gap > 0, member), probit(gap, member)

    def error(values):
        return float(np.sqrt(np.mean((values - truth) ** 2)))

    best = min(error(w * counts + (1 - w) * other) for w in np.linspace(0, 1, 101))
    assert error(table["value"]) < 1.01 * best  # a weight that is .1 off costs less
    assert error(table["value"]) < 1.01 * min(error(counts), error(other))
    # a jackknife's variance from n models a side is off by O(1 / n)
    assert fit.rmse == pytest.approx(error(table["value"]), rel=0.1 if models == 16 else 0.05)


def test_more_models_give_the_counts_more_weight_where_the_probit_is_biased():
    weights = [
        estimate(*simulate(np.random.default_rng(1), models, 2000, is_gaussian=False)[:2])[1].weight
        for models in (16, 64, 400)
    ]
    assert weights[0] < weights[1] < weights[2]
    assert weights[2] > 0.7
    gaussian = estimate(*simulate(np.random.default_rng(1), 400, 2000, is_gaussian=True)[:2])[1]
    assert gaussian.weight < 0.3


def test_the_covariance_is_that_of_repeated_banks():
    """Of one example in 6,000 banks of 40 models; 4 standard errors, and 10 % as a jackknife is off by O(1/n)."""
    rng = np.random.default_rng(2)
    n = 6000
    member = np.repeat(np.arange(40)[:, None] < 20, n, axis=1)
    gap = np.where(member, 1.5, 0.4) + rng.normal(0, 1, (40, n))
    covariance = compute_table(PROBIT_FOR_BLEND, gap, member)["covariance"].mean()
    counts, other = memorization(gap > 0, member), probit(gap, member)
    products = (counts - counts.mean()) * (other - other.mean())
    assert abs(products.mean() - covariance) < 4 * products.std() / np.sqrt(n) + 0.1 * covariance


@pytest.mark.parametrize("is_gaussian", [True, False])
@pytest.mark.parametrize(("models", "keep"), [(16, 0.5), (64, 0.5), (64, 0.75), (256, 0.5)])
def test_the_interval_covers_and_is_shorter_than_that_of_the_counts(models, keep, is_gaussian):
    """Over 3,000 examples, and over those with memorization above .05, of which many are always right."""
    rng = np.random.default_rng(3)
    gap, member, truth = simulate(rng, models, 3000, is_gaussian=is_gaussian, keep=keep)
    table, fit = estimate(gap, member)
    assert (table["lo"] <= table["value"]).all()
    assert (table["value"] <= table["hi"]).all()
    covered = (table["lo"] <= truth) & (truth <= table["hi"])
    for examples in (truth > -1, truth > 0.05):
        assert 0.92 < covered[examples].mean() < 0.995
    by_counts = compute_table(MEMORIZATION, gap > 0, member)
    assert (table["hi"] - table["lo"]).mean() < (by_counts["hi"] - by_counts["lo"]).mean()
    assert np.sqrt((table["se"] ** 2).mean()) == pytest.approx(fit.rmse, rel=0.15)


@pytest.mark.parametrize("blocks", [2, 3, 8])
def test_the_error_of_a_balanced_design_is_seen_between_blocks(blocks):
    """A neighbour's membership moves every gap, and is balanced over the models with and without the example."""
    rng = np.random.default_rng(6)
    n, block = 3000, 32
    order = np.argsort(rng.random((blocks, block, n)), axis=1)  # in each block, for each example, its own order
    member, neighbour = (order % 2 == 0).reshape(-1, n), (order // 2 % 2 == 0).reshape(-1, n)
    mean = rng.uniform(0, 2, n)
    gap = np.where(member, 2.5, mean) + np.where(neighbour, 1.2, -1.2) + rng.normal(0, 0.7, member.shape)

    def right(middle):
        return (norm.cdf((middle + 1.2) / 0.7) + norm.cdf((middle - 1.2) / 0.7)) / 2

    halves = draw_random_halves(np.arange(len(gap)) // block, np.random.default_rng(0))
    table, fit = estimate_blend(gap > 0, gap, member, halves, has_blocks=True)
    error = np.sqrt(np.mean((table["value"] - (right(2.5) - right(mean))) ** 2))
    assert fit.is_between_blocks
    assert fit.rmse == pytest.approx(error, rel=0.07)
    independent = estimate_blend(gap > 0, gap, member, halves)[1]
    assert independent.rmse > 1.2 * error


def test_what_one_estimate_leaves_undefined_is_undefined():
    rng = np.random.default_rng(4)
    gap, member, _ = simulate(rng, 16, 50, is_gaussian=True)
    # always in; out of one model, where the counts are defined and the probit is not
    member[:, 0], member[:, 1] = True, np.arange(16) > 0
    table, fit = estimate(gap, member)
    assert fit.weight >= 0
    assert all(np.isnan(table[key][:2]).all() for key in ("value", "se", "lo", "hi"))
    assert not any(np.isnan(table[key][2:]).any() for key in ("value", "se", "lo", "hi"))
    assert table["n_out"][:2].tolist() == [0, 1]


def test_without_halves_that_define_an_example_the_blend_is_undefined():
    gap, member = np.ones((4, 3)), np.arange(4)[:, None] < np.full(3, 2)
    table, fit = estimate(gap, member)
    assert np.isnan([fit.weight, fit.rmse]).all()
    assert np.isnan(table["value"]).all()
