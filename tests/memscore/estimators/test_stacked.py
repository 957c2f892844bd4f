"""Memorization by regression of held-out counts: known answers, its limits, and how often its interval covers."""

import numpy as np
import pytest
from scipy.stats import norm

from memscore.estimators.memorization import memorization
from memscore.estimators.memorization_blend import estimate_blend
from memscore.estimators.memorization_stacked import (
    GROUPS,
    SIGNALS,
    complete_stacked,
    compute_stacked_columns,
    draw_stacked_sets,
    estimate_stacked,
    fit_stacked,
    sum_for_stacked,
)
from memscore.statistics.reliability import draw_random_halves
from memscore.subsets.designs import Arm, draw_membership


def simulate(rng, models, n, *, keep=0.5):
    """Draw a bank whose memorization is known, as trained ones are: gaps are Gaussian, some with a second mode.

    Models without an example with a wrong label (10 %) are never right, of 65 % nearly always, of the others some are.
    """
    member = draw_membership(Arm(design="exact", block=models, keep=keep), range(models), n)
    kind = rng.choice(3, n, p=(0.1, 0.65, 0.25))
    mean = np.choose(kind, (-5, 4, rng.uniform(0, 3, n)))
    rare = np.where((kind == 2) & (rng.random(n) < 0.5), rng.uniform(0, 0.6, n), 0)
    inside = np.where(kind == 2, 3, 5)
    gap = np.where(member, inside, mean) + rng.normal(0, 1, member.shape)
    gap = np.where(~member & (rng.random(member.shape) < rare), -0.4 + 0.3 * rng.normal(size=member.shape), gap)
    right_out = (1 - rare) * norm.cdf(mean) + rare * norm.cdf(-0.4 / 0.3)
    columns = {"member": member, "correct": gap > 0, "gap": gap, "logit_confidence": gap - 0.3}
    return columns, norm.cdf(inside) - right_out


def error(values, truth):
    return float(np.sqrt(np.mean((values - truth) ** 2)))


def test_a_fit_equals_the_regression_that_is_written_out():
    """Without group 2: six statistics of the others without one more group, and that one's counts, group by group."""
    columns, _ = simulate(np.random.default_rng(0), 32, 60)
    sets = draw_stacked_sets(np.arange(32), np.random.default_rng(1))
    groups = [np.flatnonzero(row) for row in sets.weights[-GROUPS:]]
    assert sorted(np.concatenate(groups).tolist()) == [*range(32)]
    rows, targets, weights = [], [], []
    for group in (g for k, g in enumerate(groups) if k != 2):
        rest = np.setdiff1d(np.arange(32), np.concatenate([group, groups[2]]))
        for i in range(60):
            one = []
            for side in (columns["member"][rest, i], ~columns["member"][rest, i]):
                gap, confidence = columns["gap"][rest, i][side], columns["logit_confidence"][rest, i][side]
                clipped = np.clip(gap, -5, 5)
                z = clipped.mean() / np.sqrt(clipped.var(ddof=1) + 0.05) if len(gap) > 1 else np.nan
                label = 1 / (1 + np.exp(-confidence))
                one.append([(gap > 0).mean(), norm.cdf(z), label.mean()] if len(gap) else [np.nan] * 3)
            held = columns["member"][group, i]
            n_in, n_out = held.sum(), (~held).sum()
            if n_in and n_out and not np.isnan(one).any():
                rows.append(np.array(one).T.ravel())
                right = columns["correct"][group, i]
                targets.append(right[held].mean() - right[~held].mean())
                weights.append(1 / (1 / n_in + 1 / n_out))
    x, y, w = np.array(rows), np.array(targets), np.array(weights)
    mean = np.average(x, axis=0, weights=w)
    scale = np.sqrt(np.average((x - mean) ** 2, axis=0, weights=w)) + 1e-9  # one statistic is 1 for all examples
    standard = (x - mean) / scale
    left = (standard * w[:, None]).T @ standard / w.sum() + 1e-3 * np.eye(6)
    slopes = np.linalg.solve(left, (standard * w[:, None]).T @ (y - np.average(y, weights=w)) / w.sum()) / scale
    expected = [*slopes, np.average(y, weights=w) - slopes @ mean]
    np.testing.assert_allclose(fit_stacked([sum_for_stacked(columns, sets)])[3], expected, rtol=1e-4, atol=1e-5)


def test_sums_of_two_halves_of_the_examples_add():
    columns, _ = simulate(np.random.default_rng(0), 32, 60)
    sets = draw_stacked_sets(np.arange(32), np.random.default_rng(1))
    parts = [sum_for_stacked({k: v[:, rows] for k, v in columns.items()}, sets) for rows in (slice(25), slice(25, 60))]
    np.testing.assert_allclose(np.sum(parts, axis=0), sum_for_stacked(columns, sets), rtol=1e-6)


@pytest.mark.parametrize(("models", "keep"), [(16, 0.5), (64, 0.5), (64, 0.75)])
def test_its_error_is_small_and_known_and_it_shrinks(models, keep):
    columns, truth = simulate(np.random.default_rng(2), models, 2000, keep=keep)
    table, fit = estimate_stacked(columns, np.arange(models))
    blend, _ = estimate_blend(
        *(columns[name] for name in ("correct", "gap", "member")),
        draw_random_halves(np.arange(models), np.random.default_rng(0)),
    )
    found = error(table["value"], truth)
    assert found < 1.02 * error(blend["value"], truth)
    assert found < 0.95 * error(memorization(columns["correct"], columns["member"]), truth)
    assert fit.rmse == pytest.approx(found, rel=0.15)
    top = truth > 0.99
    assert (table["value"] - truth)[top].mean() < 0


@pytest.mark.parametrize("models", [16, 32, 64])
def test_over_a_bank_jackknife_and_bias_cover_but_single_examples_get_no_standard_error(models):
    """The coverage simulation. In trained banks the most memorized examples are not covered: blend_efficiency.py."""
    columns, truth = simulate(np.random.default_rng(3), models, 4000)
    sets = draw_stacked_sets(np.arange(models), np.random.default_rng(0))
    found = compute_stacked_columns(columns, sets, fit_stacked([sum_for_stacked(columns, sets)]))
    table, fit = complete_stacked(found)
    assert np.isnan(table["se"]).all()
    covered = np.abs(table["value"] - truth) < 1.96 * np.sqrt(found["jackknife"] + fit.bias_share * found["scale"])
    assert 0.93 < covered.mean() < 0.999


def test_whole_blocks_are_dealt_where_there_are_four_or_more():
    rng = np.random.default_rng(0)
    for blocks, groups in ((1, 8), (3, 8), (4, 4), (6, 6), (20, 8)):
        numbers = np.repeat(np.arange(blocks), 16)
        alone = draw_stacked_sets(numbers, rng).weights[-groups:]
        assert draw_stacked_sets(numbers, rng).groups == groups
        is_whole = [len(np.unique(numbers[row > 0])) * 16 == row.sum() for row in alone]
        assert all(is_whole) == (blocks >= 4)


def test_what_a_statistic_leaves_undefined_is_undefined():
    columns, _ = simulate(np.random.default_rng(4), 32, 80)
    columns["member"][:, 0], columns["member"][:, 1] = True, np.arange(32) > 0
    table, _ = estimate_stacked(columns, np.arange(32))
    assert np.isnan(table["value"][:2]).all()
    assert not np.isnan(table["value"][2:]).any()


def test_too_few_models_are_refused():
    columns, _ = simulate(np.random.default_rng(4), 8, 80)
    assert set(SIGNALS) == {"correct", "gap", "logit_confidence"}
    with pytest.raises(ValueError, match="needs 16 models or more, got 8"):
        estimate_stacked(columns, np.arange(8))
