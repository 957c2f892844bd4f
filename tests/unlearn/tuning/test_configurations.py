"""Attempts of sweeps: which are made, which are found on file, and what each choice is among."""

import json
from collections import Counter

import numpy as np

from memscore.store.trial_files import read_trial
from tests.fixtures.sweeps import SCORE, RecordingSearch, make_config, read_files, run_sweep
from tests.memscore.pipeline.test_jobs import InOrder
from unlearn.algorithms.gradient_ascent import GradientAscentConfig
from unlearn.tuning.prepare import prepare_sweep
from unlearn.tuning.results import select_rows

UNION = f"{SCORE}:union"
DEFAULT = GradientAscentConfig().lr


def test_a_second_run_attempts_nothing_and_leaves_the_same_bytes(store, plain):
    sweep, result, first = plain
    assert len(first.configs) == 4
    before = read_files(store, sweep)
    sweep.context.store.folder.remove(f"{sweep.path}/trials.parquet")
    sweep.context.store.folder.remove(f"{sweep.path}/chosen.json")
    backend = RecordingSearch()
    again, again_result = run_sweep(make_config(store), backend)
    assert backend.searches == backend.configs == []
    assert read_files(store, again) == before
    np.testing.assert_equal(again_result.judged_rows, result.judged_rows)


def test_a_larger_budget_attempts_what_is_missing(store, plain):
    _, result, first = plain
    backend = RecordingSearch()
    _, more = run_sweep(make_config(store, budget=3), backend)
    assert len(backend.configs) == 2
    assert not any(config in first.configs for config in backend.configs)
    for before, after in zip(result.states, more.states, strict=True):
        earlier, later = ([config["values"] for config in state.searches[0][2]] for state in (before, after))
        assert all(values in later for values in earlier)
        assert (len(earlier), len(later)) == (2, 3)


def test_a_smaller_budget_chooses_among_as_many_as_it_would_alone(store, plain):
    """Whatever lies on file: a sweep gives what it gives after any other, and all contenders have equally many."""
    run_sweep(make_config(store, budget=3), RecordingSearch())
    backend = RecordingSearch()
    _, result = run_sweep(make_config(store), backend)
    assert backend.configs == []
    tried, alone = (
        [[config["values"] for config in state.searches[0][2]] for state in either.states]
        for either in (result, plain[1])
    )
    assert tried == alone


def test_a_grid_is_its_own_points_after_random_attempts_and_after_a_smaller_grid(store, plain):
    del plain  # random attempts are on file
    more = {"algorithms": ("gradient-ascent",), "seeds": 1, "sampler": "grid", "set": ("gradient-ascent.epochs=1",)}
    lrs = []
    for budget in (4, 7):
        _, result = run_sweep(make_config(store, budget=budget, **more), RecordingSearch())
        lrs.append(sorted(config["values"]["lr"] for config in result.states[0].searches[0][2]))
    for budget, config_lrs in zip((4, 7), lrs, strict=True):
        even = np.diff(np.log([lr for lr in config_lrs if lr != DEFAULT]))
        assert len(config_lrs) == budget
        np.testing.assert_allclose(even, even[0])


def test_random_attempts_serve_both_selections(plain):
    _, result, backend = plain
    assert Counter(len(call) for call in backend.searches) == {2: 1}  # an errand an algorithm
    oracle, blind = (state for state in result.states if state.method.name == "finetune")
    assert oracle.searches == blind.searches


def test_a_sampler_that_learns_hunts_once_for_each_selection(store):
    backend = RecordingSearch()
    _, result = run_sweep(make_config(store, sampler="tpe", algorithms=("neggrad-plus",)), backend)
    assert sorted(config.job.guide for config in backend.searches[0]) == ["blind", "oracle"]
    by_select = {state.select: {config["values"]["lr"] for config in state.searches[0][2]} for state in result.states}
    assert len(backend.configs) == 4
    assert by_select["oracle"] == by_select["blind"]  # until the sampler has learnt, both try the same


def test_given_parameters_leave_the_space_and_stay_as_given(store, plain):
    _, _, backend = plain
    assert {config.job.trials[0].algorithm: set(config.space) for config in backend.searches[0]} == {
        "finetune": {"lr"},
        "neggrad-plus": {"lr", "beta"},
    }
    config = make_config(store, algorithms=("neggrad-plus",), set=("neggrad-plus.epochs=1", "neggrad-plus.lr=0.02"))
    _, result = run_sweep(config, backend := RecordingSearch(), seeds=1)
    assert [set(config.space) for config in backend.searches[0]] == [{"beta"}]
    configs = [json.loads(row["config"]) for row in select_rows(result.judged_rows, contender="neggrad-plus")]
    assert {(config["epochs"], config["lr"]) for config in configs} == {(1, 0.02)}


def test_defaults_alone_are_one_attempt_and_the_tuned_ones_stay_apart(store, plain):
    backend = RecordingSearch()
    _, result = run_sweep(make_config(store), backend, tuning="defaults", budget=1)
    assert [values for _, values in backend.configs] == [{}, {}]
    assert all(state.steps[0][1] == (("epochs", 1),) for state in result.states)


def test_a_failed_attempt_is_a_line_and_is_made_again(store):
    config = make_config(store, size=9, algorithms=("finetune",), seeds=1)

    class Unlucky(RecordingSearch):
        def search(self, fn, searches, shared, on_result, **more):
            def fail_once(job, values, shared):
                if values["lr"] != searches[0].initial[0]["lr"]:
                    raise OSError("out of luck")
                return fn(job, values, shared)

            super().search(fail_once, searches, shared, on_result, **more)

    _, result = run_sweep(config, Unlucky())
    assert [line.endswith("failed: OSError: out of luck") for line in result.failed] == [True]
    assert [len(state.searches[0][2]) for state in result.states] == [1, 1]
    backend = RecordingSearch()
    _, repaired = run_sweep(config, backend)
    assert (repaired.failed, len(backend.configs)) == ([], 1)


def test_a_contender_whose_attempts_all_fail_ends_and_the_other_goes_on(store):
    class Broken(RecordingSearch):
        def search(self, fn, searches, shared, on_result, **more):
            def always_fail(job, values, shared):
                if job.trials[0].algorithm == "finetune":
                    raise OSError("out of luck")
                return fn(job, values, shared)

            super().search(always_fail, searches, shared, on_result, **more)

    _, result = run_sweep(make_config(store, size=8, seeds=1), Broken())
    assert {state.method.name: state.end_reason for state in result.states} == {
        "finetune": "every configuration at step 1 failed",
        "neggrad-plus": "",
    }
    assert {row["contender"] for row in result.judged_rows} == {"oracle", "original", "neggrad-plus"}


def test_an_end_of_a_space_is_not_named_where_all_attempts_are_alike(store, monkeypatch):
    monkeypatch.setattr("unlearn.tuning.runner.find_boundary_params", lambda search, values: ["lr"])
    fixed = ("gradient-ascent.epochs=1", "gradient-ascent.batch=256")
    more = {"forget": "class:9", "set": fixed, "seeds": 1, "select": "oracle"}
    _, result = run_sweep(make_config(store, algorithms=("gradient-ascent",), **more))
    [state] = result.states
    assert {config["tow"] for config in state.searches[0][2]} == {
        0
    }  # it moves nothing, and a class that stays is all wrong
    assert state.at_boundary == []


def test_an_end_of_a_space_is_named_with_its_step_only_where_there_are_several(store, monkeypatch):
    monkeypatch.setattr("unlearn.tuning.runner.find_boundary_params", lambda search, values: ["lr"])
    config = make_config(
        store, forget=UNION, algorithms=("finetune",), variants=("vanilla", "rum"), scores=(SCORE,), parts=2, budget=1
    )
    _, result = run_sweep(config)
    assert {state.method.variant: state.at_boundary for state in result.states} == {
        "vanilla": ["finetune.lr"],
        f"rum {SCORE}": ["1.finetune.lr", "2.finetune.lr"],
    }


def test_judged_trials_on_file_are_not_run_again(store, plain):
    pool = InOrder()
    sweep = prepare_sweep(make_config(store))
    np.testing.assert_equal(sweep.run(pool, RecordingSearch(), "cpu").judged_rows, plain[1].judged_rows)
    assert pool.jobs == []


def test_an_attempt_whose_trial_was_set_aside_is_made_again(store, plain):
    _, result, _ = plain
    lost = result.states[0].chosen[0]
    [removed] = lost["trials"]
    sweep = prepare_sweep(make_config(store, budget=3))  # another test's attempt is on file
    before = read_trial(sweep.context.store, removed)
    sweep.context.store.folder.remove(f"trials/{removed}.parquet")
    backend = RecordingSearch()
    again = sweep.run(InOrder(), backend, "cpu")
    assert lost["values"] in [values for _, values in backend.configs]
    assert read_trial(sweep.context.store, removed)["tow_validation"] == before["tow_validation"]
    assert {row["trial"] for row in result.tuning_rows} <= {row["trial"] for row in again.tuning_rows}
