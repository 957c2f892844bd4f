"""Memorization by counts: closed forms, intervals, and the predicted error."""

import numpy as np
import pytest
from scipy.stats import binom

from memscore.estimators.memorization import (
    MEMORIZATION,
    compute_bank_rmse,
    count_by_membership,
    memorization,
    memorization_from_counts,
    sum_variances,
)
from memscore.estimators.statistic import compute_table
from memscore.subsets.designs import Arm, draw_membership
from tests.oracles import nearest_neighbour_correct, nearest_neighbour_memorization


def test_an_example_right_exactly_when_in_is_wholly_memorized():
    member = draw_membership(Arm(design="iid", keep=0.7), range(50), 200)
    table = compute_table(MEMORIZATION, member, member)
    assert (table["value"] == 1).all()
    assert (table["se"] > 0).all()
    assert (table["lo"] < 1).all()
    assert (table["hi"] == 1).all()
    assert (table["n_in"] == member.sum(0)).all()
    assert (table["n_in"] + table["n_out"] == 50).all()


def test_an_example_always_right_is_not_memorized():
    member = draw_membership(Arm(design="iid", keep=0.7), range(50), 200)
    table = compute_table(MEMORIZATION, np.ones_like(member), member)
    assert (table["value"] == 0).all()
    assert ((table["lo"] < 0) & (table["hi"] > 0)).all()


def test_an_empty_side_is_undefined_and_its_counts_are_kept():
    member = np.array([[True, False, True], [True, False, False]])
    table = compute_table(MEMORIZATION, np.ones((2, 3), bool), member)
    for column in ("value", "se", "lo", "hi"):
        assert np.isnan(table[column]).tolist() == [True, True, False]
    assert table["n_in"].tolist() == [2, 0, 1]
    assert table["n_out"].tolist() == [0, 2, 1]
    assert np.isnan(memorization(np.ones((2, 3), bool), member)).tolist() == [True, True, False]


@pytest.mark.parametrize("keep", [0.25, 0.5, 0.75])
def test_twins_memorize_one_minus_keep(keep):
    """Two equal examples with a label of their own: right exactly when either is in; keep 1/2 leaves 1/2."""
    member = draw_membership(Arm(design="exact", keep=keep, block=4000), range(4000), n=2)
    correct = np.repeat(member.any(1, keepdims=True), 2, axis=1)
    table = compute_table(MEMORIZATION, correct, member)
    # 4 s.e.: one false alarm in 16,000, seed fixed
    assert (abs(table["value"] - (1 - keep)) < 4 * table["se"]).all()


def test_twins_in_one_cluster_memorize_one_minus_keep_without_any_error():
    for arm in (Arm(block=8), Arm(keep=0.75, block=16)):
        member = draw_membership(arm, range(arm.models_per_block), 2, np.zeros(2, int))
        correct = np.repeat(member.any(1, keepdims=True), 2, axis=1)
        assert (memorization(correct, member) == 1 - arm.keep).all()


def test_coin_flips_have_z_scores_of_mean_0_and_sd_1():
    """sd within 4 s.e. of 1.004: the smoothed error is low by 1 / (2 n) at q = 1/2, n = 128 a side."""
    rng = np.random.default_rng(0)
    member = draw_membership(Arm(design="exact"), range(256), 4000)
    table = compute_table(MEMORIZATION, rng.random(member.shape) < 0.5, member)
    z = table["value"] / table["se"]
    assert abs(z.mean()) < 4 / np.sqrt(4000)
    assert abs(z.std() - 1.004) < 4 / np.sqrt(2 * 4000)


def test_one_nearest_neighbour_memorizes_what_counting_says():
    rng = np.random.default_rng(1)
    points, labels = rng.normal(size=(60, 2)), rng.integers(0, 2, 60)
    member = draw_membership(Arm(design="iid", keep=0.7), range(2000), 60)
    table = compute_table(MEMORIZATION, nearest_neighbour_correct(points, labels, member), member)
    exact = nearest_neighbour_memorization(points, labels, 42)
    assert exact.std() > 0.1
    assert (abs(table["value"] - exact) < 4 * table["se"]).all()


@pytest.mark.parametrize("q_in", [0.5, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("q_out", [0.5, 0.9, 0.99])
def test_the_interval_covers_its_nominal_level_at_32_models_a_side(q_in, q_out):
    """Exact, over all 33 x 33 outcomes. Nominal .95; never under .94, and wider than needed only near 0 and 1,

    where a score interval must hold its level although most outcomes are unanimous.
    """
    k_in, k_out = (k.ravel() for k in np.meshgrid(np.arange(33), np.arange(33)))
    probability = binom.pmf(k_in, 32, q_in) * binom.pmf(k_out, 32, q_out)
    n = np.full(33 * 33, 32)
    table = memorization_from_counts(k_in, n, k_out, n)
    covered = (table["lo"] - 1e-12 <= q_in - q_out) & (q_in - q_out <= table["hi"] + 1e-12)
    assert 0.94 < probability[covered].sum() <= (0.975 if min(q_in, q_out) < 0.6 else 1)


def test_counts_of_disjoint_models_add():
    rng = np.random.default_rng(2)
    correct, member = rng.random((2, 20, 30)) < 0.5
    parts = [count_by_membership(correct[rows], member[rows]) for rows in (slice(0, 7), slice(7, 20))]
    table = compute_table(MEMORIZATION, correct, member)
    for key, column in memorization_from_counts(*(a + b for a, b in zip(*parts, strict=True))).items():
        np.testing.assert_array_equal(column, table[key])


def test_precision_predicts_the_error_of_the_estimate():
    """Right with known chances in and out: the rmse to the truth is compute_bank_rmse, within 4 standard errors."""
    rng = np.random.default_rng(4)
    member = draw_membership(Arm(design="iid", keep=0.7), range(60), 3000)
    q_in, q_out = 0.5 + rng.random(3000) / 2, rng.random(3000)
    correct = rng.random(member.shape) < np.where(member, q_in, q_out)
    squares = (memorization(correct, member) - (q_in - q_out)) ** 2
    rmse = compute_bank_rmse([
        sum_variances(correct[:, :1000], member[:, :1000]),
        sum_variances(correct[:, 1000:], member[:, 1000:]),
    ])
    assert abs(rmse**2 - squares.mean()) < 4 * squares.std() / np.sqrt(3000)
    assert rmse == pytest.approx(compute_bank_rmse([sum_variances(correct, member)]), rel=1e-10)


def test_precision_leaves_out_examples_with_one_model_on_a_side():
    member = np.array([[True, True], [True, True], [False, True], [False, False]])
    correct = np.array([[True, True], [False, True], [True, True], [True, True]])
    assert sum_variances(correct, member) == (0.25, 1)
    assert np.isnan(compute_bank_rmse([sum_variances(correct[:, 1:], member[:, 1:])]))
    assert np.isnan(compute_bank_rmse([]))
