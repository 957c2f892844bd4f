"""Memorization by the probability of the label."""

import numpy as np
import pytest
from scipy.special import logit

from memscore.estimators.memorization import MEMORIZATION_PROBABILITY, memorization
from memscore.estimators.statistic import MIN_STD, compute_table
from memscore.subsets.designs import Arm, draw_membership


def test_known_probabilities_in_and_out_give_their_difference():
    member = draw_membership(Arm(design="iid", keep=0.7), range(50), 200)
    table = compute_table(MEMORIZATION_PROBABILITY, logit(np.where(member, 0.9, 0.25)), member)
    np.testing.assert_allclose(table["value"], 0.65, rtol=1e-10)
    assert (table["n_in"] == member.sum(0)).all()
    assert (table["n_out"] == (~member).sum(0)).all()


def test_models_that_agree_have_a_small_error_but_not_none():
    member = draw_membership(Arm(design="exact", block=8), range(8), 20)
    table = compute_table(MEMORIZATION_PROBABILITY, np.where(member, 400.0, -400.0), member)
    assert (table["value"] == 1).all()
    np.testing.assert_allclose(table["se"], MIN_STD * np.sqrt(1 / 4 + 1 / 4), rtol=1e-10)


def test_it_equals_loops_over_examples_and_models():
    rng = np.random.default_rng(0)
    member = rng.random((30, 40)) < 0.6
    confidence = rng.normal(1, 2, member.shape).astype(np.float32)
    table = compute_table(MEMORIZATION_PROBABILITY, confidence, member)
    for i in range(40):
        sides = [
            [1 / (1 + np.exp(-float(confidence[m, i]))) for m in range(30) if member[m, i] == side]
            for side in (True, False)
        ]
        variance = sum(np.var(side, ddof=1) / len(side) for side in sides)
        assert table["value"][i] == pytest.approx(np.mean(sides[0]) - np.mean(sides[1]), rel=1e-10)
        assert table["se"][i] == pytest.approx(np.sqrt(variance), rel=1e-10)


def test_fewer_than_two_models_on_a_side_are_undefined_and_the_counts_are_kept():
    member = np.array([[1, 1, 0, 1], [1, 0, 0, 1], [1, 0, 1, 0], [1, 0, 0, 0]], bool)
    table = compute_table(MEMORIZATION_PROBABILITY, np.ones((4, 4)), member)
    for column in ("value", "se"):
        assert np.isnan(table[column]).tolist() == [True, True, True, False]
    assert table["n_in"].tolist() == [4, 1, 1, 2]
    assert table["n_out"].tolist() == [0, 3, 3, 2]


def test_an_example_that_was_never_out_is_not_called_memorized():
    """The trap of dividing by max(count, 1e-10): the empty side's mean becomes 0 and the score that of the other."""

    def guarded(p, member):
        return (p * member).sum(0) / np.maximum(member.sum(0), 1e-10) - (p * ~member).sum(0) / np.maximum(
            (~member).sum(0), 1e-10
        )

    member = np.ones((4, 1), bool)
    assert guarded(np.full((4, 1), 0.9), member) == pytest.approx(0.9)
    assert np.isnan(compute_table(MEMORIZATION_PROBABILITY, logit(np.full((4, 1), 0.9)), member)["value"]).all()


def test_the_error_is_right_for_probabilities_of_any_spread():
    """z-scores of a learner that membership does not move: mean 0; sd that of a t with about 126 degrees of freedom."""
    rng = np.random.default_rng(1)
    member = draw_membership(Arm(design="exact"), range(128), 4000)
    confidence = rng.normal(3, 1, member.shape)
    table = compute_table(MEMORIZATION_PROBABILITY, confidence, member)
    z = table["value"] / table["se"]
    assert abs(z.mean()) < 4 / np.sqrt(4000)
    # 4 s.e. of a standard deviation, kurtosis of a t with 126 degrees of freedom being 3.05
    assert abs(z.std() - np.sqrt(126 / 124)) < 4 * np.sqrt(2.05 / 4 / 4000)


def test_it_differs_from_the_definition():
    """Right in every model but surer when in: not memorized by the definition, memorized by probability."""
    member = draw_membership(Arm(design="exact", block=8), range(8), 10)
    p = np.where(member, 0.99, 0.6)
    assert (memorization(p > 0.5, member) == 0).all()
    np.testing.assert_allclose(compute_table(MEMORIZATION_PROBABILITY, logit(p), member)["value"], 0.39, rtol=1e-10)


def test_saturated_confidence_keeps_its_spread(monkeypatch):
    """Deviations are summed, not squares: near p = 1 the mean of squares less the square of the mean is rounding."""
    monkeypatch.setattr("memscore.estimators.statistic.MIN_STD", 0.0)
    values = 1 - np.array([[1e-9], [2e-9], [3e-9], [4e-9]] * 2)
    table = compute_table(MEMORIZATION_PROBABILITY, logit(values), np.arange(8)[:, None] < 4)
    # 1 - 1e-9 is itself rounded by 1e-16
    np.testing.assert_allclose(table["se"], np.sqrt(2 * 5e-18 / 3 / 4), rtol=1e-6)
    assert abs((values[:4] ** 2).sum() - 4 * values[:4].mean() ** 2 - 5e-18) > 1e-18
