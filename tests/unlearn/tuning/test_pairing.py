"""Comparisons of judged rows: each difference is of one original, under both contenders."""

import math

import numpy as np
import pytest
from scipy.stats import t as student

from memscore.statistics.claims import judge_claim
from unlearn.tuning.results import (
    average_by_original,
    estimate_column,
    group_by_method,
    mean_or_minus_infinity,
    paired_difference,
    paired_mean_difference,
    select_last_step,
    select_rows,
)


def rows(values, **more):
    """A row for each original; `values` by index."""
    return [{"index": index, "tow": value, "level": 1, "levels": 1, **more} for index, value in values.items()]


def test_a_difference_is_taken_within_each_original():
    found = paired_difference(rows({2: 0.9, 3: 0.5, 4: 0.7}), rows({4: 0.6, 3: 0.1, 2: 0.7, 5: 0.0}), "tow")
    differences = np.array([0.2, 0.4, 0.1])
    half = student.ppf(0.975, 2) * differences.std(ddof=1) / np.sqrt(3)
    assert found.value == pytest.approx(differences.mean())
    assert (found.lo, found.hi) == pytest.approx((differences.mean() - half, differences.mean() + half))


def test_pairing_takes_away_what_both_have_in_common():
    easy, noise = {0: 0.1, 1: 0.5, 2: 0.9}, {0: 0.01, 1: 0.02, 2: 0.03}
    found = paired_difference(rows({i: easy[i] + 0.1 + noise[i] for i in easy}), rows(easy), "tow")
    assert found.lo > 0


def test_nothing_in_common_is_undefined():
    found = paired_difference(rows({0: 1.0}), rows({1: 1.0}), "tow")
    assert all(math.isnan(value) for value in (found.value, found.lo, found.hi))


def test_one_original_has_a_value_and_no_interval():
    found = paired_difference(rows({0: 1.0}), rows({0: 0.25}), "tow")
    assert found.value == 0.75
    assert math.isnan(found.lo)


def test_an_undefined_value_counts_for_neither_side():
    found = paired_difference(rows({0: 0.5, 1: float("nan"), 2: 0.7}), rows({0: 0.4, 1: 0.1, 2: 0.5}), "tow")
    assert found.value == pytest.approx(0.15)


def make_diverged_rows():
    """Two methods on three originals, one run of which diverged."""
    nan = float("nan")
    made = {
        name: [
            {"index": i, "contender": name, "status": "ok", "tow_test": tow, "tow_mia_test": tow, "mia_test_gap": tow}
            for i, tow in enumerate(tows)
        ]
        for name, tows in (("stable", (0.4, 0.5, 0.6)), ("wild", (0.9, nan, 0.8)))
    }
    made["wild"][1] |= {"status": "diverged"}
    return made["stable"], made["wild"]


@pytest.mark.parametrize("column", ["tow_test", "tow_mia_test"])
def test_a_diverged_run_counts_as_a_tuning_counts_it(column):
    stable, wild = make_diverged_rows()
    found = paired_difference(wild, stable, column)
    assert (found.value, found.n, found.left_out) == (pytest.approx((0.5 - 0.5 + 0.2) / 3), 3, "")
    assert estimate_column(wild, column).value == pytest.approx(1.7 / 3)
    assert mean_or_minus_infinity(wild, column) == pytest.approx(1.7 / 3)


def test_a_diverged_run_without_a_worst_value_is_said():
    stable, wild = make_diverged_rows()
    found = paired_difference(wild, stable, "mia_test_gap")
    assert (found.n, found.left_out) == (2, "1 of 6 runs diverged")
    # one on an original that the other has not is no part of the comparison
    assert paired_difference(wild, [stable[0], stable[2]], "mia_test_gap").left_out == ""
    assert judge_claim("", "", found, family="one").verdict == "no verdict: 1 of 6 runs diverged"


def test_rows_of_one_original_are_averaged_and_an_undefined_one_makes_it_undefined():
    assert average_by_original([*rows({0: 0.2, 1: 0.5}), *rows({0: 0.4})], "tow") == pytest.approx({0: 0.3, 1: 0.5})
    assert math.isnan(average_by_original([*rows({0: 0.2}), *rows({0: float("nan")})], "tow")[0])


def test_sides_are_means_over_contenders_of_the_originals_that_all_have():
    ours = [rows({0: 0.8, 1: 0.6, 2: 0.0}), rows({0: 0.4, 1: 0.6})]
    theirs = [rows({0: 0.1, 1: 0.2, 2: 0.9})]
    assert paired_mean_difference(ours, theirs, "tow").value == pytest.approx(((0.6 - 0.1) + (0.6 - 0.2)) / 2)


def test_where_takes_rows_that_have_all_values():
    both = [*rows({0: 0.0}, contender="a", select=""), *rows({0: 0.0}, contender="a", select="blind")]
    assert select_rows(both, contender="a", select="blind") == both[1:]
    assert select_rows(both, status="diverged") == []


def test_beginnings_of_sequences_are_no_contest():
    made = [
        {"contender": "a", "variant": "rum", "select": "oracle", "level": level, "levels": 3, "index": 0}
        for level in (1, 2, 3)
    ]
    bare = {"contender": "oracle", "variant": "", "select": "", "level": 0, "levels": 0, "index": 0}
    assert select_last_step([*made, bare]) == [made[2], bare]
    assert group_by_method([bare, *made]) == {("oracle", "", ""): [bare], ("a", "rum", "oracle"): [made[2]]}
