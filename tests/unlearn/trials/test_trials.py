"""Oracles, trials and the door, on a bank of 32 small models of 200 digits."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from cluster.pool import Failure
from memscore import status
from memscore.monitoring.status import TrialsStatus, compute_bank_status
from memscore.pipeline.config import BankConfig
from memscore.pipeline.jobs import OriginalJob, compute_job_key, run_job
from memscore.pipeline.runner import estimate
from memscore.store.json_records import read_record
from memscore.store.store import Store
from memscore.store.trial_files import list_trials
from memscore.store.verify import verify
from tests.fixtures.opened import open_bank
from tests.memscore.pipeline.test_jobs import InOrder
from unlearn import trial
from unlearn.oracles import build_reference_jobs, build_trial_data, train_reference_models
from unlearn.trials.config import ORACLE, TrialConfig, trial_key
from unlearn.trials.measure import load_population_inputs
from unlearn.trials.prepare import prepare_trials
from unlearn.trials.request import TrialRequest
from unlearn.trials.runner import run_trial
from unlearn.trials.setup import describe_failures, run_trials

PLAN = BankConfig(
    data="digits", train_limit=200, validation=0.2, epochs=6, batch=20, design="exact", block=8, models=16
)
FORGET = tuple(range(0, 60, 3))


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    opened = open_bank(replace(PLAN, store=str(tmp_path_factory.mktemp("lab") / "store")))
    estimate(opened, InOrder())
    return opened


@pytest.fixture(scope="module")
def trial_data(bank):
    return build_trial_data(bank.splits, bank.store.manifest.seed)


@pytest.fixture(scope="module")
def trained_store(bank, trial_data):
    train_reference_models(bank.store, build_reference_jobs(bank.store, [FORGET], [0, 1], "cpu"), trial_data, InOrder())
    return bank.store


def config(store, name="finetune", **more):
    return TrialConfig(store=store.url, algorithm=name, forget_set="mine", forget=FORGET, **more)


def test_validation_is_halved_and_the_test_set_is_apart(bank, trial_data):
    train, validation, test = bank.store.manifest.split_sizes
    assert sorted([*trial_data.validation, *trial_data.selection]) == list(range(train, train + validation))
    assert trial_data.test.tolist() == list(range(train + validation, train + validation + test))
    held_out = [bank.splits.validation.labels_true, bank.splits.test.labels_true]
    assert np.array_equal(trial_data.labels_true[train:], np.concatenate(held_out))


def test_the_oracle_of_an_empty_forget_set_is_the_original_bit_for_bit(bank, trial_data, tmp_path):
    other = open_bank(replace(PLAN, store=str(tmp_path / "other")))
    run_job(OriginalJob(store=other.store.url, index=0, removed=()), trial_data)
    job = OriginalJob(store=bank.store.url, index=0)
    train_reference_models(bank.store, [job], trial_data, InOrder())
    ours, theirs = (store.read_weights(compute_job_key(store, job)) for store in (bank.store, other.store))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_oracles_are_trained_once_and_their_receipts_are_their_own(bank, trial_data, trained_store):
    again = InOrder()
    train_reference_models(
        trained_store, build_reference_jobs(trained_store, [FORGET, FORGET], [0, 1], "cpu"), trial_data, again
    )
    assert again.jobs == []
    receipts = trained_store.receipts()
    oracles = {name: receipt for name, receipt in receipts.items() if name.startswith("oracle-")}
    assert len(oracles) == 2
    assert all(receipt["removed"] == len(FORGET) for receipt in oracles.values())
    assert receipts["original-00000"]["removed"] == 0


def test_the_oracle_has_not_seen_the_forget_set(trained_store, trial_data):
    row = run_trial(config(trained_store, ORACLE), trial_data)
    assert row["tow_test"] == row["tow_validation"] == 1.0
    assert row["da_forget_test"] == 0.0
    assert row["forget_accuracy_gap"] == 0.0
    assert row["retain_accuracy"] > 0.95
    assert row["rrt_examples"] == row["rrt_wall"] == 1.0


def test_the_original_is_at_no_distance_from_itself(trained_store, trial_data):
    row = run_trial(config(trained_store, "original"), trial_data)
    assert row["forget_accuracy_gap_original"] == 0.0
    assert row["examples"] == 0
    assert row["tow_test"] < 1.0


def test_a_row_is_on_file_and_is_not_made_twice(trained_store, trial_data, monkeypatch):
    first = run_trial(config(trained_store), trial_data)
    assert first["trial"] in list_trials(trained_store)
    monkeypatch.setattr("unlearn.trials.runner.apply_algorithms", None)
    np.testing.assert_equal(run_trial(config(trained_store), trial_data), first)
    assert first["examples"] == 2 * (200 - len(FORGET))
    assert first["steps"] == 2 * 9
    assert first["status"] == "ok"
    # a third of the recipe's 6 epochs, in its batch of 20
    assert {"epochs": 2, "batch": 20}.items() <= json.loads(first["config"]).items()
    assert trial_key(trained_store, config(trained_store, params=(("batch", 20), ("epochs", 2)))) == first["trial"]
    assert first["rrt_examples"] > 0


def test_one_trial_one_row_whatever_ran_before(trained_store, trial_data, tmp_path):
    rows = []
    for order in ((0, 1), (1, 0)):
        for index in order:
            row = run_trial(config(trained_store, "neggrad-plus", index=index, seed=7), trial_data)
            rows.append({k: v for k, v in row.items() if "wall" not in k})
        for name in [row["trial"] for row in rows]:
            trained_store.folder.remove(f"trials/{name}.parquet")
    np.testing.assert_equal(sorted(rows[:2], key=lambda r: r["index"]), sorted(rows[2:], key=lambda r: r["index"]))


def test_another_config_is_another_trial(trained_store):
    names = {
        trial_key(trained_store, config(trained_store, **more))
        for more in ({}, {"params": (("lr", 0.05),)}, {"index": 1}, {"seed": 1}, {"measures": ("tow",)})
    }
    assert len(names) == 5
    assert trial_key(trained_store, config(trained_store, params=(("lr", 0.1),))) == trial_key(
        trained_store, config(trained_store)
    )


def test_a_diverged_run_is_a_row_without_measures(trained_store, trial_data):
    row = run_trial(config(trained_store, "gradient-ascent", params=(("lr", 1e30),)), trial_data)
    assert row["status"] == "diverged"
    assert math.isnan(row["tow_test"])
    assert row["examples"] > 0


def test_a_trial_does_not_touch_the_streams_of_its_process(trained_store, trial_data):
    torch.random.manual_seed(5)
    before = torch.random.get_rng_state()
    run_trial(config(trained_store, "finetune", seed=11), trial_data)
    assert torch.equal(torch.random.get_rng_state(), before)


def prepare(store, forget, size, algorithm, **more):
    """Prepare trials of an algorithm."""
    return prepare_trials(TrialRequest(store=store.url, forget=forget, size=size, algorithm=algorithm, **more))


def test_a_request_is_fulfilled_once(bank, trained_store):
    request = TrialRequest(
        store=bank.store.url,
        forget="memorization_k0.500:high",
        size=20,
        algorithm="finetune",
        set=("epochs=1", "lr=0.05"),
        seeds=2,
    )
    found = prepare_trials(request).run(InOrder(), "cpu")
    rows = found.rows
    assert (found.failed, found.population_values) == ([], {})
    assert [(row["algorithm"], row["index"]) for row in rows] == [
        (name, index) for index in (0, 1) for name in ("oracle", "finetune", "original")
    ]
    assert json.loads(rows[1]["config"])["lr"] == 0.05
    again = InOrder()
    assert prepare_trials(request).run(again, "cpu").rows == rows
    assert again.jobs == []


@pytest.mark.parametrize("words", ["canaries", "confusion:1,7"])
def test_changed_data_has_originals_and_oracles_of_its_own(tmp_path, words):
    opened = open_bank(replace(PLAN, train_limit=None, epochs=1, store=str(tmp_path / "store")))
    request = TrialRequest(store=opened.store.url, forget=words, size=40, algorithm="original", seeds=1)
    trials = prepare_trials(request)
    assert len(trials.run(InOrder(), "cpu").rows) == 2
    inner = Store.open(trials.context.store.url)
    assert inner.manifest.fingerprint != opened.store.manifest.fingerprint
    assert opened.store.folder.names("weights") == []
    assert len(inner.folder.names("weights")) == 2
    assert prepare_trials(request).context.store.url == trials.context.store.url


@pytest.mark.parametrize("forget", ["random", "entanglement:high"])
def test_what_is_to_be_trained_is_said_until_it_is_there(tmp_path, forget):
    """Entanglement chooses by an original's embeddings: before there is one, its oracles are counted all the same."""
    opened = open_bank(replace(PLAN, epochs=1, store=str(tmp_path / "store")))
    trials = prepare(opened.store, forget, 10, "original", seeds=2)
    assert trials.describe_missing_models() == "to train first: originals 2, oracles 2 (stored: 0)\n"
    prepare_trials(replace(trials.request, seeds=1)).run(InOrder(), "cpu")
    assert trials.describe_missing_models() == "to train first: originals 1, oracles 1 (stored: 2)\n"
    trials.run(InOrder(), "cpu")
    assert trials.describe_missing_models() == ""


def test_a_failed_trial_does_not_end_the_others(trained_store, trial_data):
    class Failing(InOrder):
        def run(self, fn, jobs, shared=None):
            for job in jobs:
                failure = Failure(error="out of luck")
                yield job, failure if job.index == 0 else fn(job, shared)

    planned = [config(trained_store, "original", index=index, seed=77) for index in (0, 1)]
    rows, failed = run_trials(planned, trial_data, Failing())
    assert [row["index"] for row in rows] == [1]
    assert failed == {planned[0]: "out of luck"}
    assert describe_failures(failed) == ["original on original 0 failed: out of luck"]
    assert describe_failures(dict.fromkeys(planned, "out of luck") | {replace(planned[0], seed=78): "worse"}) == [
        "original on originals 0, 1 failed: out of luck",
        "original on original 0 failed: worse",
    ]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"algorithm": "finetun"}, "unknown algorithm 'finetun'; did you mean 'finetune'"),
        (
            {"algorithm": "oracle"},
            "'oracle' is not an algorithm but the retrained model .* always printed; .* use retrain",
        ),
        ({"set": ("lrr=1",)}, "unknown parameter of finetune 'lrr'; did you mean 'lr'"),
        ({"set": ("lr",)}, "--set 'lr' must be NAME=VALUE"),
        ({"set": ("lr=fast",)}, "--set lr=fast: lr is a number, as 0.1 is by default"),
        ({"set": ("lr=-1",)}, "lr of FineTuneConfig must be above 0 and finite, got -1.0"),
        ({"set": ("epochs=1.5",)}, "--set epochs=1.5: epochs is a whole number$"),
        ({"set": ("PAPER=1",)}, "unknown parameter of finetune 'PAPER'"),
        ({"forget": "memorization:high"}, "unknown score 'memorization'; did you mean 'memorization_k0.500'"),
        ({"forget": "nothing"}, "unknown forget set 'nothing'"),
        ({"measures": ("towe",)}, "unknown measure 'towe'; did you mean 'tow'"),
        (
            {"algorithm": "cf-k", "set": ("k=99",)},
            "the network has 2 convolutional or linear layers, not 99; use k 2",
        ),
        ({"algorithm": "eu-k", "set": ("k=3",)}, "the network has 2 convolutional or linear layers, not 3; use k 2"),
        ({"set": ("lr=1", "lr=2")}, "--set gives lr twice, 1 and 2"),
        ({"forget": "random:5"}, "random:5: a random set has no part"),
        ({"seeds": 0}, "--seeds 0: at least one original"),
        (
            {"seeds": 1_000_000},
            "--seeds 1000000 asks for 2,000,000 models, an original and an oracle a seed; at most 10,000",
        ),
        ({"size": 200}, "--size 200: a forget set has 1 to 199"),
    ],
)
def test_a_wrong_word_is_one_clear_line_before_anything_is_trained(bank, more, message):
    usual = {"forget": "random", "size": 10, "algorithm": "finetune"}
    with pytest.raises(ValueError, match=message):
        prepare_trials(TrialRequest(store=bank.store.url, **usual | more))


def test_a_bank_without_scores_names_the_command_that_makes_them(tmp_path):
    opened = open_bank(replace(PLAN, store=str(tmp_path / "store")))
    with pytest.raises(ValueError, match=r"has no scores yet, so none named .*; run `python -m memscore"):
        prepare(opened.store, "memorization_k0.500:high", 10, "finetune")


@pytest.mark.parametrize("name", ["sure", "scrub-rewind"])
def test_what_reads_validation_needs_some(tmp_path, name):
    opened = open_bank(replace(PLAN, validation=0.0, store=str(tmp_path / "store")))
    with pytest.raises(ValueError, match=f"{name} reads validation examples, .* holds out 0; use a bank made with"):
        prepare(opened.store, "random", 10, name)


def test_a_bank_without_validation_has_no_column_of_it(tmp_path):
    opened = open_bank(replace(PLAN, validation=0.0, epochs=1, store=str(tmp_path / "store")))
    row = prepare(opened.store, "random", 10, "original", seeds=1).run(InOrder(), "cpu").rows[-1]
    assert math.isnan(row["tow_validation"])
    assert row["tow_test"] > 0


def test_trials_that_forget_whole_classes_have_the_accuracy_on_those_that_stay(bank):
    request = TrialRequest(store=bank.store.url, forget="class:3", algorithm="original", seeds=1)
    rows = prepare_trials(request).run(InOrder(), "cpu").rows
    assert all(row["kept_class_accuracy_test"] > row["accuracy_test"] for row in rows if row["algorithm"] == ORACLE)
    assert all(row["kept_class_accuracy_test"] > 0 for row in rows)


def find_populations(store):
    """Paths of the records of populations."""
    return [f"trials/{name}" for name in store.folder.names("trials") if name.endswith("-population.json")]


def test_measures_of_many_models(bank, monkeypatch):
    request = TrialRequest(
        store=bank.store.url,
        forget="random",
        size=20,
        algorithm="finetune",
        set=("epochs=1",),
        seeds=8,
        measures=("klom", "u-lira", "epsilon"),
    )
    first = replace(request, measures=("klom",))
    values = prepare_trials(first).run(InOrder(), "cpu").population_values
    assert values["klom_forget_mean"] >= 0
    # one record of the population, to which another command adds, and which the same one reads
    [path] = find_populations(bank.store)
    record = read_record(bank.store.folder, path)
    assert list(record["measures"]) == ["klom"]
    assert record["population"]["algorithm"] == "finetune"
    assert record["population"]["originals"] == list(range(8))
    both = prepare_trials(request).run(InOrder(), "cpu").population_values
    assert both["u_lira_n"] == 8
    assert values.items() <= both.items()
    assert find_populations(bank.store) == [path]
    with monkeypatch.context() as patch:
        patch.setattr("unlearn.trials.populations.compute_population_measures", None)
        read = prepare_trials(request).run(InOrder(), "cpu").population_values
    np.testing.assert_equal(read, both)
    assert list(read) == list(both)
    other = prepare_trials(replace(request, set=("epochs=2",))).run(InOrder(), "cpu").population_values
    assert other["klom_forget_mean"] != both["klom_forget_mean"]
    assert len(find_populations(bank.store)) == 2
    assert not [name for name in list_trials(bank.store) if "population" in name]
    with pytest.raises(ValueError, match="--seeds 7: u-lira, epsilon, klom compare many models; use 8 or more"):
        prepare_trials(replace(request, seeds=7))


def test_a_run_that_diverged_takes_its_oracle_out_of_a_population(trained_store, trial_data, monkeypatch):
    """U-LiRA leaves out models of one index together, so what stays must be pairs."""
    predictions = {
        (name, i): np.full(3, 10 * i + k, np.float32) for k, name in enumerate(("finetune", ORACLE)) for i in range(9)
    }
    predictions["finetune", 4] = None
    monkeypatch.setattr("unlearn.trials.measure.trial_key", lambda store, trial: (trial.algorithm, trial.index))
    # ruff: ignore[lambda-assignment]
    read = lambda self, name: (
        None if predictions[name] is None else dict.fromkeys(("logit_confidence", "gap"), predictions[name])
    )
    monkeypatch.setattr("unlearn.trials.measure.read_predictions", read)
    sides = ([config(trained_store, name, index=i) for i in range(9)] for name in ("finetune", ORACLE))
    found = load_population_inputs(trained_store, *sides, trial_data)
    assert found.unlearned[:, 0].tolist() == [0, 10, 20, 30, 50, 60, 70, 80]
    assert (found.retrained - found.unlearned == 1).all()


def test_the_door_prints_the_oracle_on_top_and_the_original_beneath(bank, trial_data, capsys):
    """And before, to stderr, what is to be trained; then how far each kind of work is."""
    context = [
        "--algorithm",
        "finetune",
        "--forget",
        "random",
        "--size",
        "17",
        "--seeds",
        "2",
        "--pool",
        "serial",
        "--set",
        "epochs=1",
    ]
    train_reference_models(bank.store, build_reference_jobs(bank.store, [], [0, 1], "cpu"), trial_data, InOrder())
    assert trial.main([bank.store.url, *context]) == 0
    output = capsys.readouterr()
    first, *rest = output.err.splitlines()
    assert first == "to train first: originals 0, oracles 2 (stored: 2)"
    progress_lines = [line.partition(",")[0] for line in rest]  # on a slow machine with those on the way
    assert list(dict.fromkeys(line.split()[0] for line in progress_lines)) == ["oracles", "trials"]
    assert {"oracles 2/2", "trials 6/6"} <= {*progress_lines}
    printed = [line.split()[0] for line in output.out.splitlines() if line.strip()]
    assert printed[0] == "random"
    rows = [word for word in printed if word in {"oracle", "finetune", "original"}]
    assert rows[:3] == ["oracle", "finetune", "original"]


def test_a_bank_with_trials_is_still_estimated_and_verified(bank, trained_store, trial_data):
    """Oracles are no models of the bank; originals are listed; a store within is verified with the outer one."""
    run_trial(config(trained_store, "original"), trial_data)
    prepare(bank.store, "canaries", 40, "original", seeds=1).run(InOrder(), "cpu")
    estimate(bank, InOrder())
    models = bank.store.read_table("models.parquet")["model"].to_pylist()
    assert not [name for name in models if name.startswith("oracle")]
    assert "original-00000" in models
    verdict = verify(bank.store)
    assert (verdict.damaged, verdict.missing, verdict.stale) == ({}, {}, {})
    [inner] = bank.store.scenarios()
    weights = next(iter(Store.open(f"{bank.store.url}/{inner}").folder.names("weights")))
    bank.store.folder.replace(f"{inner}/weights/{weights}", b"spoilt")
    assert list(verify(bank.store).damaged) == [f"{inner}/weights/{weights}"]


def test_a_bank_says_how_many_trials_and_oracles_it_has(tmp_path, capsys):
    opened = open_bank(replace(PLAN, epochs=1, store=str(tmp_path / "store")))
    store, more = opened.store, {"measures": (), "seeds": 2}
    prepare(store, "random", 20, "gradient-ascent", set=("lr=1e30",), **more).run(InOrder(), "cpu")
    prepare(store, "canaries", 40, "original", seeds=1).run(InOrder(), "cpu")
    found = compute_bank_status(store)
    assert found.problems == []
    assert found.originals == 2
    [own, inner] = found.unlearning
    assert own == TrialsStatus(place="", originals=2, oracles=2, trials=6, read=6, diverged=2)
    assert inner == TrialsStatus(
        place="scenarios/canaries-of-40-s0", originals=1, oracles=1, trials=2, read=2, diverged=0
    )
    store.folder.replace(f"trials/{list_trials(store)[0]}.parquet", b"spoilt")
    assert status.main([store.url]) == 0
    output = capsys.readouterr().out
    assert "unlearning: 6 trials, 2 diverged of the 5 that were read; originals 2, oracles 2" in output
    assert "unlearning in scenarios/" in output
    assert f"{list_trials(store)[0]}.parquet is damaged" in "".join(output.split("\n"))


def test_trials_leave_no_table_of_models_behind_the_times(tmp_path):
    opened = open_bank(replace(PLAN, epochs=1, models=8, store=str(tmp_path / "store")))
    estimate(opened, InOrder())
    prepare(opened.store, "random", 20, "original", seeds=1).run(InOrder(), "cpu")
    assert verify(opened.store).stale == {}


def test_equal_rows_of_the_training_set_may_go_by_two_names(trained_store, trial_data):
    named = run_trial(config(trained_store, "original", index=1), trial_data)
    again = run_trial(
        replace(config(trained_store, "original", index=1), forget_set="class:3", by_class=True), trial_data
    )
    assert (named["forget_set"], again["forget_set"]) == ("mine", "class:3")
    assert named["tow_test"] == again["tow_test"]


def test_the_door_says_when_nothing_was_forgotten(bank, capsys):
    context = [
        "--algorithm",
        "finetune",
        "--forget",
        "random",
        "--size",
        "20",
        "--seeds",
        "1",
        "--pool",
        "serial",
        "--set",
        "epochs=1",
        "lr=1e-9",
    ]
    trial.main([bank.store.url, *context])
    assert "finetune forgot nothing here" in capsys.readouterr().out


def test_the_door_says_what_is_wrong_in_one_line(bank, capsys):
    assert trial.main([bank.store.url, "--algorithm", "fintune", "--pool", "serial"]) == 2
    output = capsys.readouterr().err.strip().splitlines()
    assert len(output) == 1
    assert output[0].startswith("error: unknown algorithm 'fintune'; did you mean 'finetune'?")
