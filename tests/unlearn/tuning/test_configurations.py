"""Attempts of sweeps: which are made, which are found on file, and what each choice is among."""

import json
from collections import Counter

import numpy as np

from tests.fixtures.sweeps import SCORE, RecordingSearch, make_config, read_files, run_sweep
from tests.memscore.pipeline.test_jobs import InOrder
from unlearn.algorithms.gradient_ascent import GradientAscentConfig
from unlearn.tuning.config import prepare_sweep
from unlearn.tuning.results import select_rows

UNION = f"{SCORE}:union"
DEFAULT = GradientAscentConfig().lr


def test_a_second_run_attempts_nothing_and_leaves_the_same_bytes(store, plain):
    asked, found, first = plain
    assert len(first.attempts) == 4
    before = read_files(store, asked)
    asked.asked.store.folder.remove(f"{asked.path}/trials.parquet")
    asked.asked.store.folder.remove(f"{asked.path}/chosen.json")
    noted = RecordingSearch()
    again, same = run_sweep(make_config(store), noted)
    assert noted.errands == noted.attempts == []
    assert read_files(store, again) == before
    np.testing.assert_equal(same.judged, found.judged)


def test_a_larger_budget_attempts_what_is_missing(store, plain):
    _, found, first = plain
    noted = RecordingSearch()
    _, more = run_sweep(make_config(store, budget=3), noted)
    assert len(noted.attempts) == 2
    assert not any(one in first.attempts for one in noted.attempts)
    for before, after in zip(found.paths, more.paths, strict=True):
        earlier, later = ([one["values"] for one in path.hunts[0][2]] for path in (before, after))
        assert all(values in later for values in earlier)
        assert (len(earlier), len(later)) == (2, 3)


def test_a_smaller_budget_chooses_among_as_many_as_it_would_alone(store, plain):
    """Whatever lies on file: a sweep gives what it gives after any other, and all contenders have equally many."""
    run_sweep(make_config(store, budget=3), RecordingSearch())
    noted = RecordingSearch()
    _, found = run_sweep(make_config(store), noted)
    assert noted.attempts == []
    tried, alone = (
        [[one["values"] for one in path.hunts[0][2]] for path in either.paths] for either in (found, plain[1])
    )
    assert tried == alone


def test_a_grid_is_its_own_points_after_random_attempts_and_after_a_smaller_grid(store, plain):
    del plain  # random attempts are on file
    more = {"algorithms": ("gradient-ascent",), "seeds": 1, "sampler": "grid", "set": ("gradient-ascent.epochs=1",)}
    rates = []
    for budget in (4, 7):
        _, found = run_sweep(make_config(store, budget=budget, **more), RecordingSearch())
        rates.append(sorted(one["values"]["lr"] for one in found.paths[0].hunts[0][2]))
    for budget, own in zip((4, 7), rates, strict=True):
        even = np.diff(np.log([lr for lr in own if lr != DEFAULT]))
        assert len(own) == budget
        np.testing.assert_allclose(even, even[0])


def test_random_attempts_serve_both_selections(plain):
    _, found, noted = plain
    assert Counter(len(call) for call in noted.errands) == {2: 1}  # an errand an algorithm
    oracle, blind = (path for path in found.paths if path.contender.name == "finetune")
    assert oracle.hunts == blind.hunts


def test_a_sampler_that_learns_hunts_once_for_each_selection(store):
    noted = RecordingSearch()
    _, found = run_sweep(make_config(store, sampler="tpe", algorithms=("neggrad-plus",)), noted)
    assert sorted(one.job.guide for one in noted.errands[0]) == ["blind", "oracle"]
    by_select = {path.select: {one["values"]["lr"] for one in path.hunts[0][2]} for path in found.paths}
    assert len(noted.attempts) == 4
    assert by_select["oracle"] != by_select["blind"]  # beside the defaults, which are first in both
    assert by_select["oracle"] & by_select["blind"]


def test_given_parameters_leave_the_space_and_stay_as_given(store, plain):
    _, _, noted = plain
    assert {one.job.trials[0].algorithm: set(one.space) for one in noted.errands[0]} == {
        "finetune": {"lr"},
        "neggrad-plus": {"lr", "beta"},
    }
    plan = make_config(store, algorithms=("neggrad-plus",), set=("neggrad-plus.epochs=1", "neggrad-plus.lr=0.02"))
    _, found = run_sweep(plan, noted := RecordingSearch(), seeds=1)
    assert [set(one.space) for one in noted.errands[0]] == [{"beta"}]
    configs = [json.loads(row["config"]) for row in select_rows(found.judged, contender="neggrad-plus")]
    assert {(config["epochs"], config["lr"]) for config in configs} == {(1, 0.02)}


def test_defaults_alone_are_one_attempt_and_the_tuned_ones_stay_apart(store, plain):
    noted = RecordingSearch()
    _, found = run_sweep(make_config(store), noted, tuning="defaults", budget=1)
    assert [values for _, values in noted.attempts] == [{}, {}]
    assert all(path.steps[0][1] == (("epochs", 1),) for path in found.paths)


def test_a_failed_attempt_is_a_line_and_is_made_again(store):
    plan = make_config(store, size=9, algorithms=("finetune",), seeds=1)

    class Unlucky(RecordingSearch):
        def search(self, fn, arms, shared, told, **more):
            def once(job, values, shared):
                if values["lr"] != arms[0].first[0]["lr"]:
                    raise OSError("out of luck")
                return fn(job, values, shared)

            super().search(once, arms, shared, told, **more)

    _, found = run_sweep(plan, Unlucky())
    assert [line.endswith("failed: OSError: out of luck") for line in found.failed] == [True]
    assert [len(path.hunts[0][2]) for path in found.paths] == [1, 1]
    noted = RecordingSearch()
    _, mended = run_sweep(plan, noted)
    assert (mended.failed, len(noted.attempts)) == ([], 1)


def test_a_contender_whose_attempts_all_fail_ends_and_the_other_goes_on(store):
    class Broken(RecordingSearch):
        def search(self, fn, arms, shared, told, **more):
            def never(job, values, shared):
                if job.trials[0].algorithm == "finetune":
                    raise OSError("out of luck")
                return fn(job, values, shared)

            super().search(never, arms, shared, told, **more)

    _, found = run_sweep(make_config(store, size=8, seeds=1), Broken())
    assert {path.contender.name: path.over for path in found.paths} == {
        "finetune": "every attempt at step 1 failed",
        "neggrad-plus": "",
    }
    assert {row["contender"] for row in found.judged} == {"oracle", "original", "neggrad-plus"}


def test_an_end_of_a_space_is_not_named_where_all_attempts_are_alike(store, monkeypatch):
    monkeypatch.setattr("unlearn.tuning.runner.find_boundary_params", lambda hunt, values: ["lr"])
    more = {"forget": "class:9", "set": ("gradient-ascent.epochs=1",), "seeds": 1, "select": "oracle"}
    _, found = run_sweep(make_config(store, algorithms=("gradient-ascent",), **more))
    [path] = found.paths
    assert {one["tow"] for one in path.hunts[0][2]} == {0}  # it moves nothing, and a class that stays is all wrong
    assert path.boundary == []


def test_an_end_of_a_space_is_named_with_its_step_only_where_there_are_several(store, monkeypatch):
    monkeypatch.setattr("unlearn.tuning.runner.find_boundary_params", lambda hunt, values: ["lr"])
    plan = make_config(
        store, forget=UNION, algorithms=("finetune",), variants=("vanilla", "rum"), scores=(SCORE,), parts=2, budget=1
    )
    _, found = run_sweep(plan)
    assert {path.contender.variant: path.boundary for path in found.paths} == {
        "vanilla": ["finetune.lr"],
        f"rum {SCORE}": ["1.finetune.lr", "2.finetune.lr"],
    }


def test_judged_trials_on_file_are_not_run_again(store, plain):
    pool = InOrder()
    asked = prepare_sweep(make_config(store))
    np.testing.assert_equal(asked.run(pool, RecordingSearch(), "cpu").judged, plain[1].judged)
    assert pool.jobs == []


def test_an_attempt_whose_trial_was_set_aside_is_made_again(store, plain):
    _, found, _ = plain
    lost = found.paths[0].found[0]
    [gone] = lost["trials"]
    asked = prepare_sweep(make_config(store, budget=3))  # another test's attempt is on file
    before = asked.asked.store.read_trial(gone)
    asked.asked.store.folder.remove(f"trials/{gone}.parquet")
    noted = RecordingSearch()
    again = asked.run(InOrder(), noted, "cpu")
    assert lost["values"] in [values for _, values in noted.attempts]
    assert asked.asked.store.read_trial(gone)["tow_validation"] == before["tow_validation"]
    assert {row["trial"] for row in found.tried} <= {row["trial"] for row in again.tried}
