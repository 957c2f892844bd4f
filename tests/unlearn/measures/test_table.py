"""Every measure gives the columns that it promises, for any model."""

import math
from pathlib import Path

import numpy as np
import pytest

from tests.fixtures.cases import FORGET, LABELS, make_inputs, make_outputs
from tests.fixtures.populations import make_population
from tests.fixtures.problems import make_tiny_problem, run_algorithm
from unlearn import measures
from unlearn.measures import MEASURES
from unlearn.measures.inputs import ModelInputs

SHARED_FILES = {"inputs", "git_rebasin", "logistic_regression", "user_measure"}
"""Files that declare no measure."""
SWAPPED = LABELS.copy()
SWAPPED[FORGET] = np.where(LABELS[FORGET] < 2, 1 - LABELS[FORGET], LABELS[FORGET])
EXTRA_INPUTS = {"confusion": {"labels": SWAPPED}, "held-out-confusion": {"labels": SWAPPED}}
"""Inputs of measures that are undefined otherwise."""


def build_inputs(name):
    """Build the inputs of a measure for three models or populations."""
    if MEASURES[name].needs == "outputs":
        models = (None, make_outputs(np.zeros(len(LABELS), dtype=bool)), make_inputs().theta_r)
        return [make_inputs(judged, **EXTRA_INPUTS.get(name, {})) for judged in models]
    if MEASURES[name].needs == "weights":
        problem = make_tiny_problem("cnn")
        theta_r = run_algorithm("retrain", problem)
        models = (problem.theta_o, run_algorithm("gradient-ascent", problem), theta_r)
        return [ModelInputs(problem=problem, judged=judged, theta_r=theta_r) for judged in models]
    return [make_population(0.0), make_population(2.0), make_population(0.0, models=(8, 12), seed=1)]


def test_every_file_with_columns_is_in_the_table():
    files = {path.stem for path in Path(measures.__file__).parent.glob("[!_]*.py")}
    assert {measure.fn.__module__.split(".")[-1] for measure in MEASURES.values()} == files - SHARED_FILES


@pytest.mark.parametrize("name", MEASURES)
def test_it_gives_the_columns_that_it_promises_and_the_same_ones_again(name):
    measure = MEASURES[name]
    for inputs in build_inputs(name):
        values = measure.fn(inputs)
        assert list(values) == list(measure.columns)
        assert all(type(value) is float for value in values.values())
        undefined = {column for column, value in values.items() if math.isnan(value)}
        assert undefined <= {"relearn_ratio"}  # where the oracle needs no step
        np.testing.assert_equal(values, measure.fn(inputs))


def test_columns_of_different_measures_have_different_names():
    names = [column for measure in MEASURES.values() for column in measure.columns]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", MEASURES)
def test_a_column_says_its_unit_and_its_ideal(name):
    for column in MEASURES[name].columns.values():
        assert column.best in {"max", "min", "oracle", "none"}
        assert column.unit
        assert column.ideal
        assert len(column.description) > 5


def test_populations_have_no_oracle_row_to_be_near():
    for measure in MEASURES.values():
        if measure.needs == "population":
            assert "oracle" not in {column.best for column in measure.columns.values()}
