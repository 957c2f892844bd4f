"""Attack success against its definition and closed forms."""

import numpy as np
import pytest
from scipy.stats import norm

from memscore.estimators.attack_success import attack_success
from memscore.statistics.intervals import SHARED_SHADOWS_TRIALS, wilson
from memscore.subsets.designs import Arm, draw_membership
from tests.fixtures.whole_banks import fit_shadow_prior, lira_online


def test_a_perfect_and_a_reversed_attack_score_1_and_0():
    member = draw_membership(Arm(design="exact", block=8), range(8), 30)
    assert (attack_success(np.where(member, 1.0, -1.0), member)["value"] == 1).all()
    assert (attack_success(np.where(member, -1.0, 1.0), member)["value"] == 0).all()


def test_targets_without_a_score_are_not_counted():
    scores = np.array([[1.0, np.nan], [np.nan, np.nan], [-1.0, np.nan], [1.0, np.nan]])
    member = np.array([[True, True], [True, True], [False, False], [False, False]])
    table = attack_success(scores, member)
    assert table["n"].tolist() == [3, 0]
    assert table["value"][0] == pytest.approx(2 / 3)
    trials = np.array([2, 3]) / SHARED_SHADOWS_TRIALS
    assert (table["lo"][0], table["hi"][0]) == tuple(wilson(*trials))
    assert table["hi"][0] - table["lo"][0] > np.diff(wilson(np.array(2), np.array(3)), axis=0)
    assert np.isnan([table[c][1] for c in ("value", "se", "lo", "hi")]).all()


def test_the_threshold_is_exclusive_and_can_be_moved():
    scores, member = np.array([[0.0], [2.0]]), np.array([[False], [True]])
    result = [attack_success(scores, member, threshold=tau)["value"].item() for tau in (0.0, 2.0, -1.0)]
    assert result == [1, 0.5, 0.5]


def test_noise_is_guessed_right_half_the_time():
    """Mean over examples within 4 s.e. of 1/2; examples are independent, targets of one are not."""
    rng = np.random.default_rng(0)
    member = draw_membership(Arm(block=16), range(16), 2000, np.arange(2000) // 10)
    confidence = rng.normal(size=member.shape)
    success = attack_success(lira_online(confidence, member, fit_shadow_prior([(confidence, member)])), member)["value"]
    assert abs(success.mean() - 0.5) < 4 * success.std() / np.sqrt(2000)


@pytest.mark.parametrize("distance", [0.5, 2.0])
def test_gaussians_d_apart_are_told_apart_as_often_as_half_of_d_allows(distance):
    """The best test's success is Phi(d / 2); learned from 200 shadows it loses under .005."""
    rng = np.random.default_rng(1)
    member = draw_membership(Arm(design="exact", block=200), range(200), 1000)
    confidence = rng.normal(size=member.shape) + distance * member + 3 * rng.normal(size=1000)
    success = attack_success(lira_online(confidence, member, fit_shadow_prior([(confidence, member)])), member)["value"]
    error = 4 * success.std() / np.sqrt(1000)
    assert norm.cdf(distance / 2) - error - 0.005 < success.mean() < norm.cdf(distance / 2) + error
