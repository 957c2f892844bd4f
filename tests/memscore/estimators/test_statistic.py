"""Every statistic of the table: from all models, from weighted sets of them, and against two loops."""

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import norm

from memscore.estimators.memorization import MEMORIZATION, memorization
from memscore.estimators.registry import STATISTICS, select_statistics
from memscore.estimators.statistic import (
    compute_between_block_se,
    compute_table,
    compute_tables,
    compute_weighted_values,
    count_set_weights,
)
from memscore.subsets.designs import Arm, draw_membership

ALL_STATISTICS = pytest.mark.parametrize("name", STATISTICS)


def subtract(share):
    return lambda inside, outside: share(inside) - share(outside)


def share_of_clipped_gaps(side):
    clipped = [min(max(float(gap), -5), 5) for gap in side]
    return norm.cdf(np.mean(clipped) / np.sqrt(np.var(clipped, ddof=1) + 0.05)) if len(side) > 1 else np.nan


def mean(side):
    return np.mean(side) if len(side) else np.nan


NAIVE = {
    "memorization": subtract(mean),
    "cscore": lambda inside, outside: mean(outside),
    "memorization_probability": subtract(lambda side: mean([expit(float(confidence)) for confidence in side])),
    "memorization_probit": subtract(share_of_clipped_gaps),
}
"""(signals of the models with the example, of those without it) -> value of one example."""


def draw_bank(seed):
    """Columns of a random bank: few models or many, some examples with an empty side or with one model on a side."""
    rng = np.random.default_rng(seed)
    models, n = int(rng.integers(4, 60)), 40
    gap = rng.normal(rng.normal(1, 3, n), rng.exponential(2, n), (models, n)).astype(np.float32)
    member = rng.random((models, n)) < rng.uniform(0.2, 0.8)
    member[:, 0], member[:, 1], member[:, 2] = True, False, np.arange(models) == 1
    return {"member": member, "correct": gap > 0, "gap": gap, "logit_confidence": gap - np.float32(0.3)}


def loop(name, columns):
    """A statistic by two loops, over examples and over models."""
    member, signal = columns["member"], columns[STATISTICS[name].signal]
    values = []
    for i in range(member.shape[1]):
        inside = [signal[m, i] for m in range(len(member)) if member[m, i]]
        outside = [signal[m, i] for m in range(len(member)) if not member[m, i]]
        values.append(NAIVE[name](inside, outside))
    return np.array(values)


def compute_alone(name, columns, models=slice(None)):
    """The table of a statistic on some models of a bank alone."""
    return compute_table(STATISTICS[name], columns[STATISTICS[name].signal][models], columns["member"][models])


def require_equal(values, expected, **tolerance):
    assert (np.isnan(values) == np.isnan(expected)).all()
    np.testing.assert_allclose(values, expected, **tolerance)


@ALL_STATISTICS
@pytest.mark.parametrize("seed", range(5))
def test_weights_of_ones_and_all_models_equal_two_loops(name, seed):
    columns = draw_bank(seed)
    expected = loop(name, columns)
    ones = np.ones((1, len(columns["member"])))
    require_equal(
        compute_weighted_values(STATISTICS, ones, columns)[name][0],
        expected,
        # float32 probabilities, of which sums have an error of 2**-24 a model
        **({"atol": 1e-5} if name == "memorization_probability" else {"rtol": 1e-9, "atol": 1e-11}),
    )
    table = compute_alone(name, columns)
    defined = ~np.isnan(table.get("se", expected))  # one model on a side has a value, and no error
    require_equal(table["value"], np.where(defined, expected, np.nan), rtol=1e-9, atol=1e-11)


@ALL_STATISTICS
@pytest.mark.parametrize("seed", range(5))
def test_a_set_of_models_has_the_value_of_these_models_alone(name, seed):
    columns, rng = draw_bank(seed), np.random.default_rng(seed)
    models = len(columns["member"])
    order = rng.permutation(models)
    sets = [np.sort(order[: models // 2]), np.sort(order[models // 2 :]), np.sort(rng.integers(0, models, models))]
    values = compute_weighted_values(STATISTICS, count_set_weights(sets, models), columns)[name]
    for value, positions in zip(values, sets, strict=True):
        require_equal(value, loop(name, {key: column[positions] for key, column in columns.items()}), atol=1e-5)
        alone = compute_alone(name, columns, positions)
        defined = ~np.isnan(alone["value"])
        np.testing.assert_allclose(value[defined], alone["value"][defined], atol=1e-5)  # sums of sets are in float32


def test_each_statistic_of_the_table_has_a_naive_twin():
    assert NAIVE.keys() == STATISTICS.keys()


def test_a_table_is_the_same_alone_and_beside_others():
    columns = draw_bank(0)
    for name, table in compute_tables(STATISTICS, columns).items():
        alone = compute_alone(name, columns)
        assert list(table) == list(alone)
        for key, values in table.items():
            np.testing.assert_array_equal(values, alone[key], err_msg=f"{name} {key}")


def test_a_side_that_a_set_leaves_empty_is_undefined():
    columns = draw_bank(1)
    columns["member"][:4, 5] = True
    values = compute_weighted_values(STATISTICS, count_set_weights([np.arange(4)], len(columns["member"])), columns)
    assert all(np.isnan(value[0, 5]) for value in values.values())


def test_statistics_of_missing_columns_are_left_out():
    assert select_statistics(["member", "correct"]).keys() == {"memorization", "cscore"}


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
    scores = compute_weighted_values({"memorization": MEMORIZATION}, weights, {"member": member, "correct": correct})
    assert (compute_between_block_se(scores["memorization"]) == 0).all()
    assert (compute_table(MEMORIZATION, correct, member)["se"] > 0.1).all()
