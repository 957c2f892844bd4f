"""Trials that are sequences: their names, their beginnings that are kept, their cost; and rounds of RSU."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest

from memscore.pipeline.config import BankConfig
from memscore.pipeline.runner import estimate
from memscore.store.trial_files import read_cost, read_predictions
from memscore.store.verify import verify
from tests.fixtures.opened import open_bank
from tests.memscore.pipeline.test_jobs import InOrder
from unlearn.meta.rsu import RsuSchedule
from unlearn.oracles import build_reference_jobs, build_trial_data, train_reference_models
from unlearn.trials.config import Step, TrialConfig, model_key, name_steps, resolve_in_store, trial_key
from unlearn.trials.runner import run_trial, write_model

PLAN = BankConfig(
    data="digits", train_limit=200, validation=0.2, epochs=6, batch=20, design="exact", block=8, models=16
)
PARTS = tuple(range(0, 20, 2)), tuple(range(1, 21, 2)), tuple(range(30, 40))
ALL = tuple(sorted({row for part in PARTS for row in part}))
QUICK = (("batch", 20), ("epochs", 1))


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    opened = open_bank(replace(PLAN, store=str(tmp_path_factory.mktemp("lab") / "store")))
    estimate(opened, InOrder())
    trial_data = build_trial_data(opened.splits, opened.store.manifest.seed)
    train_reference_models(
        opened.store, build_reference_jobs(opened.store, [ALL, PARTS[0]], [0], "cpu"), trial_data, InOrder()
    )
    return opened.store, trial_data


def sequence(store, *names, **more):
    before = tuple(
        Step(algorithm=name, params=QUICK * (name != "original"), rows=part)
        for name, part in zip(names[:-1], PARTS, strict=False)
    )
    last = {"algorithm": names[-1], "params": QUICK, "part": PARTS[len(names) - 1]}
    return TrialConfig(store=store.url, forget_set="parts", forget=ALL, before=before, **last | more)


def same(first, second):
    bare = [{k: v for k, v in row.items() if "wall" not in k} for row in (first, second)]
    np.testing.assert_equal(*bare)


def test_names_of_trials_that_are_no_sequences_have_not_changed(bank):
    """Rows that are on file stay valid: what is new is in a name only where it is used."""
    store, _ = bank
    plain = TrialConfig(store=store.url, algorithm="finetune", forget_set="mine", forget=(1, 2, 3))
    named = trial_key(store, plain)
    assert (
        trial_key(store, replace(plain, save_model=True, save_checkpoints=True, variant="rum", forget_set="other"))
        == named
    )
    others = [
        replace(plain, before=(Step(algorithm="original", rows=(1,)),), part=(2, 3)),
        replace(plain, rounds=RsuSchedule(n=2)),
        replace(plain, judged=(1,)),
    ]
    assert len({named, *(trial_key(store, other) for other in others)}) == 4


def test_a_kept_beginning_changes_no_bit_and_no_cost(bank):
    store, trial_data = bank
    trial = sequence(store, "finetune", "neggrad-plus", "finetune")
    whole = run_trial(trial, trial_data)
    store.folder.remove(f"trials/{whole['trial']}.parquet")
    run_trial(replace(trial, save_checkpoints=True), trial_data)
    assert read_cost(store, model_key(store, trial.truncate(1)))["examples"] == 190
    assert read_cost(store, model_key(store, trial.truncate(2)))["status"] == "ok"
    assert read_cost(store, model_key(store, trial)) is None
    store.folder.remove(f"trials/{whole['trial']}.parquet")
    resumed = run_trial(trial, trial_data)
    same(whole, resumed)
    assert 0 < resumed["run_wall_s"] < resumed["wall_s"]  # the beginning was read
    assert whole["run_wall_s"] == whole["wall_s"]
    neggrad_plus = 180 + 9 * 10  # it reads the ten that go at each of its nine steps
    assert whole["examples"] == 190 + neggrad_plus + 170
    assert whole["plan"] == "finetune>neggrad-plus>finetune"
    assert [step["n_forget"] for step in json.loads(whole["before"])] == [10, 10]
    assert not verify(store).damaged


def test_a_beginning_is_a_trial_of_its_own_on_what_it_has_forgotten(bank):
    store, trial_data = bank
    trial = sequence(store, "finetune", "neggrad-plus", "finetune").truncate(1)
    assert trial.forget == PARTS[0]
    assert trial.before == trial.part == ()
    row = run_trial(replace(trial, save_model=True), trial_data)
    assert row["n_forget"] == 10
    assert read_predictions(store, row["trial"])["gap"].shape == (trial_data.labels.shape[0],)


def test_to_put_a_beginning_on_file_is_no_part_of_what_algorithms_cost(bank, monkeypatch):
    store, trial_data = bank

    clock, hours = time.perf_counter, []

    def slow(*args):
        hours.append(3600)
        write_model(*args)

    monkeypatch.setattr("unlearn.trials.runner.write_model", slow)
    monkeypatch.setattr("unlearn.trials.runner.time.perf_counter", lambda: clock() + sum(hours))
    steps = sequence(store, "finetune", "gradient-ascent", "finetune")
    row = run_trial(replace(steps, seed=7, save_checkpoints=True), trial_data)
    assert len(hours) == 2
    assert row["wall_s"] < 3600


def test_doing_nothing_first_costs_nothing(bank):
    store, trial_data = bank
    row = run_trial(sequence(store, "original", "original", "finetune"), trial_data)
    assert row["examples"] == 170


def test_rounds_repeat_the_algorithm_over_growing_parts(bank):
    store, trial_data = bank
    plain = TrialConfig(
        store=store.url, algorithm="gradient-ascent", params=QUICK, forget_set="parts", forget=ALL, judged=PARTS[0]
    )
    row = run_trial(replace(plain, rounds=RsuSchedule(n=3), variant="rsu"), trial_data)
    assert row["examples"] == 30 + 10 + 20 + 30  # the losses, then each round
    assert row["n_forget"] == len(PARTS[0])
    thrice = (("batch", 20), ("epochs", 3))
    shared = run_trial(replace(plain, params=thrice, rounds=RsuSchedule(n=3)), trial_data)
    whole = run_trial(replace(plain, params=thrice, rounds=RsuSchedule(n=3, epochs="whole")), trial_data)
    assert (shared["examples"], whole["examples"]) == (90, 30 + 3 * 60)
    assert json.loads(row["rounds"])["schedule"] == "nested"
    once = run_trial(replace(plain, rounds=RsuSchedule(n=1)), trial_data)
    same(
        {k: v for k, v in once.items() if k not in ("trial", "rounds")},
        {k: v for k, v in run_trial(plain, trial_data).items() if k not in ("trial", "rounds")},
    )


def test_each_part_has_numbers_for_its_own_size_and_rounds_those_of_their_part(bank):
    store, trial_data = bank
    free = {"params": (), "algorithm": "gradient-ascent"}
    one, three = (
        sequence(store, *names, **free) for names in (("original",), ("original", "original", "gradient-ascent"))
    )
    one = replace(one, part=())
    assert [resolve_in_store(store, trial)[-1].batch for trial in (one, three)] == [3, 1]  # of 30 examples, of 10
    row = run_trial(replace(one, rounds=RsuSchedule(n=3)), trial_data)
    assert json.loads(row["config"])["epochs"] == 10
    # ceil(10 / 3) epochs of 10, 20 and 30 examples in batches of 3
    assert row["steps"] == 4 * (4 + 7 + 10)
    assert row["examples"] == 30 + 4 * 60


def test_steps_are_those_of_the_whole_sequence_also_where_it_resumes(bank):
    store, trial_data = bank
    whole = sequence(store, "finetune", "gradient-ascent", save_checkpoints=True)
    rows = [run_trial(replace(whole, seed=5, measures=measures), trial_data) for measures in ((), ("klom",))]
    n_retain = store.manifest.split_sizes[0] - len(PARTS[0])
    assert [row["steps"] for row in rows] == [-(-n_retain // 20) + 1] * 2
    assert rows[1]["run_wall_s"] <= rows[1]["wall_s"]


def test_a_sequence_one_of_whose_steps_diverges_is_a_diverged_row(bank):
    store, trial_data = bank
    wild = Step(algorithm="gradient-ascent", params=(("lr", 1e30),), rows=PARTS[0])
    row = run_trial(replace(sequence(store, "finetune", "finetune"), before=(wild,), part=PARTS[1]), trial_data)
    assert row["status"] == "diverged"
    assert np.isnan(row["tow_test"])


def test_finite_weights_whose_outputs_are_not_are_a_diverged_row(bank):
    """One step so long that the weights are still numbers, and sums of their products are not."""
    store, trial_data = bank
    wild = TrialConfig(
        store=store.url,
        algorithm="gradient-ascent",
        params=(("epochs", 1), ("lr", 1e30)),
        forget_set="parts",
        forget=ALL,
    )
    row = run_trial(wild, trial_data)
    assert row["status"] == "diverged"
    assert np.isnan(row["tow_test"])


def test_gaps_to_an_oracle_are_those_of_the_set_that_is_judged(bank):
    """One oracle is asked of several sets, in one process: what it says of one is not taken for another."""
    store, trial_data = bank
    common = {"store": store.url, "algorithm": "original", "forget_set": "parts", "forget": ALL}
    trials = [TrialConfig(**common, judged=judged) for judged in ((), PARTS[0], PARTS[2])]
    oracles = [replace(trial, algorithm="oracle") for trial in trials]
    rows = [[run_trial(trial, trial_data) for trial in group] for group in (trials, oracles)]
    accuracies = [oracle["forget_accuracy"] for oracle in rows[1]]
    assert len(set(accuracies)) > 1
    for row, oracle in zip(*rows, strict=True):
        assert oracle["forget_accuracy_gap"] == 0
        assert row["forget_accuracy_gap"] == abs(row["forget_accuracy"] - oracle["forget_accuracy"])


def test_steps_have_the_names_of_plans():
    """Nothing is done to a part of a plan; theta_o itself is the original."""
    part = TrialConfig(store="s", algorithm="original", forget_set="f", forget=(1, 2, 5), part=(1,))
    assert name_steps(part) == "nothing"
    assert name_steps(replace(part, part=())) == "original"
    second = replace(part, algorithm="finetune", part=(2, 5), before=(Step(algorithm="original", rows=(1,)),))
    assert name_steps(second) == "nothing>finetune"
