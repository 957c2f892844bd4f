"""Whole sweeps on a small bank: what is tuned on what, and what is judged on what."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from memscore.pipeline.jobs import OriginalJob, compute_job_key
from memscore.store.store import Store
from tests.fixtures.sweeps import SCORE, RecordingSearch, make_config, run_sweep
from tests.memscore.pipeline.test_jobs import InOrder
from unlearn.algorithms.gradient_ascent import GradientAscentConfig
from unlearn.trials.config import ORIGINAL
from unlearn.tuning.prepare import prepare_sweep
from unlearn.tuning.results import select_rows

UNION = f"{SCORE}:union"
DEFAULT = GradientAscentConfig().lr


@pytest.fixture(scope="module")
def refined(store):
    """RUM in two parts, beside vanilla."""
    backend = RecordingSearch()
    config = make_config(store, forget=UNION, variants=("vanilla", "rum"), scores=(SCORE,), parts=2)
    return *run_sweep(config, backend), backend


def test_each_original_has_a_shuffle_of_its_own(store):
    config = make_config(
        store, forget=UNION, variants=("shuffle",), parts=2, algorithms=("neggrad-plus",), dynamics=True
    )
    _, result = run_sweep(config)
    first = [row for row in result.judged_rows if row["level"] == 1]
    assert len({row["index"] for row in first}) == len({row["forget_sha256"] for row in first}) == 2


def test_a_set_that_is_both_tuned_and_reported_has_the_oracles_of_both(store):
    """Measured after each step, where parameters were not sought step by step: early steps have their oracles too."""
    more = {"variants": ("rum",), "scores": (SCORE,), "parts": 2, "tune_forget": "same", "tuning": "defaults"}
    config = make_config(store, forget=UNION, algorithms=("neggrad-plus",), budget=1, dynamics=True, **more)
    _, result = run_sweep(config)
    assert result.failed == []
    assert Counter(row["level"] for row in select_rows(result.judged_rows, contender="neggrad-plus")) == {1: 4, 2: 4}


def test_what_is_reported_had_no_part_in_the_choice(plain):
    _, result, _ = plain
    assert not set(result.tuning_sets[0].rows) & set(result.judged_set.rows)
    assert len(result.tuning_sets[0].rows) == len(result.judged_set.rows) == 12
    tuned, judged = ({row["index"] for row in rows} for rows in (result.tuning_rows, result.judged_rows))
    assert (tuned, judged) == ({0}, {1, 2})
    assert {row["n_forget"] for row in result.judged_rows} == {12}
    assert len({row["forget_sha256"] for row in result.judged_rows}) == 1
    assert {row["forget_sha256"] for row in result.tuning_rows}.isdisjoint({
        row["forget_sha256"] for row in result.judged_rows
    })


def test_the_reported_set_may_be_asked_for(store):
    sweep = prepare_sweep(make_config(store, tune_forget="same"))
    result = sweep.run(InOrder(), RecordingSearch(), "cpu")
    assert result.tuning_sets[0].rows == result.judged_set.rows
    assert {row["index"] for row in result.tuning_rows}.isdisjoint({row["index"] for row in result.judged_rows})


def test_a_class_is_chosen_on_the_next_one(store):
    sweep, result = run_sweep(make_config(store, forget="class:9", algorithms=("neggrad-plus",), seeds=1))
    labels = sweep.context.splits.train.labels
    assert set(labels[list(result.judged_set.rows)]) == {9}
    assert set(labels[list(result.tuning_sets[0].rows)]) == {0}


def test_how_unlike_the_two_forget_sets_are_is_said(refined, plain):
    sweep, result, _ = refined
    ids, values = sweep.context.store.score(SCORE)
    by_id = dict(zip(ids.tolist(), values.tolist(), strict=True))
    tuned, judged = (
        np.mean([by_id[sweep.context.splits.train.ids[row]] for row in one.rows])
        for one in (*result.tuning_sets, result.judged_set)
    )
    said = f"mean {SCORE}: {tuned:.3f} of what parameters are chosen on, {judged:.3f} of what is reported"
    assert result.notes[0] == said
    assert plain[1].notes[0].startswith("one tuning")  # a random set


def test_rum_with_one_part_is_vanilla_with_another_name(store):
    config = make_config(store, forget=UNION, variants=("vanilla", "rum"), scores=(SCORE,), parts=1)
    _, result = run_sweep(config, algorithms=("neggrad-plus",), set=("neggrad-plus.epochs=1",))
    vanilla, rum = (
        [row for row in result.judged_rows if row["contender"] == "neggrad-plus" and row["variant"] == variant]
        for variant in ("vanilla", f"rum {SCORE}")
    )
    assert len(vanilla) == len(rum) == 4
    bare = [[{k: v for k, v in row.items() if k != "variant"} for row in rows] for rows in (vanilla, rum)]
    np.testing.assert_equal(bare[0], bare[1])


def test_each_step_is_tuned_on_what_is_forgotten_by_then(refined):
    """Against the oracle of parts 1 to i; the rest is still retained."""
    sweep, result, backend = refined
    values = dict(zip(*(side.tolist() for side in sweep.context.store.score(SCORE)), strict=True))
    ids = sweep.context.splits.train.ids
    low_first = sorted(result.tuning_sets[0].rows, key=lambda row: (values[ids[row]], row))
    first, second = tuple(sorted(low_first[:6])), tuple(sorted(low_first[6:]))
    calls = [[one.job.trials[0] for one in call] for call in backend.searches]
    assert len(calls) == 2
    stepwise = [trial for trial in calls[0] if len(trial.forget) == 6]
    assert len(stepwise) == 2
    assert all((trial.forget, trial.before, trial.part) == (first, (), ()) for trial in stepwise)
    assert {len(trial.forget) for trial in calls[0]} == {6, 12}  # vanilla's among them
    for trial in calls[1]:
        assert trial.forget == result.tuning_sets[0].rows
        assert trial.part == second
        assert [step.rows for step in trial.before] == [first]
    for rows in (first, result.tuning_sets[0].rows):
        oracle = compute_job_key(sweep.context.store, OriginalJob(store=sweep.context.store.url, index=0, removed=rows))
        assert sweep.context.store.has_outputs(oracle)
    for state in (state for state in result.states if state.method.levels == 2):
        for trial in (row for row in result.tuning_rows if row["level"] == 2 and row["contender"] == state.method.name):
            assert trial["plan"] == f"{state.method.name}>{state.method.name}"


def test_parts_of_the_judged_set_are_its_own(refined):
    _, result, _ = refined
    rum = select_rows(result.judged_rows, variant=f"rum {SCORE}")
    assert rum
    assert {row["n_forget"] for row in rum} == {12}
    assert {json.loads(row["before"])[0]["n_forget"] for row in rum} == {6}


def test_judged_parameters_are_those_that_were_chosen(refined):
    _, result, _ = refined
    for state in result.states:
        rows = select_rows(
            result.judged_rows, contender=state.method.name, variant=state.method.variant, select=state.select
        )
        assert len(rows) == 2
        for row in rows:
            configs = [*(step["config"] for step in json.loads(row["before"])), json.loads(row["config"])]
            for config, (_, params) in zip(configs, state.steps, strict=True):
                assert {name: config[name] for name, _ in params} == dict(params)


def test_dynamics_measure_every_beginning_against_its_own_oracle(store):
    config = make_config(store, forget=UNION, variants=("rum",), scores=(SCORE,), parts=2, dynamics=True, seeds=1)
    _, result = run_sweep(config, algorithms=("neggrad-plus",), set=("neggrad-plus.epochs=1",), select="oracle")
    rows = select_rows(result.judged_rows, contender="neggrad-plus")
    assert [(row["level"], row["levels"], row["n_forget"]) for row in rows] == [(1, 2, 6), (2, 2, 12)]


def test_automatic_rum_takes_the_best_candidate_at_each_step(store):
    config = make_config(store, forget=UNION, variants=("auto",), scores=(SCORE,), parts=2, seeds=1)
    _, result = run_sweep(config)
    assert len(result.states) == 2
    for state in result.states:
        column = "tow" if state.select == "oracle" else "blind"
        for level, (name, params) in enumerate(state.steps):
            candidates = {own: attempts for at, own, attempts in state.searches if at == level}
            assert set(candidates) == {ORIGINAL, "finetune", "neggrad-plus"}
            assert {own: len(attempts) for own, attempts in candidates.items()} == {
                ORIGINAL: 1,
                "finetune": 2,
                "neggrad-plus": 2,
            }
            best = max(one[column] for attempts in candidates.values() for one in attempts)
            mine = [one for one in candidates[name] if one["values"].items() <= dict(params).items()]
            assert [one[column] for one in mine] == [best]
        [row] = select_rows(result.judged_rows, contender="automatic", select=state.select)
        assert row["plan"] == ">".join(name for name, _ in state.steps)
        assert state.cost["attempts"] == 10


def test_joint_tuning_seeks_all_steps_at_once(store):
    config = make_config(store, forget=UNION, plans=("finetune>neggrad-plus",), scores=(SCORE,), parts=2, seeds=1)
    backend = RecordingSearch()
    _, result = run_sweep(config, backend, algorithms=(), tuning="joint")
    [[errand]] = backend.searches
    assert set(errand.space) == {"1.lr", "2.lr", "2.beta"}
    assert [name for name, _ in result.states[0].steps] == ["finetune", "neggrad-plus"]
    values = result.states[0].chosen[0]["values"]
    steps = [dict(params) for _, params in result.states[0].steps]
    assert (steps[0]["lr"], steps[1]["lr"], steps[1]["beta"]) == tuple(values[n] for n in ("1.lr", "2.lr", "2.beta"))


def test_rsu_and_its_reverse_are_tuned_apart(store):
    backend = RecordingSearch()
    config = make_config(store, algorithms=("neggrad-plus",), variants=("rsu", "rsu-reversed"), rounds=3, seeds=1)
    _, result = run_sweep(config, backend)
    assert [one.job.trials[0].rounds.order for one in backend.searches[0]] == ["ascending", "descending"]
    rows = select_rows(result.judged_rows, contender="neggrad-plus", select="oracle")
    assert [json.loads(row["rounds"])["order"] for row in rows] == ["ascending", "descending"]


def write_score(store, name, values):
    """Write a score of which low is risky; training examples are the first."""
    bank = Store.open(store)
    every = np.zeros(sum(bank.manifest.split_sizes))
    every[: len(values)] = values
    bank.write_score(name, {name: every}, {name: {"source": "made", "unit": "1", "direction": -1}}, {}, "made")


def test_rsu_by_a_score_ranks_both_forget_sets_by_their_own_values_and_is_apart_from_the_loss(store):
    write_score(store, "made", np.arange(200.0))
    backend = RecordingSearch()
    config = make_config(store, algorithms=("neggrad-plus",), variants=("rsu",), rounds=3, seeds=1, select="oracle")
    _, by_loss = run_sweep(config)
    sweep, result = run_sweep(config, backend, risk="made")
    [tuned] = backend.searches[0][0].job.trials
    assert tuned.rounds.risk == tuple(-float(row) for row in result.tuning_sets[0].rows)
    [row] = select_rows(result.judged_rows, contender="neggrad-plus")
    assert row["variant"] == "rsu made"
    assert json.loads(row["rounds"])["risk"] == [-float(row) for row in result.judged_set.rows]
    assert row["trial"] not in {one["trial"] for one in by_loss.judged_rows}
    assert sweep.config.folder_name != config.folder_name
    assert "risk" not in config.identity
    assert prepare_sweep(replace(config, risk="made", forget="class:3", rounds=1, unit="class"))


def test_a_risk_without_its_keep_fraction_is_the_stored_score_and_the_same_sweep(store):
    config = make_config(store, algorithms=("neggrad-plus",), variants=("rsu",), rounds=3, budget=1)
    write_score(store, "soft_success_k0.500", np.arange(200.0))
    short, full = (prepare_sweep(replace(config, risk=f"soft_success{end}")) for end in ("", "_k0.500"))
    assert short.config.identity == full.config.identity
    assert short.config.risk == "soft_success_k0.500"
    [method] = short.methods
    assert method.variant == "rsu soft_success_k0.500"
    write_score(store, "soft_success_k0.700", np.arange(200.0))
    with pytest.raises(ValueError, match=r"--risk soft_success is stored for 2 arms; name one of .*_k0.500, .*_k0.700"):
        prepare_sweep(replace(config, risk="soft_success"))
    with pytest.raises(ValueError, match="unknown score 'soft_failure'"):
        prepare_sweep(replace(config, risk="soft_failure"))


def test_a_risk_that_is_undefined_for_an_example_of_either_forget_set_is_refused(store):
    config = make_config(store, algorithms=("neggrad-plus",), variants=("rsu",), rounds=3, risk="holed")
    write_score(store, "holed", np.zeros(200))
    assert prepare_sweep(config)
    _, result = run_sweep(replace(config, risk=None, budget=1, seeds=1))
    for forget in (*result.tuning_sets, result.judged_set):
        values = np.zeros(200)
        values[forget.rows[5]] = np.nan
        write_score(store, "holed", values)
        with pytest.raises(ValueError, match="--risk holed is undefined for 1 of the 12 examples to forget"):
            prepare_sweep(config)


def test_several_classes_are_chosen_on_as_many_others_and_rsu_admits_them_whole(store):
    labels = prepare_sweep(make_config(store)).context.splits.train.labels
    write_score(store, "label", labels)  # of which low is risky: class 8 goes first
    config = make_config(
        store, forget="class:1,8,7", algorithms=("gradient-ascent",), set=("gradient-ascent.epochs=1",)
    )
    config = replace(
        config, variants=("rsu",), unit="class", rounds=3, risk="label", budget=1, seeds=1, select="oracle"
    )
    _, result = run_sweep(config)
    assert set(labels[list(result.judged_set.rows)]) == {1, 7, 8}
    assert set(labels[list(result.tuning_sets[0].rows)]) == {9, 0, 2}
    assert result.tuning_sets[0].by_class
    [row] = select_rows(result.judged_rows, contender="gradient-ascent")
    first, second = (int(np.sum(np.isin(labels, admitted))) for admitted in ([8], [8, 7]))
    whole = len(result.judged_set.rows)
    assert len({first, second - first, whole - second}) > 1
    assert row["examples"] == first + second + whole  # three rounds; a risk that is given costs nothing to read


def test_algorithms_that_draw_labels_are_judged_on_twice_as_many(store):
    config = make_config(
        store, algorithms=("finetune", "random-label"), set=("finetune.epochs=1", "random-label.epochs=1")
    )
    _, result = run_sweep(config, seeds=1, budget=1)
    counts = Counter((row["contender"], row["select"]) for row in result.judged_rows)
    assert {key: n for key, n in counts.items() if key[1] != "blind"} == {
        ("oracle", ""): 2,
        ("original", ""): 2,
        ("finetune", "oracle"): 1,
        ("random-label", "oracle"): 2,
    }


def test_that_scores_are_of_the_data_before_a_forget_set_changed_them_is_said(store):
    config = make_config(store, forget="canaries", size=20, algorithms=("finetune",), budget=1, seeds=1)
    _, plain = run_sweep(config)
    _, refined = run_sweep(config, variants=("rum",), scores=(SCORE,))
    said = "canaries of 20 changes the data, and the scores that refine it are those of the data as they were"
    assert said not in plain.notes
    assert said in refined.notes
    _, ranked = run_sweep(config, variants=("rsu",), rounds=2, risk=SCORE)
    assert said.replace("refine", "rank") in ranked.notes
