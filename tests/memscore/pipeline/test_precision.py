"""Forecasts against known answers: binomial models of known probabilities, whole blocks, and the bank's measure."""

import numpy as np
import pytest
from scipy.stats import norm

from memscore.estimators.memorization import compute_bank_rmse, count_by_membership, memorization, sum_variances
from memscore.estimators.memorization_blend import BlendFit, estimate_blend
from memscore.pipeline.precision import (
    MeasuredPrecision,
    OutcomeVariance,
    PrecisionForecast,
    check_forecast,
    choose_next_model_count,
    compute_outcome_variance,
    count_first_models,
)
from memscore.pipeline.train_bank import estimate_models_needed
from memscore.statistics.reliability import draw_random_halves
from memscore.subsets.designs import Arm, draw_membership

IID = Arm(design="iid", keep=0.7)


def test_the_formula_on_one_kind_of_example():
    """q = r = 1/2 at keep 1/2: each side has M / 2 models, so RMSE^2 = 2 * (1/4) / (M / 2) = 1 / M."""
    variance = OutcomeVariance(out=0.25, inside=0.25)
    assert variance.predict_rmse(0.5, 400) == pytest.approx(0.05, rel=1e-12)
    measured = MeasuredPrecision(models=100, counts_rmse=0.1, blend=None, variance=variance)
    assert measured.compute_models_needed(Arm(design="iid", keep=0.5), 0.05) == 400
    assert measured.compute_models_needed(Arm(), 0.05) == 448  # seven blocks
    nothing = MeasuredPrecision(models=64, counts_rmse=0, blend=None, variance=OutcomeVariance(out=0, inside=0))
    assert nothing.compute_models_needed(Arm(), 0.05) == 64
    by_root = MeasuredPrecision(models=100, counts_rmse=0.1, blend=None)
    assert by_root.compute_models_needed(Arm(design="iid", keep=0.5), 0.05) == 400
    assert (measured.score, measured.rmse) == ("memorization", 0.1)


def fit(*, bias=0.0004, between=False):
    """A blend of counts with variance .0025 and of a probit with .0009 that is independent of them."""
    weight = (bias + 0.0009) / (bias + 0.0034)
    return BlendFit(
        weight=weight,
        bias=bias,
        bias_share=0.1,
        rmse=np.sqrt(weight**2 * 0.0025 + (1 - weight) ** 2 * (0.0009 + bias)),
        counts_variance=0.0025,
        covariance=0.0,
        probit_variance=0.0009,
        is_between_blocks=between,
    )


def test_the_blends_forecast_is_the_best_weighted_error_of_each_number_of_models():
    """Independent estimates: 1 / rmse^2 = 1 / Var(counts) + 1 / (Var(probit) + bias), at every number of models."""
    measured = MeasuredPrecision(models=64, counts_rmse=0.05, blend=fit())
    assert (measured.score, measured.predict_rmse(0.5, 64)) == ("memorization_blend", measured.rmse)
    for models in (32, 128, 10_000):
        counts, probit = 0.0025 * 64 / models, 0.0009 * 64 / models + 0.0004
        assert measured.predict_rmse(0.5, models) == pytest.approx((1 / counts + 1 / probit) ** -0.5, rel=1e-12)
    needed = measured.compute_models_needed(IID, 0.02)
    assert measured.predict_rmse(0.7, needed) <= 0.02 < measured.predict_rmse(0.7, needed - 1)
    # the variances change as those of the counts, whose nominal error with 64 models is .04 here
    nominal = MeasuredPrecision(
        models=64, counts_rmse=0.05, blend=fit(), variance=OutcomeVariance(out=0.04**2 * 32, inside=0)
    )
    assert nominal.predict_rmse(0.5, 128) == pytest.approx(measured.predict_rmse(0.5, 200), rel=1e-12)


def test_one_block_of_a_design_is_followed_by_one_more():
    one, two = (MeasuredPrecision(models=64, counts_rmse=0.05, blend=fit(between=each)) for each in (False, True))
    assert estimate_models_needed(one, Arm(), 0.01) == 0
    assert estimate_models_needed(two, Arm(), 0.01) > 64
    assert estimate_models_needed(one, IID, 0.01) > 64


@pytest.mark.parametrize("keep", [0.5, 0.7])
def test_32_models_forecast_the_blends_error_of_256(keep):
    rng = np.random.default_rng(1)
    member = draw_membership(Arm(design="iid", keep=keep), range(256), 4000)
    mean, rare = rng.uniform(0, 3, 4000), np.where(rng.random(4000) < 0.5, 0, rng.uniform(0, 0.6, 4000))
    gap = np.where(member, 3, mean) + rng.normal(0, 1, member.shape)
    gap = np.where(~member & (rng.random(member.shape) < rare), -0.4 + 0.3 * rng.normal(size=member.shape), gap)
    truth = norm.cdf(3) - (1 - rare) * norm.cdf(mean) - rare * norm.cdf(-0.4 / 0.3)

    def estimate(models):
        halves = draw_random_halves(np.arange(models), np.random.default_rng(0))
        return estimate_blend(gap[:models] > 0, gap[:models], member[:models], halves)

    counts = count_by_membership(gap[:32] > 0, member[:32])
    measured = MeasuredPrecision(
        models=32,
        counts_rmse=compute_bank_rmse([sum_variances(gap[:32] > 0, member[:32])]),
        blend=estimate(32)[1],
        variance=compute_outcome_variance(*counts),
    )
    for models in (64, 256):
        error = np.sqrt(np.nanmean((estimate(models)[0]["value"] - truth) ** 2))
        assert measured.predict_rmse(keep, models) == pytest.approx(error, rel=0.1)


def test_a_forecast_from_whole_blocks_is_what_the_bank_measures():
    """Every example is in exactly half, so mean and ratio can be exchanged and the two are one number."""
    member = draw_membership(Arm(design="exact"), range(64), 300)
    correct = np.random.default_rng(0).random(member.shape) < np.linspace(0, 1, 300)
    variance = compute_outcome_variance(*count_by_membership(correct, member))
    assert variance.predict_rmse(0.5, 64) == pytest.approx(
        compute_bank_rmse([sum_variances(correct, member)]), rel=1e-10
    )


def test_32_models_forecast_the_error_of_320():
    """4 s.e. over examples of the mean of squared errors, beside those of the first estimate of the variance."""
    rng = np.random.default_rng(1)
    q_in, q_out = 0.5 + rng.random(4000) / 2, rng.random(4000)
    member = draw_membership(IID, range(320), 4000)
    correct = rng.random(member.shape) < np.where(member, q_in, q_out)
    variance = compute_outcome_variance(*count_by_membership(correct[:32], member[:32]))
    squares = (memorization(correct, member) - (q_in - q_out)) ** 2
    each = [
        compute_outcome_variance(*(x[part] for x in count_by_membership(correct[:32], member[:32]))).predict_rmse(
            0.7, 320
        )
        ** 2
        for part in PARTS
    ]
    error = np.hypot(squares.std() / np.sqrt(4000), np.std(each, ddof=1) / np.sqrt(len(PARTS)))
    assert abs(variance.predict_rmse(0.7, 320) ** 2 - squares.mean()) < 4 * error


PARTS = [slice(start, start + 400) for start in range(0, 4000, 400)]


def test_the_variance_is_unbiased_from_any_number_of_models():
    """All outcomes of 3 models in and 2 out, weighted by their probabilities, at r = .8 and q = .3."""
    k_in, k_out = (k.ravel() for k in np.meshgrid(np.arange(4), np.arange(3)))
    probability = np.array([1, 3, 3, 1])[k_in] * 0.8**k_in * 0.2 ** (3 - k_in)
    probability *= np.array([1, 2, 1])[k_out] * 0.3**k_out * 0.7 ** (2 - k_out)
    variances = [
        compute_outcome_variance(*(np.array([n]) for n in (a, 3, b, 2)))
        for a, b in zip(k_in.tolist(), k_out.tolist(), strict=True)
    ]
    assert sum(c * s.out for c, s in zip(probability, variances, strict=True)) == pytest.approx(0.21, rel=1e-12)
    assert sum(c * s.inside for c, s in zip(probability, variances, strict=True)) == pytest.approx(0.16, rel=1e-12)


def test_nothing_is_defined_where_no_example_has_two_models_on_each_side():
    ones, twos = np.array([1, 1]), np.array([2, 2])
    assert np.isnan(compute_outcome_variance(ones, twos, ones, ones).out)
    assert np.isnan(compute_outcome_variance(ones, ones, ones, twos).inside)


@pytest.mark.parametrize("arm", [Arm(), IID, Arm(design="exact", block=20), Arm(design="exact", block=8)])
def test_every_step_is_whole_blocks_and_at_most_the_maximum(arm):
    maximum = 20 * count_first_models(arm)
    for needed in (0, 1, 100, 1000, 10**6):
        done, steps = count_first_models(arm), []
        while done < maximum:
            steps.append(choose_next_model_count(arm, done, needed, maximum))
            assert done < steps[-1] <= maximum
            assert steps[-1] % arm.models_per_block == 0
            done = steps[-1]
        assert needed > maximum or min(steps) >= min(needed, 2 * count_first_models(arm)) * 0.5


def test_a_forecast_that_was_not_reached_has_the_models_needed():
    forecast = PrecisionForecast(
        arm=IID,
        measured=MeasuredPrecision(
            models=32, counts_rmse=0.083, blend=None, variance=OutcomeVariance(out=0.06, inside=0.0)
        ),
        stored=32,
        seconds=1.0,
        workers=1,
        bytes=1.0,
    )

    def check(models, rmse, target):
        return check_forecast(
            forecast, "k0.700", MeasuredPrecision(models=models, counts_rmse=rmse, blend=None), target
        )

    reached = check(200, 0.0316, 0.0316)
    assert (reached.models_predicted, reached.more) == (201, None)
    assert reached.rmse_predicted == pytest.approx(np.sqrt(0.06 / 0.3 / 200))
    assert check(32, 0.083, None).rmse_predicted == 0.083  # as measured, of the same models
    assert check(100, 0.04, 0.02).more == 400
    assert check(100, 0.04, None).models_predicted is None
