"""Words of an experiment that cannot hold are refused before anything is read or trained."""

from dataclasses import replace

import pytest

from memscore.estimation import open_bank
from tests.unlearn.experiments.tiny import PLAN, asked
from unlearn.experiments.asking import ExperimentPlan, prepared
from unlearn.experiments.parts import Carried, record_of


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """The path of a bank without a model."""
    return open_bank(replace(PLAN, store=str(tmp_path_factory.mktemp("begun") / "store"))).store.url


def test_a_second_bank_is_refused_where_nothing_compares_two():
    with pytest.raises(ValueError, match=r"--other elsewhere: rum reads one bank; two are compared by proxies"):
        prepared(ExperimentPlan(name="rum", store="nowhere", other="elsewhere"))


def test_an_unknown_experiment_offers_the_nearest():
    with pytest.raises(ValueError, match=r"unknown experiment 'memorisation'; did you mean 'memorization'"):
        prepared(ExperimentPlan(name="memorisation", store="nowhere"))


def test_a_size_that_a_preset_brings_is_said_to_be_its(begun):
    with pytest.raises(
        ValueError, match=r"^--size 5000: .*; --preset paper asks for that many, and --size for others$"
    ):
        prepared(ExperimentPlan(name="rsu", store=begun, preset="paper"))
    with pytest.raises(ValueError, match=r"^--size 5000: (?!.*--preset)"):
        prepared(ExperimentPlan(name="rsu", store=begun, size=5000))


def test_the_forget_set_to_tune_on_reaches_every_sweep(begun):
    with pytest.raises(ValueError, match=r"^--tune-forget rendom: unknown forget set 'rendom'"):
        prepared(ExperimentPlan(name="rsu", store=begun, size=12, tune_forget="rendom"))
    ready = prepared(ExperimentPlan(name="rsu", store=begun, tune_forget="same"))
    assert {plan.tune_forget for plan in ready.entry.plans(ready.asked).values()} == {"same"}


def test_an_experiment_that_says_nothing_of_it_keeps_its_name():
    nothing = Carried(results={}, findings=[])
    plain = record_of("rum", asked("finetune"), nothing)["asked"]
    assert "tune_forget" not in plain
    assert record_of("rum", asked("finetune", tune_forget="same"), nothing)["asked"] == plain | {"tune_forget": "same"}
