"""Leakage by group: the group that leaks is first, areas are those of auc, and their intervals cover."""

import numpy as np
import pytest

from memscore.statistics.group_leak import FEWEST, compute_group_aucs, compute_group_leaks, compute_mean
from memscore.statistics.roc import auc


def draw(rng, targets=32, n=300, effects=(0.0, 1.0, 0.0)):
    groups = np.arange(n) % len(effects)
    member = rng.random((targets, n)) < 0.5
    return rng.normal(size=(targets, n)) + np.take(effects, groups) * member, member, groups


def test_the_group_that_leaks_is_first_and_the_others_are_near_one_half():
    scores, member, groups = draw(np.random.default_rng(0))
    # a group whose scores are all high leaks nothing
    scores[:, groups == 2] += 5
    first, *others = compute_group_leaks(scores, member, groups, 2.0)
    assert first.group == 1
    assert first.auc.lo > 0.7
    assert first.examples == 100
    for leak in others:
        assert leak.auc.lo - 0.02 < 0.5 < leak.auc.hi + 0.02
        assert leak.tpr.value == pytest.approx(leak.fpr.value, abs=0.05)


def test_areas_are_those_of_one_target_at_a_time():
    rng = np.random.default_rng(0)
    scores, member, _ = draw(rng, targets=5, n=80)
    scores = np.round(scores, 1)  # ties
    scores[1, 3], scores[2, :4], scores[3, 5] = np.nan, np.nan, np.inf
    for found, row, held in zip(compute_group_aucs(scores, member), scores, member, strict=True):
        defined = ~np.isnan(row)
        assert found == pytest.approx(auc(row[defined], held[defined]))
    assert np.isnan(compute_group_aucs(scores, np.ones_like(member))).all()


def test_groups_that_are_too_small_are_undefined_and_last_and_no_group_is_left_out():
    scores, member, groups = draw(np.random.default_rng(0), n=200)
    groups[:5], groups[5:9] = 7, -1
    leaks = compute_group_leaks(scores, member, groups, 1.0)
    assert [leak.group for leak in leaks][-1] == 7
    assert np.isnan(leaks[-1].auc.value)
    assert leaks[-1].targets == 0
    assert {leak.group for leak in leaks} == {0, 1, 2, 7}
    assert all(leak.targets > 0 and leak.members >= FEWEST for leak in leaks[:-1])


def test_of_one_target_the_intervals_are_over_examples():
    scores, member, groups = draw(np.random.default_rng(0), targets=1, n=600)
    first = compute_group_leaks(scores, member, groups, 1.0)[0]
    assert (first.group, first.targets) == (1, 1)
    assert 0 < first.auc.lo < first.auc.value < first.auc.hi < 1
    assert first.tpr.lo < first.tpr.value < first.tpr.hi


def test_the_intervals_of_a_groups_area_and_rate_cover():
    """200 banks of 16 targets, seed 0; the truth of these examples is from 20,000 further targets' worth of draws."""
    rng, covered = np.random.default_rng(0), []
    for _ in range(200):
        shift = rng.normal(0, 0.3, 60)
        member = rng.random((16, 60)) < 0.5
        scores = shift + rng.normal(size=(16, 60)) + 0.8 * member
        leak = compute_group_leaks(scores, member, np.zeros(60, int), 1.0)[0]
        held = rng.random((600, 60)) < 0.5
        further = shift + rng.normal(size=(600, 60)) + 0.8 * held
        truth, tpr = compute_group_aucs(further, held).mean(), (further > 1)[held].mean()
        covered.append((leak.auc.lo <= truth <= leak.auc.hi, leak.tpr.lo <= tpr <= leak.tpr.hi))
    assert (np.mean(covered, axis=0) >= 0.915).all()
    assert (np.mean(covered, axis=0) <= 0.99).all()


def test_an_interval_of_a_mean_area_stays_within_0_and_1():
    interval = compute_mean(np.array([0.9, 0.3]))
    assert (interval.value, interval.lo, interval.hi) == (pytest.approx(0.6), 0.0, 1.0)
    assert np.isnan([compute_mean(np.array([0.9])).lo, compute_mean(np.array([])).value]).all()
