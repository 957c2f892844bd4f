"""Numbers in a terminal: what is undefined is a dash, whether it comes from a file (null) or from memory (NaN)."""

import numpy as np
import pytest

from memscore.statistics.intervals import Interval
from memscore.statistics.roc import compute_target_means, tpr_at_fpr
from memscore.tables.numbers import (
    explain_unrealisable_rates,
    format_interval,
    format_number,
    format_rate,
    format_target_mean,
    format_value_and_half,
    format_with_interval,
)

NAN = float("nan")


@pytest.mark.parametrize("undefined", [None, NAN, np.float32("nan")])
def test_an_undefined_number_is_a_dash_and_so_is_its_interval(undefined):
    assert format_number(undefined) == "-"
    assert format_interval(undefined, undefined) == "-"


def test_half_of_an_interval_beyond_the_limits_is_printed_by_its_ends():
    assert format_value_and_half(0.75, 0.5, 1.0, limits=(0, 1)) == "0.750 ± 0.250"
    assert format_value_and_half(0.75, 0.25, 1.25, limits=(0, 1)) == "0.750 [0.250, 1.000]"
    assert format_value_and_half(0.75, 0.25, 1.25) == "0.750 ± 0.500"
    assert format_value_and_half(0.75, NAN, NAN, limits=(0, 1)) == "0.750"


def test_zero_is_a_number():
    assert format_number(0.0) == "0.000"
    assert format_interval(-0.25, 0.0) == "[-0.250, 0.000]"


def test_a_number_stands_before_its_interval_and_says_if_it_has_none():
    assert format_with_interval(Interval(value=0.5, lo=0.25, hi=0.75)) == "0.500 [0.250, 0.750]"
    assert format_with_interval(Interval(value=0.5, lo=NAN, hi=NAN)) == "0.500 -"
    assert format_with_interval(Interval(value=NAN, lo=NAN, hi=NAN)) == "-"


def test_a_rate_stands_with_its_counts_or_with_why_there_is_none():
    scores, member = np.arange(800.0), np.arange(800) >= 600
    assert format_rate(tpr_at_fpr(scores, member, 0.01)).startswith("1.000 [0.")
    assert format_rate(tpr_at_fpr(scores, member, 0.01)).endswith(", 1.000] at 6/600")
    unrealisable = tpr_at_fpr(scores, member, 0.001)
    assert format_rate(unrealisable) == "finer than 1/600"
    (line,) = explain_unrealisable_rates([unrealisable, tpr_at_fpr(scores, member, 0.01), unrealisable])
    assert line.startswith("TPR at FPR .1 % has no value: that false positive rate is finer than 1/600")
    assert line.endswith("it needs 1,000 of them")
    assert format_rate(tpr_at_fpr(scores[:600], member[:600], 0.01)) == "-"


def test_a_mean_rate_stands_with_mean_counts_of_its_targets():
    """Targets of 300 and 301 non-members, three false positives each; one that held everything has no curve."""
    rng = np.random.default_rng(0)
    member = np.arange(400)[None] >= np.array([[300], [301], [0]])
    means = compute_target_means(rng.normal(size=(3, 400)) + 3 * member, member)
    assert format_target_mean(means["tpr_at_0.01"]).endswith(" at 3/300")
    assert format_target_mean(means["tpr_at_0.001"]) == "finer than 1/300"
    assert " at " not in format_target_mean(means["auc"])
    assert format_target_mean(compute_target_means(np.zeros((2, 9)), np.ones((2, 9), bool))["tpr_at_0.01"]) == "-"
