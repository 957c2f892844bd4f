"""Memorization by clipped probit."""

import numpy as np
import pytest
from scipy.stats import norm

from memscore.estimators.memorization import (
    GAP_CLIP,
    MEMORIZATION_PROBIT,
    PROBIT_BIAS,
    PROBIT_VARIANCE_FLOOR,
    memorization,
)
from memscore.estimators.statistic import compute_table
from memscore.subsets.designs import Arm, draw_membership


def half(models, n):
    return draw_membership(Arm(design="exact", block=models), range(models), n)


def naive(gap, member, i):
    shares = []
    for side in (True, False):
        clipped = [min(max(float(gap[m, i]), -5), 5) for m in range(len(gap)) if member[m, i] == side]
        shares.append(norm.cdf(np.mean(clipped) / np.sqrt(np.var(clipped, ddof=1) + 0.05)))
    return shares[0] - shares[1]


def test_it_equals_the_formula_in_loops():
    rng = np.random.default_rng(0)
    member = rng.random((30, 40)) < 0.6
    gap = rng.normal(1, 4, member.shape).astype(np.float32)
    value = compute_table(MEMORIZATION_PROBIT, gap, member)["value"]
    assert (abs(gap) > GAP_CLIP).any()
    np.testing.assert_allclose(value, [naive(gap, member, i) for i in range(40)], rtol=1e-10)


def test_two_constant_gaps_give_normal_shares():
    member = half(8, 10)
    table = compute_table(MEMORIZATION_PROBIT, np.where(member, 0.3, -0.1), member)
    expected = norm.cdf(0.3 / np.sqrt(PROBIT_VARIANCE_FLOOR)) - norm.cdf(-0.1 / np.sqrt(PROBIT_VARIANCE_FLOOR))
    np.testing.assert_allclose(table["value"], expected, rtol=1e-10)
    assert (table["se"] > 0).all()


def test_the_error_equals_the_derivative_by_each_models_weight():
    """The infinitesimal jackknife by its definition: Phi as a function of weights, differentiated numerically."""
    rng = np.random.default_rng(1)
    gap, member = rng.gamma(2, 1, (24, 1)) - 1, np.arange(24)[:, None] < 14

    def share(side, weights):
        mean = weights @ side
        variance = weights @ (side - mean) ** 2 * len(side) / (len(side) - 1)
        return norm.cdf(mean / np.sqrt(variance + PROBIT_VARIANCE_FLOOR))

    total = 0.0
    for side in (gap[member], gap[~member]):
        n, step = len(side), 1e-5
        even = np.full(n, 1 / n)
        towards = step * (np.eye(n) - even)
        influence = np.array([(share(side, even + t) - share(side, even - t)) / (2 * step) for t in towards])
        total += (influence**2).sum() / (n * (n - 1))
    # central differences with step 1e-5: truncation and rounding both near 1e-10 of values near 1
    assert compute_table(MEMORIZATION_PROBIT, gap, member)["se"][0] == pytest.approx(np.sqrt(total), rel=1e-7)


def test_the_error_is_that_of_repeated_banks():
    """Gaussian gaps: the mean squared se is the variance over 4,000 banks of 64 models within 4 s.e. and O(1/n)."""
    rng = np.random.default_rng(2)
    member = half(64, 4000)
    gap = rng.normal(0, 1, member.shape) + np.where(member, 1.5, 0.3)
    table = compute_table(MEMORIZATION_PROBIT, gap, member)
    ratio = (table["se"] ** 2).mean() / table["value"].var()
    # 4 s.e. of a variance of 4,000 are 9 %; the jackknife's own bias is of order 1/32
    assert abs(ratio - 1) < 4 * np.sqrt(2 / 4000) + 1 / 32


def test_gaussian_gaps_give_the_definition_with_less_noise_than_counts():
    rng = np.random.default_rng(3)
    member = half(64, 4000)
    gap = rng.normal(0, 1, member.shape) + np.where(member, 1.0, -0.3)
    truth = norm.cdf(1.0) - norm.cdf(-0.3)
    by_probit = compute_table(MEMORIZATION_PROBIT, gap, member)["value"] - truth
    by_counts = memorization(gap > 0, member) - truth
    # what FLOOR alone moves: Phi(m / sqrt(1.05)) for Phi(m)
    shift = (
        norm.cdf(1 / np.sqrt(1 + PROBIT_VARIANCE_FLOOR)) - norm.cdf(-0.3 / np.sqrt(1 + PROBIT_VARIANCE_FLOOR)) - truth
    )
    # 4 s.e.; a curved function of noisy moments is biased by order 1/n, here below .01 / 32 * 10
    assert abs(by_probit.mean() - shift) < 4 * by_probit.std() / np.sqrt(4000) + 0.1 / 32
    assert by_probit.var() < 0.75 * by_counts.var()


def test_more_models_do_not_remove_the_bias():
    """One gap in ten is -.5, the others 2: right 9 times in 10, but no normal says so. Half the models never err."""
    errors = []
    for models in (200, 2000):
        member = half(models, 1)[:, 0]
        gap = np.full(models, 2.0)
        gap[np.flatnonzero(~member)[::10]] = -0.5
        value = compute_table(MEMORIZATION_PROBIT, gap[:, None], member[:, None])["value"][0]
        errors.append(value - memorization((gap > 0)[:, None], member[:, None])[0])
    assert abs(errors[0]) > PROBIT_BIAS / 2
    assert errors[1] == pytest.approx(errors[0], abs=0.002)  # v has n - 1 below: 1 % of v at 100 models a side


def test_without_the_clip_one_wild_model_decides():
    """The trap: a gap of -60 among 49 of +1 drags an unclipped normal's share down to about .5."""
    member = np.arange(100)[:, None] < 50
    gap = np.ones((100, 1))
    gap[99] = -60
    out = gap[~member]
    unclipped = norm.cdf(out.mean() / np.sqrt(out.var(ddof=1) + PROBIT_VARIANCE_FLOOR))
    assert unclipped < 0.5
    assert compute_table(MEMORIZATION_PROBIT, gap, member)["value"][0] < 0.2


def test_fewer_than_two_models_on_a_side_are_undefined():
    member = np.array([[1, 1, 0, 1], [1, 0, 0, 1], [1, 0, 1, 0], [1, 0, 0, 0]], bool)
    table = compute_table(MEMORIZATION_PROBIT, np.ones((4, 4)), member)
    for column in ("value", "se"):
        assert np.isnan(table[column]).tolist() == [True, True, True, False]
    assert table["n_in"].tolist() == [4, 1, 1, 2]


def test_models_that_agree_far_beyond_the_clip_have_an_error():
    member = half(8, 3)
    table = compute_table(MEMORIZATION_PROBIT, np.where(member, 100.0, -100.0), member)
    assert (table["value"] > 0.999).all()
    assert (table["se"] > 0).all()
