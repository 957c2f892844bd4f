"""Scores from weighted sets of models against the estimators on those models."""

import numpy as np
import pytest

from memscore.estimators.cscore import cscore
from memscore.estimators.memorization import (
    memorization,
    memorization_probability,
    memorization_probit,
    memorization_table,
)
from memscore.estimators.weighted import compute_between_block_se, compute_weighted_scores, count_set_weights
from memscore.subsets.designs import Arm, draw_membership

M, N = 24, 30


@pytest.fixture
def columns():
    rng = np.random.default_rng(0)
    gap = rng.normal(1, 3, (M, N)).astype(np.float32)
    member = rng.random((M, N)) < 0.5
    return {"member": member, "correct": gap > 0, "gap": gap, "logit_confidence": gap - 0.3}


def by_hand(columns, models):
    selected = {name: column[models] for name, column in columns.items()}
    return {
        "memorization": memorization(selected["correct"], selected["member"]),
        "cscore": cscore(selected["correct"], selected["member"])["value"],
        "memorization_probability": memorization_probability(selected["logit_confidence"], selected["member"])["value"],
        "memorization_probit": memorization_probit(selected["gap"], selected["member"])["value"],
    }


def test_each_set_of_models_has_the_estimators_scores(columns):
    rng = np.random.default_rng(1)
    sets = [np.arange(M), np.arange(0, M, 2), np.sort(rng.integers(0, M, M))]
    scores = compute_weighted_scores(count_set_weights(sets, M), columns)
    assert set(scores) == {"memorization", "cscore", "memorization_probability", "memorization_probit"}
    for position, models in enumerate(sets):
        for name, expected in by_hand(columns, models).items():
            np.testing.assert_allclose(scores[name][position], expected, atol=2e-6, err_msg=f"{name} {position}")


def test_a_side_that_a_set_leaves_empty_is_undefined(columns):
    columns["member"][:4, 0] = True
    scores = compute_weighted_scores(count_set_weights([np.arange(4)], M), columns)
    assert np.isnan(scores["memorization"][0, 0])
    assert np.isnan(scores["memorization_probit"][0, 0])
    assert np.isnan(scores["cscore"][0, 0])


def test_scores_of_missing_columns_are_left_out(columns):
    scores = compute_weighted_scores(
        count_set_weights([np.arange(M)], M), {name: columns[name] for name in ("member", "correct")}
    )
    assert set(scores) == {"memorization", "cscore"}


def test_repeats_count_as_often_as_they_occur():
    assert count_set_weights([np.array([0, 2, 2])], 4).tolist() == [[1, 0, 2, 0]]


def test_the_error_between_blocks_is_that_of_a_mean_of_blocks():
    rng = np.random.default_rng(3)
    member = draw_membership(Arm(design="exact", block=8), range(40), 50)
    correct = rng.random(member.shape) < 0.6
    each = np.array([memorization(correct[i : i + 8], member[i : i + 8]) for i in range(0, 40, 8)])
    np.testing.assert_allclose(each.mean(0), memorization(correct, member), atol=1e-12)
    np.testing.assert_allclose(compute_between_block_se(each) ** 2, each.var(0, ddof=1) / 5, rtol=1e-10)


def test_the_error_between_blocks_needs_three_of_them_and_no_empty_side():
    each = np.array([[0.1, 0.2], [0.3, 0.2], [0.2, np.nan]])
    assert np.isnan(compute_between_block_se(each)).tolist() == [False, True]
    assert np.isnan(compute_between_block_se(each[:2])).all()
    assert np.isnan(compute_between_block_se(each[:0])).all()


def test_twins_in_an_orthogonal_cluster_have_no_error_between_blocks():
    member = draw_membership(Arm(block=8), range(32), 2, np.zeros(2, int))
    correct = np.repeat(member.any(1, keepdims=True), 2, axis=1)
    weights = count_set_weights(np.split(np.arange(32), 4), 32)
    scores = compute_weighted_scores(weights, {"member": member, "correct": correct})
    assert (compute_between_block_se(scores["memorization"]) == 0).all()
    assert (memorization_table(correct, member)["se"] > 0.1).all()
