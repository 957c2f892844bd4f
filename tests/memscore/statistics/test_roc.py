"""Area under the ROC curve, its left end, their errors, and bands over targets."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import beta, binom, norm, t
from sklearn.metrics import roc_auc_score

from memscore.statistics.roc import (
    auc,
    auc_interval,
    compute_roc_band,
    compute_target_means,
    compute_tprs,
    count_roc,
    delong_variance,
    summarize_targets,
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
    assert delong_variance(scores, positive) == pytest.approx(
        won.mean(1).var(ddof=1) / m + won.mean(0).var(ddof=1) / n, rel=1e-10
    )


@pytest.mark.parametrize("distance", [0.0, 1.0, 2.5])
def test_the_interval_covers_the_area_between_gaussians(distance):
    """600 draws of 40 against 60: nominal .95, accepted .92 to .985 (three s.e. of the count are .027)."""
    rng = np.random.default_rng(2)
    positive = np.arange(100) < 40
    truth, covered = gaussian_auc(distance), 0
    for _ in range(600):
        result = auc_interval(rng.normal(size=100) + distance * positive, positive)
        covered += result.lo <= truth <= result.hi
    assert 0.92 < covered / 600 < 0.985


@pytest.mark.parametrize(("n_pos", "n_neg"), [(1, 1), (1, 500), (5, 1000), (30, 30)])
def test_a_perfect_order_still_has_an_interval(n_pos, n_neg):
    """With all positives above all negatives DeLong's variance is 0, and the ends are where 1 - A = t sqrt(V(A))."""
    scores, positive = np.arange(n_pos + n_neg), np.arange(n_pos + n_neg) >= n_neg
    for sign in (1, -1):
        result = auc_interval(sign * scores, positive)
        assert result.value == (sign + 1) / 2
        assert 0 <= result.lo < result.hi <= 1
    lo, reach = auc_interval(scores, positive).lo, t.ppf(0.975, max(min(n_pos, n_neg) - 1, 1))
    # a positive at x + d is above both of two negatives with probability Phi(x + d)^2
    d = np.sqrt(2) * norm.ppf(lo)
    both = quad(lambda x: norm.cdf(x + d) ** 2 * norm.pdf(x), -9, 9)[0]
    variance = (lo * (1 - lo) + (n_pos + n_neg - 2) * (both - lo**2)) / (n_pos * n_neg)
    assert 1 - lo == pytest.approx(reach * np.sqrt(variance), rel=1e-6)


def test_constant_scores_tell_nothing():
    result = auc_interval(np.zeros(10), np.arange(10) < 5)
    assert result.value == pytest.approx(0.5)
    assert result.lo < 0.3
    assert result.hi > 0.7


def test_one_class_has_no_curve():
    for positive in (np.zeros(5, bool), np.ones(5, bool)):
        assert np.isnan(auc(np.arange(5), positive))
        assert np.isnan(delong_variance(np.arange(5), positive))
        assert np.isnan([auc_interval(np.arange(5), positive).lo, auc_interval(np.arange(5), positive).hi]).all()
        rate = tpr_at_fpr(np.arange(5), positive, 0.5)
        assert np.isnan([rate.value, rate.lo, rate.hi]).all()
        assert rate.reason == ("no negatives" if positive.all() else "no positives")
        assert compute_target_means(np.zeros((1, 5)), positive[None])["tpr_at_0.01"].rate.reason


@pytest.mark.parametrize("fpr", [0.0, 0.001, 0.01, 0.1, 0.29, 0.5, 1.0])
def test_the_left_end_is_the_best_threshold_of_all(fpr):
    rng = np.random.default_rng(3)
    for n in (7, 100, 300):
        scores, positive = rng.integers(0, 40, n), np.arange(n) < n // 3
        best, false = 0.0, 0
        for threshold in range(-1, 41):
            above = scores > threshold
            if above[~positive].mean() <= fpr + 1e-12:
                best, false = max(best, above[positive].mean()), max(false, above[~positive].sum())
        rate = tpr_at_fpr(scores, positive, fpr)
        assert compute_tprs(scores, positive, np.array([fpr])) == best
        if fpr * (~positive).sum() >= 1:
            assert (rate.value, rate.false_positives, rate.reason) == (best, false, "")
            assert rate.true_positives == round(best * positive.sum())
            assert rate.realised_fpr == false / (~positive).sum() <= fpr + 1e-12
        else:
            assert np.isnan([rate.value, rate.lo, rate.hi]).all()
            assert rate.reason == f"finer than 1/{(~positive).sum()}"
            assert (rate.false_positives, rate.negatives) == (0, (~positive).sum())


@pytest.mark.parametrize(("negatives", "realisable"), [(99, False), (100, True), (101, True)])
def test_a_rate_of_less_than_one_negative_has_no_value(negatives, realisable):
    scores, positive = np.arange(negatives + 10.0), np.arange(negatives + 10) < 10
    rate = tpr_at_fpr(scores, positive, 0.01)
    assert np.isnan(rate.value) != realisable
    member = np.stack([positive] * 3)
    means = compute_target_means(np.stack([scores] * 3), member)
    assert np.isnan(means["tpr_at_0.01"].value) != realisable
    assert (means["tpr_at_0.01"].rate.false_positives, means["tpr_at_0.01"].rate.negatives) == (
        3 * realisable,
        3 * negatives,
    )
    assert means["tpr_at_0.001"].rate.reason == f"finer than 1/{negatives}"


def test_one_target_that_cannot_have_the_rate_leaves_no_mean():
    rng = np.random.default_rng(31)
    scores, member = rng.normal(size=(5, 400)), np.tile(np.arange(400) < 200, (5, 1))
    assert compute_target_means(scores, member)["tpr_at_0.01"].value >= 0
    scores[2, 290:], scores[4, 299:] = np.nan, np.nan
    result = compute_target_means(scores, member)["tpr_at_0.01"]
    assert np.isnan([result.value, result.lo, result.hi]).all()
    assert result.rate.reason == "finer than 1/90"
    assert not np.isnan(result.per_target[[0, 1, 3]]).any()


@pytest.mark.parametrize(("fpr", "level"), [(0.01, 0.95), (0.03, 0.8), (0.5, 0.95)])
def test_the_ends_are_quantiles_of_the_mixture(fpr, level):
    """Naive: positives above each negative by counting, and the mixture's distribution function from scipy."""
    rng = np.random.default_rng(32)
    scores, positive = rng.integers(0, 60, 300) / 9 + (np.arange(300) < 120), np.arange(300) < 120
    rate, cumulated = tpr_at_fpr(scores, positive, fpr, level), np.zeros(2)
    neg = [np.inf, *sorted(scores[~positive], reverse=True), -np.inf]
    for k in range(181):
        hits = np.mean([(scores[positive] > neg[k]).sum(), (scores[positive] > neg[k + 1]).sum()])
        cumulated += binom.pmf(k, 180, fpr) * beta.cdf([rate.lo, rate.hi], hits + 0.5, 120 - hits + 0.5)
    assert cumulated == pytest.approx([(1 - level) / 2, (1 + level) / 2], abs=1e-9)


def test_targets_that_agree_fully_still_have_an_interval():
    """The trap: areas of 1 have no spread, so the t interval of their mean is [1, 1]."""
    member = np.tile(np.arange(200) < 100, (8, 1))
    result = compute_target_means(member + 0.0, member)
    for mean in (result["auc"], result["tpr_at_0.01"]):
        assert (mean.value, mean.hi) == (1, 1)
        assert mean.lo == pytest.approx(100 / (100 + norm.isf(0.025) ** 2), rel=1e-10)


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
    # 2.776: 97.5 % quantile of Student's t with 4 degrees of freedom; 1.35 because targets share their shadow models
    assert result["auc"].hi - each.mean() == pytest.approx(1.35 * 2.7764 * each.std(ddof=1) / np.sqrt(5), rel=1e-4)
    assert np.isnan(compute_target_means(scores[:1], member[:1])["auc"].lo)


def test_many_rates_at_once_are_each_rate_alone():
    rng = np.random.default_rng(21)
    scores, member = rng.integers(0, 30, 400) / 7, rng.random(400) < 0.4
    fprs = np.array([0.01, 0.29, 0.5, 0.999, 1.0])
    expected = [tpr_at_fpr(scores, member, fpr).value for fpr in fprs]
    assert compute_tprs(scores, member, fprs).tolist() == expected


def test_a_band_starts_at_one_false_positive_and_spans_the_targets():
    rng = np.random.default_rng(22)
    member = rng.random((40, 500)) < 0.5
    result = compute_roc_band(rng.normal(size=(40, 500)) + member, member)
    assert result.fpr[0] == pytest.approx(1 / (~member).sum(1).min())
    scores = np.where(member | (np.arange(500) < 350), rng.normal(size=(40, 500)), np.nan)
    assert compute_roc_band(scores, member).fpr[0] == pytest.approx(1 / (~member[:, :350]).sum(1).min())
    assert result.fpr[-1] == result.mean[-1] == 1
    assert (np.diff(result.mean) >= 0).all()
    assert (result.lo <= result.mean).all()
    assert (result.mean <= result.hi).all()
    assert (result.lo < result.hi)[:60].all()


def test_a_band_of_targets_that_held_everything_is_undefined():
    result = compute_roc_band(np.zeros((3, 9)), np.ones((3, 9), bool))
    assert np.isnan(result.mean).all()


def count_pairs(scores, positive):
    """The area by comparing all pairs."""
    pairs = scores[positive][:, None] - scores[~positive][None]
    return ((pairs > 0) + (pairs == 0) / 2).mean() if pairs.size else np.nan


def try_thresholds(scores, positive, fpr):
    """The best true positive rate at a false positive rate, by trying every score as the threshold."""
    if positive.all() or not positive.any():
        return np.nan
    above = scores > np.append(scores, -np.inf)[:, None]
    allowed = above[:, ~positive].sum(1) <= int(fpr * (~positive).sum() + 1e-9)
    return above[allowed][:, positive].mean(1).max(initial=0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ["distinct", "ties", "zeros", "nulls", "one side", "few"])
def test_curves_of_targets_are_those_of_loops(kind, dtype):
    rng = np.random.default_rng(6)
    targets, n = 5, 3 if kind == "few" else 60
    member = rng.random((targets, n)) < 0.5
    scores = (rng.normal(size=(targets, n)) + member).astype(dtype)
    if kind == "ties":
        scores = np.round(scores)
    elif kind == "zeros":  # equal, whatever their sign
        scores = np.where(rng.random(scores.shape) < 0.5, dtype(-0.0), dtype(0.0))
    elif kind == "nulls":
        scores[:, ::3], scores[1] = np.nan, np.nan
    elif kind == "one side":
        member[0], member[1] = True, False
    means, band = summarize_targets(scores, member)
    rows = [(row[~np.isnan(row)], held[~np.isnan(row)]) for row, held in zip(scores, member, strict=True)]
    areas = [count_pairs(*row) for row in rows]
    np.testing.assert_allclose(means["auc"].per_target, areas, rtol=1e-12)
    curves = np.array([[try_thresholds(*row, fpr) for fpr in band.fpr] for row in rows])
    for row, expected in zip(rows, curves, strict=True):
        np.testing.assert_allclose(compute_tprs(*row, band.fpr), expected, rtol=1e-12)
    with np.errstate(invalid="ignore"):
        defined = curves[~np.isnan(curves).any(1)]
    np.testing.assert_allclose(band.mean, defined.mean(0), rtol=1e-12)
    np.testing.assert_allclose(band.hi, np.quantile(defined, 0.975, axis=0), rtol=1e-12)
    assert compute_target_means(scores, member)["auc"].value == pytest.approx(means["auc"].value, nan_ok=True)


def test_corners_are_counts_above_each_distinct_score():
    curve = count_roc(np.array([3.0, 1, 2, 3, 1]), np.array([True, True, False, False, True]))
    assert (curve.false.tolist(), curve.true.tolist()) == ([0, 1, 2, 2], [0, 1, 1, 3])
    assert curve.find_corners(np.array([0, 1, 2])).tolist() == [0, 1, 3]
