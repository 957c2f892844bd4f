"""Numbers in a terminal: what is undefined is a dash, whether it comes from a file (null) or from memory (NaN)."""

import io

import numpy as np
import pytest
from rich.console import Console

from memscore.pipeline.scoring import ArmScores
from memscore.statistics.intervals import Interval
from memscore.statistics.reliability import compute_reliability
from memscore.subsets.designs import Arm
from memscore.tables.bank_tables import format_interval, format_number, format_with_interval, print_reliabilities

NAN = float("nan")


@pytest.mark.parametrize("undefined", [None, NAN, np.float32("nan")])
def test_an_undefined_number_is_a_dash_and_so_is_its_interval(undefined):
    assert format_number(undefined) == "-"
    assert format_interval(undefined, undefined) == "-"


def test_zero_is_a_number():
    assert format_number(0.0) == "0.000"
    assert format_interval(-0.25, 0.0) == "[-0.250, 0.000]"


def test_a_number_stands_before_its_interval_and_says_if_it_has_none():
    assert format_with_interval(Interval(value=0.5, lo=0.25, hi=0.75)) == "0.500 [0.250, 0.750]"
    assert format_with_interval(Interval(value=0.5, lo=NAN, hi=NAN)) == "0.500 -"
    assert format_with_interval(Interval(value=NAN, lo=NAN, hi=NAN)) == "-"


@pytest.mark.parametrize(("other", "explained"), [([1.0, 2.0, 3.0], False), ([3.0, 2.0, 1.0], True), ([2.0] * 3, True)])
def test_a_dash_among_the_reliabilities_is_explained(other, explained):
    """Halves that agree, that contradict each other, and one whose values are all equal."""
    reliability = compute_reliability([(np.array([1.0, 2.0, 3.0]), np.array(other))])
    arm = ArmScores(
        arm=Arm(),
        suffix="k0.500",
        models=2,
        unfinished=0,
        names=[],
        rmse=0,
        rmse_block=NAN,
        undefined=0,
        reliability={"x": reliability},
        attacks={},
    )
    console = Console(width=120, record=True, file=io.StringIO())
    print_reliabilities(console, [arm])
    assert ("-: the halves do not agree" in console.export_text()) == explained
