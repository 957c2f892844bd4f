"""The gain of a pass, by hand: two originals, a training set of 100 examples."""

import math

import pytest

from unlearn.tuning.gains import add_gains

NOTHING = [{"contender": "original", "select": "", "index": i, "level": 0, "levels": 0, "examples": 0} for i in (1, 2)]


def make_row(index, tow, examples, **more):
    whole = {"contender": "finetune", "select": "oracle", "level": 1, "levels": 1, "status": "ok"}
    return whole | {"index": index, "tow_test": tow, "examples": examples} | more


def gains_of(*rows):
    nothing = [row | {"tow_test": tow} for row, tow in zip(NOTHING, (0.4, 0.6), strict=True)]
    found = add_gains([*nothing, *rows], 100)
    assert all(math.isnan(row["gain_per_pass"]) and row["passes"] == 0 for row in found[:2])
    return [(row["passes"], row["gain_per_pass"]) for row in found[2:]]


def test_each_row_is_compared_with_doing_nothing_to_its_own_original():
    (first, second) = gains_of(make_row(1, 0.9, 200), make_row(2, 0.5, 50))
    assert first == pytest.approx((2, 0.25))
    assert second == pytest.approx((0.5, -0.2))


def test_a_diverged_run_loses_what_doing_nothing_has():
    assert gains_of(make_row(1, math.nan, 100, status="diverged")) == [pytest.approx((1, -0.4))]


def test_steps_within_a_sequence_and_runs_that_read_nothing_have_no_gain():
    rows = gains_of(make_row(1, 0.9, 100, levels=3), make_row(1, 0.9, 100, level=3, levels=3), make_row(2, 0.6, 0))
    assert [math.isnan(gain) for _, gain in rows] == [True, False, True]


def test_an_original_without_a_row_of_doing_nothing_has_no_gain():
    assert math.isnan(gains_of(make_row(7, 0.9, 100))[0][1])
