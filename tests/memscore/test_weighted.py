"""Scores from weighted sets of models against the estimators on those models."""

import numpy as np
import pytest

from memscore.estimators.cscore import cscore
from memscore.estimators.memorization import memorization
from memscore.estimators.probability import memorization_probability
from memscore.estimators.probit import memorization_probit
from memscore.weighted import weighted_scores, weights_of

M, N = 24, 30


@pytest.fixture
def columns():
    rng = np.random.default_rng(0)
    gap = rng.normal(1, 3, (M, N)).astype(np.float32)
    member = rng.random((M, N)) < 0.5
    return {"member": member, "correct": gap > 0, "gap": gap, "logit_confidence": gap - 0.3}


def by_hand(columns, chosen):
    said = {name: column[chosen] for name, column in columns.items()}
    return {
        "memorization": memorization(said["correct"], said["member"]),
        "cscore": cscore(said["correct"], said["member"])["value"],
        "memorization_probability": memorization_probability(said["logit_confidence"], said["member"])["value"],
        "memorization_probit": memorization_probit(said["gap"], said["member"])["value"],
    }


def test_each_set_of_models_says_what_the_estimators_say_of_it(columns):
    rng = np.random.default_rng(1)
    sets = [np.arange(M), np.arange(0, M, 2), np.sort(rng.integers(0, M, M))]
    found = weighted_scores(weights_of(sets, M), columns)
    assert set(found) == {"memorization", "cscore", "memorization_probability", "memorization_probit"}
    for position, chosen in enumerate(sets):
        for name, expected in by_hand(columns, chosen).items():
            np.testing.assert_allclose(found[name][position], expected, atol=2e-6, err_msg=f"{name} {position}")


def test_a_side_that_a_set_leaves_empty_is_undefined(columns):
    columns["member"][:4, 0] = True
    found = weighted_scores(weights_of([np.arange(4)], M), columns)
    assert np.isnan(found["memorization"][0, 0])
    assert np.isnan(found["memorization_probit"][0, 0])
    assert np.isnan(found["cscore"][0, 0])


def test_what_the_bank_lacks_is_left_out(columns):
    found = weighted_scores(weights_of([np.arange(M)], M), {name: columns[name] for name in ("member", "correct")})
    assert set(found) == {"memorization", "cscore"}


def test_repeats_count_as_often_as_they_stand():
    assert weights_of([np.array([0, 2, 2])], 4).tolist() == [[1, 0, 2, 0]]
