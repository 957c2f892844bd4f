"""Words of an experiment that cannot hold are refused before anything is read or trained."""

import pytest

from unlearn.experiments.asking import ExperimentPlan, prepared


def test_a_second_bank_is_refused_where_nothing_compares_two():
    with pytest.raises(ValueError, match=r"--other elsewhere: rum reads one bank; two are compared by proxies"):
        prepared(ExperimentPlan(name="rum", store="nowhere", other="elsewhere"))


def test_an_unknown_experiment_offers_the_nearest():
    with pytest.raises(ValueError, match=r"unknown experiment 'memorisation'; did you mean 'memorization'"):
        prepared(ExperimentPlan(name="memorisation", store="nowhere"))
