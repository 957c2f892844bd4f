"""Forecasts against known answers: binomial models of known probabilities, whole blocks, and the bank's measure."""

import numpy as np
import pytest

from memscore.estimators.memorization import compute_bank_rmse, count_by_membership, memorization, sum_variances
from memscore.pipeline.precision import (
    OutcomeVariance,
    check_forecast,
    choose_next_model_count,
    compute_models_needed,
    compute_outcome_variance,
    compute_rmse_from_counts,
    count_first_models,
    rescale_models_needed,
)
from memscore.subsets.designs import Arm, draw_membership

IID = Arm(design="iid", keep=0.7)


def test_the_formula_on_one_kind_of_example():
    """q = r = 1/2 at keep 1/2: each side has M / 2 models, so RMSE^2 = 2 * (1/4) / (M / 2) = 1 / M."""
    variance = OutcomeVariance(out=0.25, inside=0.25)
    assert variance.predict_rmse(0.5, 400) == pytest.approx(0.05, rel=1e-12)
    assert compute_models_needed(variance, Arm(design="iid", keep=0.5), 0.05) == 400
    assert compute_models_needed(variance, Arm(), 0.05) == 448  # seven blocks
    assert compute_models_needed(OutcomeVariance(out=0.0, inside=0.0), Arm(), 0.05) == 64
    assert rescale_models_needed(100, 0.1, Arm(design="iid", keep=0.5), 0.05) == 400


def test_a_forecast_from_whole_blocks_is_what_the_bank_measures():
    """Every example is in exactly half, so mean and ratio can be exchanged and the two are one number."""
    member = draw_membership(Arm(design="exact"), range(64), 300)
    correct = np.random.default_rng(0).random(member.shape) < np.linspace(0, 1, 300)
    variance = compute_outcome_variance(*count_by_membership(correct, member))
    assert variance.predict_rmse(0.5, 64) == pytest.approx(
        compute_bank_rmse([sum_variances(correct, member)]), rel=1e-10
    )
    assert compute_rmse_from_counts(np.array(count_by_membership(correct, member))) == compute_bank_rmse([
        sum_variances(correct, member)
    ])


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
    class Forecast:
        arm, models, variance, rmse = IID, 32, OutcomeVariance(out=0.06, inside=0.0), 0.083

    check = check_forecast(Forecast, "k0.700", 200, 0.0316, 0.0316)
    assert (check.models_predicted, check.more) == (201, None)
    assert check.rmse_predicted == pytest.approx(np.sqrt(0.06 / 0.3 / 200))
    assert (
        check_forecast(Forecast, "k0.700", 32, 0.083, None).rmse_predicted == 0.083
    )  # as measured, of the same models
    assert check_forecast(Forecast, "k0.700", 100, 0.04, 0.02).more == 400
    assert check_forecast(Forecast, "k0.700", 100, 0.04, None).models_predicted is None
