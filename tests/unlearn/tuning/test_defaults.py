"""What a sweep and an experiment take where the user names no forget set, no variants, no scores and no size."""

import json
from pathlib import Path

import pytest

from tests.fixtures.sweeps import SCORE
from unlearn.experiments.config import ExperimentConfig
from unlearn.experiments.prepare import prepare_experiment
from unlearn.forget_sets import SizeTooLargeError
from unlearn.trials.default_forget_set import check_two_sets, find_largest_size
from unlearn.tuning.config import SweepConfig
from unlearn.tuning.prepare import prepare_sweep
from unlearn.tuning.tuning_set import select_tuning_set


@pytest.fixture(scope="module")
def default(store):
    return prepare_sweep(SweepConfig(store=store))


def test_the_forget_set_is_the_largest_union_of_which_there_are_two(default):
    context = default.context
    judged = context.select_forget_set(list)
    other = select_tuning_set(default.config, context, judged, list)
    assert len(judged.rows) == len(other.rows) == context.size > 0
    assert not set(judged.rows) & set(other.rows)
    with pytest.raises(SizeTooLargeError):
        check_two_sets(context, context.size + 3)


def test_it_compares_the_algorithm_alone_with_rum_and_rsu_by_memorization(default):
    assert {method.variant for method in default.methods} == {"vanilla", f"rum {SCORE}", "rsu"}
    assert any(f"forget set {SCORE}:union of {default.context.size}" in note for note in default.context.notes)


def test_the_same_options_typed_are_the_same_sweep(store, default):
    typed = SweepConfig(
        store=store,
        forget=f"{SCORE}:union",
        size=default.context.size,
        variants=("vanilla", "rum", "rsu"),
        scores=(SCORE,),
    )
    assert prepare_sweep(typed).path == default.path


def test_default_variants_that_a_single_example_does_not_allow_are_left_out_with_a_line(store, default):
    first = default.context.splits.train.ids[0]
    sweep = prepare_sweep(SweepConfig(store=store, forget=f"id:{first}", tune_forget="random", size=1))
    assert sweep.config.variants == ("vanilla",)
    assert "rum, since 1 example cannot make 3 parts; rsu, since 1 example" in sweep.context.notes[0]


def test_a_bank_without_a_score_is_refused_in_one_line(store):
    files = Path(store, "scores")
    hidden = files.rename(files.with_name("hidden"))
    try:
        with pytest.raises(ValueError, match=rf"--forget is left out, .* has no score {SCORE}; compute it"):
            prepare_sweep(SweepConfig(store=store))
    finally:
        hidden.rename(files)


@pytest.mark.parametrize("largest", [0, 3, 30, 33, 60])
def test_the_largest_size_is_found(largest):
    def check(size):
        if size > largest:
            raise SizeTooLargeError(f"--size {size}")

    assert find_largest_size(60, check) == largest


@pytest.mark.parametrize("name", ["rum", "sequence", "five-steps"])
def test_the_size_of_a_preset_is_reduced_with_a_remark_to_what_the_bank_has(store, name):
    prepared = prepare_experiment(ExperimentConfig(name=name, store=store))
    assert 0 < prepared.config.size < prepared.experiment.small_preset.size
    assert f"--size {prepared.config.size}: the bank has no disjoint forget sets" in prepared.notes[0]
    with pytest.raises(SizeTooLargeError):
        prepare_experiment(ExperimentConfig(name=name, store=store, size=prepared.experiment.small_preset.size))


def test_what_is_stored_of_a_default_sweep_is_what_was_decided(default):
    identity = json.loads(json.dumps(default.config.identity))
    assert identity["forget"] == f"{SCORE}:union"
    assert identity["size"] == default.context.size
    assert identity["scores"] == [SCORE]
