"""Every measure of outputs gives the columns that it promises, for any model."""

import math

import numpy as np
import pytest

from tests.unlearn.cases import LABELS, case, views
from unlearn.metrics import MEASURES

OF_OUTPUTS = {name: measure for name, measure in MEASURES.items() if measure.needs == "outputs"}


@pytest.mark.parametrize("name", OF_OUTPUTS)
def test_it_gives_the_columns_that_it_promises_and_the_same_ones_again(name):
    measure = OF_OUTPUTS[name]
    for judged in (None, views(np.zeros(len(LABELS), dtype=bool)), case().theta_r):
        values = measure.fn(case(judged))
        assert list(values) == list(measure.columns)
        assert all(isinstance(value, float) for value in values.values())
        assert not any(math.isnan(value) for value in values.values())
        np.testing.assert_equal(values, measure.fn(case(judged)))


def test_columns_of_different_measures_have_different_names():
    names = [column for measure in MEASURES.values() for column in measure.columns]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", MEASURES)
def test_a_column_says_its_unit_and_its_ideal(name):
    for column in MEASURES[name].columns.values():
        assert column.best in {"max", "min", "oracle"}
        assert column.unit
        assert column.ideal
        assert len(column.says) > 5
