"""Numbers in a terminal: what is undefined is a dash, whether it comes from a file (null) or from memory (NaN)."""

import numpy as np
import pytest

from memscore.intervals import Interval
from memscore.report.tables import between, number, with_interval

NAN = float("nan")


@pytest.mark.parametrize("undefined", [None, NAN, np.float32("nan")])
def test_an_undefined_number_is_a_dash_and_so_is_its_interval(undefined):
    assert number(undefined) == "-"
    assert between(undefined, undefined) == "-"


def test_zero_is_a_number():
    assert number(0.0) == "0.000"
    assert between(-0.25, 0.0) == "[-0.250, 0.000]"


def test_a_number_stands_before_its_interval_and_says_if_it_has_none():
    assert with_interval(Interval(value=0.5, lo=0.25, hi=0.75)) == "0.500 [0.250, 0.750]"
    assert with_interval(Interval(value=0.5, lo=NAN, hi=NAN)) == "0.500 -"
    assert with_interval(Interval(value=NAN, lo=NAN, hi=NAN)) == "-"
