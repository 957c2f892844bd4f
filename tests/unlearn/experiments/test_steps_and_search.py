"""An experiment takes the papers' epochs, or searches them, where it is told to."""

import pytest

from tests.fixtures.tiny import make_config
from unlearn.experiments.config import ExperimentConfig
from unlearn.experiments.registry import EXPERIMENTS

PRESET = EXPERIMENTS["rum"].small_preset


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({}, "scaled"),
        ({"preset": "paper"}, "paper"),
        ({"steps": "paper"}, "paper"),
        ({"preset": "paper", "steps": "scaled"}, "scaled"),
    ],
)
def test_steps_follow_the_preset_unless_they_are_given(options, steps):
    config = ExperimentConfig(name="rum", store="s", **options).resolve(PRESET)
    assert config.identity["steps"] == steps
    assert {sweep.steps for sweep in EXPERIMENTS["rum"].make_sweeps(config).values()} == {steps}


def test_searched_parameters_reach_every_sweep_and_name_another_experiment():
    plain, searched = make_config("finetune"), make_config("finetune", search=("finetune.epochs",))
    assert "search" not in plain.identity
    assert searched.identity == plain.identity | {"search": ("finetune.epochs",)}
    sweeps = EXPERIMENTS["rum"].make_sweeps(searched).values()
    assert {sweep.search for sweep in sweeps} == {("finetune.epochs",)}


@pytest.mark.parametrize("name", [name for name, entry in EXPERIMENTS.items() if entry.estimate_work is None])
def test_every_preset_has_the_tunings_that_a_verdict_needs(name):
    for preset in (EXPERIMENTS[name].small_preset, EXPERIMENTS[name].paper_preset):
        assert preset.tunings >= 3
        assert preset.tune_seeds >= 2
        assert preset.seeds >= preset.tunings
