"""Whether confidences could be those of one more shadow model: matching ones fit, shifted and scaled ones do not."""

import numpy as np
import pytest

from memscore.statistics.shadow_fit import (
    LEAST_MODELS,
    SHIFT,
    SPREAD,
    compute_limits,
    find_outlying_models,
    fit_shadows,
)


def draw_models(rng, models, examples=300, shift_sd=0.15):
    """Confidences with means and scales of each example, and a shift of each model."""
    means, scales = rng.normal(3, 3, examples), rng.uniform(0.5, 2, examples)
    shifts = shift_sd * rng.standard_normal((models, 1))
    return means + scales * (shifts + rng.standard_normal((models, examples))), means, scales


@pytest.mark.parametrize(("models", "times"), [(4, 200), (16, 200), (64, 40)])
@pytest.mark.parametrize("shift_sd", [0.05, 0.3])
def test_a_model_of_the_same_kind_fits(models, times, shift_sd):
    """Of 200 at most 3 do not, at the nominal 1 in 1,000 for each of two limits (chance of more: .0008)."""
    rng, misfits = np.random.default_rng(models), 0
    for _ in range(times):
        drawn, _, _ = draw_models(rng, models + 1, examples=150, shift_sd=shift_sd)
        misfits += not fit_shadows(drawn[-1], drawn[:-1]).fits
    assert misfits <= 3


@pytest.mark.parametrize("models", [4, 16, 64])
@pytest.mark.parametrize(("shift", "scale"), [(-1.2, 1.0), (1.2, 1.0), (0.0, 2.5), (0.0, 0.4), (-3.0, 0.1)])
def test_a_shifted_or_scaled_model_does_not_fit(models, shift, scale):
    rng = np.random.default_rng(models)
    for _ in range(20):
        drawn, means, scales = draw_models(rng, models + 1, shift_sd=0.05)
        other = means + shift * scales + scale * (drawn[-1] - means)
        assert not fit_shadows(other, drawn[:-1]).fits


def test_median_and_spread_are_those_of_z():
    """With many shadow models z is the known deviate, and the limits are the smallest ones."""
    rng = np.random.default_rng(0)
    drawn, means, scales = draw_models(rng, 400, examples=4000, shift_sd=0.0)
    # a matching model, moved by .3 standard deviations and stretched 1.2 times
    fit = fit_shadows(means + scales * (0.3 + 1.2 * rng.standard_normal(4000)), drawn)
    assert fit.median == pytest.approx(0.3, abs=4 * 1.2 * 1.26 / np.sqrt(4000))
    assert fit.spread == pytest.approx(1.2, rel=0.08)
    assert fit.median_limits.hi - fit.median_limits.lo == pytest.approx(2 * SHIFT)
    assert fit.spread_limits.hi / fit.spread_limits.lo == pytest.approx(SPREAD**2)


def test_bank_models_are_compared_without_themselves():
    """The limits are from each model against the others, by downdating; here it is done by leaving it out."""
    rng = np.random.default_rng(1)
    drawn, _, _ = draw_models(rng, 6, shift_sd=1.0)
    alone = [fit_shadows(drawn[m], np.delete(drawn, m, axis=0)) for m in range(6)]
    limits = compute_limits(np.array([fit.median for fit in alone]), SHIFT, 0.15)
    fit = fit_shadows(drawn[0], drawn)
    assert fit.median_limits.lo == pytest.approx(limits.lo)
    assert fit.median_limits.hi == pytest.approx(limits.hi)


def test_a_wild_shadow_model_and_a_wild_number_hide_nothing():
    rng = np.random.default_rng(2)
    drawn, means, scales = draw_models(rng, 33)
    shifted = means + scales * (1.5 + rng.standard_normal(len(means)))
    drawn[3] *= 30
    drawn[7, 5] = 1e6
    assert find_outlying_models(drawn).tolist() == [3]
    fit = fit_shadows(shifted, drawn[:-1])
    assert fit.outlying == (3,)
    assert fit.models == 31
    assert not fit.fits
    assert fit_shadows(drawn[-1], drawn[:-1]).fits


def test_corners():
    drawn, _, _ = draw_models(np.random.default_rng(3), 5)
    assert fit_shadows(drawn[0], drawn[1:LEAST_MODELS]) is None
    assert fit_shadows(drawn[0, :0], drawn[1:, :0]) is None
    same = np.ones((4, 50))
    assert fit_shadows(np.ones(50), same).fits  # all alike, and so is the model
    assert not fit_shadows(np.full(50, 2.0), same).fits


def test_limits_are_a_prediction_interval():
    """Of 4,000 further values at most 4 + 4 standard errors lie outside, and with few values the usual sd counts."""
    rng = np.random.default_rng(4)
    outside = [not compute_limits(rng.normal(size=12), 0.0, 1.0).contain(rng.normal()) for _ in range(4000)]
    assert sum(outside) <= 12
    assert compute_limits(np.array([1.0, 1.0]), 0.0, 0.1).hi > 1.3
    assert compute_limits(np.array([1.0, 1.0]), 2.0, 0.1).lo == -1.0
