"""Rank correlations over examples and originals: exact cases, coverage of the interval, predictions out of sample."""

import numpy as np
import pytest

from memscore.statistics.correlation import spearman
from unlearn.difficulty.correlations import correlate, overlap_of_hardest
from unlearn.difficulty.predictor import judge_prediction, predict_all, rank_difficulty


def test_a_factor_that_is_the_score_gives_1_and_its_negative_minus_1():
    gt = np.random.default_rng(0).random((3, 100))
    assert correlate(gt, gt).value == 1
    assert correlate(-np.exp(gt), gt).value == pytest.approx(-1)


def test_a_factor_that_is_shuffled_within_an_original_gives_0_within_its_interval():
    rng = np.random.default_rng(1)
    gt = rng.random((3, 300))
    shuffled = np.stack([rng.permutation(own) for own in gt])
    found = correlate(shuffled, gt)
    assert found.lo < 0 < found.hi
    assert abs(found.value) < 0.15


def test_too_few_examples_have_no_interval_and_one_original_is_conditional():
    rng = np.random.default_rng(2)
    few = correlate(rng.random((3, 30)), rng.random((3, 30)))
    assert np.isfinite(few.value)
    assert np.isnan(few.lo)
    one = correlate(rng.random((1, 60)), rng.random((1, 60)))
    assert one.conditional
    assert one.lo < one.value < one.hi


def test_undefined_values_are_left_out_of_a_pair():
    gt = np.arange(50.0)[None].repeat(2, 0)
    factor = gt.copy()
    factor[0, :10] = np.nan
    assert correlate(factor, gt).value == 1
    assert np.isnan(correlate(np.full_like(gt, np.nan), gt).value)


def draw_world(rng, n):
    """Factor and score of three originals: half of what moves them is the example's, half the original's with it."""
    shared, slope = rng.normal(size=(1, n)), rng.normal(0.6, 0.15, size=(3, 1))
    factor = shared + rng.normal(size=(3, n))
    return factor, slope * factor + shared * 0.3 + rng.normal(size=(3, n))


def test_the_interval_covers_the_correlation_of_new_originals_and_examples():
    rng = np.random.default_rng(3)
    truth = np.mean([spearman(x, y) for _ in range(25) for x, y in zip(*draw_world(rng, 10_000), strict=True)])
    found = [correlate(*draw_world(rng, 100)) for _ in range(100)]
    assert np.mean([estimate.lo < truth < estimate.hi for estimate in found]) >= 0.92
    # and no interval is as wide as to say nothing
    assert np.median([estimate.hi - estimate.lo for estimate in found]) < 0.4


def test_the_overlap_of_the_hardest():
    gt = np.arange(20.0)
    assert overlap_of_hardest(gt, gt) == 1
    assert overlap_of_hardest(gt, -gt) == 0
    assert np.isnan(overlap_of_hardest(gt[:3], gt[:3]))


def make_features(rng, n=200):
    features = rng.normal(size=(2, n, 3))
    features[:, :, 2] = np.nan
    return features


def test_difficulty_that_follows_from_two_features_is_predicted_better_than_by_one():
    rng = np.random.default_rng(5)
    features = make_features(rng)
    difficulty = features[:, :, 0] + features[:, :, 1]
    gt = -np.stack([difficulty, difficulty + 0.3 * rng.normal(size=difficulty.shape)])
    for held_out in ("examples", "algorithm", "original"):
        judged = judge_prediction(features, gt, ["a", "b", "c"], held_out)
        assert judged.predicted.value > 0.9
        assert judged.single.value < 0.85
        assert judged.gain.lo > 0
    everywhere = predict_all(features, np.arange(100), gt[:, :, :100])
    ranks = rank_difficulty(gt)[0, :, 100:].mean(0)
    assert np.corrcoef(everywhere[100:], ranks)[0, 1] > 0.8


def test_features_that_say_nothing_predict_nothing():
    rng = np.random.default_rng(6)
    judged = judge_prediction(make_features(rng), rng.random((2, 2, 200)), ["a", "b", "c"], "examples")
    assert abs(judged.predicted.value) < 0.2
    assert not judged.gain.lo > 0


def test_one_algorithm_cannot_be_held_out():
    rng = np.random.default_rng(7)
    assert judge_prediction(make_features(rng), rng.random((1, 2, 200)), ["a", "b", "c"], "algorithm") is None
