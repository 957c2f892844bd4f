"""Thresholds set on targets: known cases, a naive twin, and coverage of what is printed where the truth is known."""

import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from memscore.statistics.calibrated_threshold import (
    FOLDS,
    PRIORS,
    calibrate_threshold,
    compute_mean_rate,
    compute_precision,
    compute_rates,
    count_decisions,
    count_flagged,
    find_threshold,
    summarize_decisions,
)
from memscore.statistics.intervals import Interval

NAN = float("nan")


def draw_targets(rng, targets, n, shift=0.3):
    """Targets that differ by a shift; members' scores are higher by an effect of the example."""
    effect = rng.exponential(0.7, n)
    member = rng.random((targets, n)) < 0.5
    scores = effect * member + shift * rng.normal(size=(targets, 1)) + rng.normal(size=(targets, n))
    return scores, member, effect


def test_the_threshold_is_the_next_non_member_below_the_allowed_ones():
    scores = np.array([[9.0, 8, 7, 6, 5], [4, 3, 2, 1, 100]])
    member = np.zeros((2, 5), bool)
    member[1, 4] = True
    assert find_threshold(scores, member, 1 / 9) == 8
    assert find_threshold(scores, member, 3 / 9) == 6
    assert np.isnan(find_threshold(scores, member, 1 / 10))  # not even one of nine
    assert count_flagged(scores, member, 6.0).tolist() == [[3, 5, 0, 0], [0, 4, 1, 1]]


def test_ties_and_undefined_scores_are_not_flagged_beyond_the_rate():
    scores, member = np.full((4, 100), 1.0), np.tile(np.arange(100) < 50, (4, 1))
    assert compute_rates(count_flagged(scores, member, find_threshold(scores, member, 0.1))).fpr.value == 0
    scores[:, 60] = NAN
    assert count_flagged(scores, member, 0.5)[0].tolist() == [49, 49, 50, 50]


@pytest.mark.parametrize("kind", ["distinct", "ties", "nulls", "one wild target", "one target", "few"])
def test_thresholds_without_a_fold_are_those_of_the_other_targets(kind):
    rng = np.random.default_rng(4)
    targets, n = {"one target": 1, "few": 3}.get(kind, 23), {"few": 4}.get(kind, 60)
    scores, member = rng.normal(size=(targets, n)).astype(np.float32), rng.random((targets, n)) < 0.5
    if kind == "ties":
        scores = np.round(scores)
    elif kind == "nulls":
        scores[:, ::3], scores[2] = NAN, NAN
    elif kind == "one wild target":
        scores[4] += 100
    for fpr in (0.01, 0.1, 0.7):
        calibrated = calibrate_threshold(scores, member, fpr)
        counts = []
        for fold in np.array_split(np.arange(targets), min(FOLDS, targets)):
            others = np.setdiff1d(np.arange(targets), fold)
            threshold = find_threshold(scores[others], member[others], fpr)
            counts.append(count_flagged(scores[fold], member[fold], threshold) if threshold == threshold else None)
        if any(each is None for each in counts):
            assert np.isnan(calibrated.threshold)
            assert calibrated.rates.targets == 0
            continue
        assert calibrated.threshold == find_threshold(scores, member, fpr)
        assert calibrated.rates == compute_rates(np.concatenate(counts))


def test_cross_fitting_judges_no_target_by_its_own_scores():
    """One target's non-members are all above the others': its own threshold would hide that all of them are flagged."""
    rng = np.random.default_rng(0)
    scores, member = rng.normal(size=(10, 400)), rng.random((10, 400)) < 0.5
    scores[3] += 100
    calibrated = calibrate_threshold(scores, member, 0.05)
    assert calibrated.rates.fpr.value > 0.095  # all of one target; set and judged on the same targets it is 0.05
    naive = []
    for target in range(10):
        others = np.arange(10) != target
        threshold = find_threshold(scores[others], member[others], 0.05)
        naive.append((scores[target][~member[target]] > threshold).mean())
    assert calibrated.rates.fpr.value == pytest.approx(np.mean(naive))
    assert calibrated.rates.fpr_sd == pytest.approx(np.std(naive, ddof=1))


def test_what_cannot_be_known_is_undefined():
    rng = np.random.default_rng(0)
    scores, member = rng.normal(size=(4, 100)), rng.random((4, 100)) < 0.5
    too_fine = calibrate_threshold(scores, member, 0.001)
    assert np.isnan(too_fine.threshold)
    assert np.isnan(too_fine.rates.fpr.value)
    assert too_fine.rates.targets == 0
    assert np.isnan(calibrate_threshold(scores[:1], member[:1], 0.05).threshold)
    with pytest.raises(ValueError, match="between 0 and 1, got 1"):
        calibrate_threshold(scores, member, 1)


def test_precision_is_bayes_rule_and_its_interval_holds_the_value():
    tpr, fpr = Interval(value=0.09, lo=0.08, hi=0.1), Interval(value=0.01, lo=0.009, hi=0.012)
    for prior in PRIORS:
        precision = compute_precision(tpr, fpr, prior)
        assert precision.value == pytest.approx(prior * 0.09 / (prior * 0.09 + (1 - prior) * 0.01))
        assert precision.lo < precision.value < precision.hi
    without_false = compute_precision(tpr, Interval(value=0.0, lo=0.0, hi=0.002), 0.1)
    assert (without_false.value, without_false.hi) == (1, 1)
    assert without_false.lo == pytest.approx(0.1 * 0.08 / (0.1 * 0.08 + 0.9 * 0.002))
    without_true = compute_precision(Interval(value=0.0, lo=0.0, hi=0.01), fpr, 0.1)
    assert (without_true.value, without_true.lo) == (0, 0)
    nobody = Interval(value=0.0, lo=0.0, hi=0.1)
    assert np.isnan(compute_precision(nobody, nobody, 0.5).value)


@pytest.mark.parametrize(("targets", "fpr"), [(8, 0.01), (16, 0.01), (64, 0.001)])
def test_expected_rates_and_precision_cover_the_truth(targets, fpr):
    """150 banks of 600 examples, seed 0; the truth is the rate of new targets at the threshold that was set.

    The width is at most 1.5 times that of the errors, 1.75 with up to 16 targets, whose t quantiles are wider.
    """
    rng, shifts = np.random.default_rng(0), 0.3 * ndtri((np.arange(40) + 0.5) / 40)
    found = {name: [] for name in ("fpr", "tpr", "precision")}
    for _ in range(150):
        scores, member, effect = draw_targets(rng, targets, 600)
        calibrated = calibrate_threshold(scores, member, fpr)
        true_fpr = ndtr(shifts - calibrated.threshold).mean()
        true_tpr = ndtr(shifts[:, None] + effect - calibrated.threshold).mean()
        rates = calibrated.rates
        found["fpr"].append((true_fpr, rates.fpr))
        found["tpr"].append((true_tpr, rates.tpr))
        found["precision"].append((0.1 * true_tpr / (0.1 * true_tpr + 0.9 * true_fpr), rates.precision[0.1]))
    for name, pairs in found.items():
        covered = np.mean([interval.lo <= truth <= interval.hi for truth, interval in pairs])
        errors = [interval.value - truth for truth, interval in pairs]
        width = np.mean([interval.hi - interval.lo for _, interval in pairs])
        assert covered >= 0.92, (name, covered)
        assert width <= (1.5 if targets > 16 else 1.75) * np.diff(np.quantile(errors, [0.025, 0.975]))[0], name


def test_the_mean_rate_is_wider_where_targets_differ():
    alike = compute_mean_rate(np.full(16, 30), np.full(16, 600))
    binomial = np.random.default_rng(0).binomial(600, 0.05, 16)
    apart = compute_mean_rate(np.tile([0, 60], 8), np.full(16, 600))
    drawn = compute_mean_rate(binomial, np.full(16, 600))
    assert apart.hi - apart.lo > 3 * (drawn.hi - drawn.lo)
    assert alike.lo < 0.05 < alike.hi
    assert np.isnan(compute_mean_rate(np.array([3]), np.array([600])).lo)
    assert (
        compute_mean_rate(np.zeros(8, int), np.full(8, 600)).lo
        == 0
        < compute_mean_rate(np.zeros(8), np.full(8, 600)).hi
    )


def test_a_decision_is_right_in_a_share_of_the_targets():
    scores = np.array([[2.0, 0, 2], [2, 0, 0], [0, 2, NAN], [0, 0, 2]])
    member = np.array([[1, 1, 1], [1, 1, 0], [0, 0, 0], [0, 0, 1]], bool)
    decisions = count_decisions(scores, member, 1.0)
    assert decisions["in"].tolist() == [1, 0, 1]
    assert decisions["out"].tolist() == [1, 0.5, 1]
    assert decisions["value"].tolist() == [1, 0.25, 1]
    assert decisions["n_out"].tolist() == [2, 2, 1]


def test_scores_that_tell_nothing_are_right_half_of_the_time_at_any_keep_and_threshold():
    rng = np.random.default_rng(0)
    for keep, threshold in ((0.5, 0.0), (0.75, 1.5), (0.9, -1.0)):
        decisions = count_decisions(rng.normal(size=(200, 2000)), rng.random((200, 2000)) < keep, threshold)
        errors = np.nanstd(decisions["value"]) / np.sqrt(2000)
        assert abs(np.nanmean(decisions["value"]) - 0.5) < 4 * errors


@pytest.mark.parametrize("targets", [4, 8, 64])
def test_repeated_decisions_are_of_pairs_of_targets_however_few(targets):
    """Examples are flagged with probability .9 or .02: again with (.81 + .0004) / (.92), whatever the targets."""
    rng = np.random.default_rng(targets)
    share = np.tile([0.9, 0.02], 3000)
    member = np.tile((np.arange(targets) % 2 == 0)[:, None], 6000)
    flagged = np.where(rng.random((targets, 6000)) < np.where(member, share, 0.01), 1.0, -1.0)
    repeats = summarize_decisions(count_decisions(flagged, member, 0.0))
    assert repeats.flagged_again == pytest.approx((0.81 + 0.0004) / 0.92, abs=0.02)
    assert repeats.wrongly_again == pytest.approx(0.01, abs=0.02)
    assert repeats.flips == pytest.approx(0.9 * 0.1 + 0.02 * 0.98, abs=0.01)
    assert np.isnan(repeats.coin_flips) == (targets < 16)


def test_an_example_flagged_in_half_of_its_targets_is_a_coin_flip():
    member = np.ones((16, 4), bool)
    scores = np.where(np.arange(16)[:, None] < np.array([0, 8, 15, 5]), 1.0, -1.0)
    assert summarize_decisions(count_decisions(scores, member, 0.0)).coin_flips == 0.5
