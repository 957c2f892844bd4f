"""Area under the ROC curve, its left end, their errors, and bands over targets."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from memscore.statistics.roc import (
    auc,
    auc_interval,
    auc_se,
    compute_roc_band,
    compute_target_means,
    compute_tprs,
    tpr_at_fpr,
)
from tests.oracles import gaussian_auc, gaussian_tpr


def test_the_area_counts_pairs_with_ties_as_half():
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 8, 200), rng.random(200) < 0.3
    pairs = scores[positive][:, None] - scores[~positive][None]
    assert auc(scores, positive) == pytest.approx(((pairs > 0) + (pairs == 0) / 2).mean(), rel=1e-12)
    assert auc(scores, positive) == pytest.approx(roc_auc_score(positive, scores), rel=1e-12)
    assert auc(-scores, positive) == pytest.approx(1 - auc(scores, positive), rel=1e-12)


def test_delongs_error_is_the_spread_of_the_pair_means():
    rng = np.random.default_rng(1)
    scores, positive = rng.integers(0, 8, 120), rng.random(120) < 0.4
    pairs = scores[positive][:, None] - scores[~positive][None]
    won = (pairs > 0) + (pairs == 0) / 2
    m, n = won.shape
    assert auc_se(scores, positive) ** 2 == pytest.approx(
        won.mean(1).var(ddof=1) / m + won.mean(0).var(ddof=1) / n, rel=1e-10
    )


@pytest.mark.parametrize("distance", [0.0, 1.0, 2.5])
def test_the_interval_covers_the_area_between_gaussians(distance):
    """2,000 draws of 40 against 60: nominal .95, accepted .93 to .975 (two s.e. of the count are .01)."""
    rng = np.random.default_rng(2)
    positive = np.arange(100) < 40
    truth, covered = gaussian_auc(distance), 0
    for _ in range(2000):
        result = auc_interval(rng.normal(size=100) + distance * positive, positive)
        covered += result.lo <= truth <= result.hi
    assert 0.93 < covered / 2000 < 0.975


@pytest.mark.parametrize(("n_pos", "n_neg"), [(1, 1), (1, 500), (5, 1000), (30, 30)])
def test_a_perfect_order_still_has_an_error(n_pos, n_neg):
    """With all positives above all negatives the interval is that of as many successes as the smaller class has."""
    scores, positive = np.arange(n_pos + n_neg), np.arange(n_pos + n_neg) >= n_neg
    for sign in (1, -1):
        result = auc_interval(sign * scores, positive)
        assert result.value == (sign + 1) / 2
        assert 0 <= result.lo < result.hi <= 1
        assert auc_se(sign * scores, positive) > 0
    fewer = min(n_pos, n_neg)
    assert auc_interval(scores, positive).lo == pytest.approx(fewer / (fewer + norm.isf(0.025) ** 2), rel=1e-10)


def test_one_positive_has_an_error_and_constant_scores_tell_nothing():
    positive = np.arange(10) == 4
    assert auc_se(np.arange(10), positive) > 0
    result = auc_interval(np.zeros(10), np.arange(10) < 5)
    assert result.value == pytest.approx(0.5)
    assert result.lo < 0.3
    assert result.hi > 0.7


def test_one_class_has_no_curve():
    for positive in (np.zeros(5, bool), np.ones(5, bool)):
        assert np.isnan(auc(np.arange(5), positive))
        assert np.isnan(auc_se(np.arange(5), positive))
        assert np.isnan([auc_interval(np.arange(5), positive).lo, auc_interval(np.arange(5), positive).hi]).all()
        assert np.isnan(tpr_at_fpr(np.arange(5), positive, 0.1).value)


@pytest.mark.parametrize("fpr", [0.0, 0.001, 0.01, 0.1, 0.29, 0.5, 1.0])
def test_the_left_end_is_the_best_threshold_of_all(fpr):
    rng = np.random.default_rng(3)
    for n in (7, 100, 300):
        scores, positive = rng.integers(0, 40, n), np.arange(n) < n // 3
        best = 0.0
        for threshold in range(-1, 41):
            above = scores > threshold
            if above[~positive].mean() <= fpr + 1e-12:
                best = max(best, above[positive].mean())
        assert tpr_at_fpr(scores, positive, fpr).value == best


def test_the_left_end_of_gaussians_is_known():
    """200,000 negatives fix the threshold; 4 s.e. of the positives' share, and a tenth of it for the threshold."""
    rng = np.random.default_rng(4)
    positive = np.arange(220_000) < 20_000
    scores = rng.normal(size=220_000) + 2 * positive
    for fpr in (0.001, 0.01):
        truth = gaussian_tpr(2, fpr)
        result = tpr_at_fpr(scores, positive, fpr)
        slope = norm.pdf(norm.isf(fpr) - 2) / norm.pdf(norm.isf(fpr))
        error = np.hypot(np.sqrt(truth * (1 - truth) / 20_000), slope * np.sqrt(fpr / 200_000))
        assert abs(result.value - truth) < 4 * error
        assert result.lo < result.value < result.hi


def test_a_rate_beyond_1_is_refused():
    with pytest.raises(ValueError, match="between 0 and 1"):
        tpr_at_fpr(np.arange(4), np.arange(4) > 1, 1.5)


def test_each_target_has_its_curve_and_the_mean_an_interval():
    rng = np.random.default_rng(5)
    member = rng.random((6, 400)) < 0.5
    scores = rng.normal(size=member.shape) + member
    scores[0, :100] = np.nan
    scores[5] = np.nan
    result = compute_target_means(scores, member)
    assert set(result) == {"auc", "tpr_at_0.001", "tpr_at_0.01"}
    assert result["auc"].per_target[0] == auc(scores[0, 100:], member[0, 100:])
    assert result["tpr_at_0.01"].per_target[1] == tpr_at_fpr(scores[1], member[1], 0.01).value
    assert np.isnan(result["auc"].per_target[5])
    each = result["auc"].per_target[:5]
    assert result["auc"].value == pytest.approx(each.mean())
    # 2.776: 97.5 % quantile of Student's t with 4 degrees of freedom
    assert result["auc"].hi - each.mean() == pytest.approx(2.7764 * each.std(ddof=1) / np.sqrt(5), rel=1e-4)
    assert np.isnan(compute_target_means(scores[:1], member[:1])["auc"].lo)


def test_many_rates_at_once_are_each_rate_alone():
    rng = np.random.default_rng(21)
    scores, member = rng.integers(0, 30, 400) / 7, rng.random(400) < 0.4
    fprs = np.array([0, 1e-4, 0.01, 0.29, 0.5, 0.999, 1.0])
    expected = [tpr_at_fpr(scores, member, fpr).value for fpr in fprs]
    assert compute_tprs(scores, member, fprs).tolist() == expected


def test_a_band_starts_at_one_false_positive_and_spans_the_targets():
    rng = np.random.default_rng(22)
    member = rng.random((40, 500)) < 0.5
    result = compute_roc_band(rng.normal(size=(40, 500)) + member, member)
    assert result.fpr[0] == pytest.approx(1 / (~member).sum(1).min())
    assert result.fpr[-1] == result.mean[-1] == 1
    assert (np.diff(result.mean) >= 0).all()
    assert (result.lo <= result.mean).all()
    assert (result.mean <= result.hi).all()
    assert (result.lo < result.hi)[:60].all()


def test_a_band_of_targets_that_held_everything_is_undefined():
    result = compute_roc_band(np.zeros((3, 9)), np.ones((3, 9), bool))
    assert np.isnan(result.mean).all()
