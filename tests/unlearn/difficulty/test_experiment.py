"""The experiment on single examples, end to end on a small bank: rows, tables, resumption, and what it refuses."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from cluster.pool import SerialPool
from cluster.search import SerialSearch
from memscore.store.manifest import compute_original_key
from memscore.store.store import Store
from memscore.store.verify import verify
from tests.fixtures.tiny import make_bank
from unlearn.difficulty import calibration, plan
from unlearn.difficulty.job import DifficultyJob, draw_stratified, is_job_stored, read_job, run_difficulty_job
from unlearn.difficulty.plan import draw_instances, list_chunks
from unlearn.difficulty.store_features import SCORE
from unlearn.experiments import difficulty
from unlearn.experiments.config import ExperimentConfig
from unlearn.experiments.prepare import prepare_experiment
from unlearn.experiments.tables import write_experiment
from unlearn.trials.setup import no_progress, open_context

OPTIONS = {"size": 44, "algorithms": ("gradient-ascent", "neggrad-plus"), "seeds": 2}


@pytest.fixture(scope="module", autouse=True)
def few_rates_and_pictures():
    """Two rates, five examples to choose them on, and a picture of each kind: the others are drawn alike."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "GRID", (10.0, 3000.0))
        patch.setattr(plan, "N_CALIBRATION", 5)
        patch.setattr(difficulty, "PICTURES", ("test_accuracy", "density"))
        yield


def run(store, **options):
    prepared = prepare_experiment(ExperimentConfig(name="difficulty", store=store, **OPTIONS | options))
    result = prepared.run(SerialPool(), SerialSearch(), "cpu", no_progress)
    return result, write_experiment(prepared.store, prepared.experiment, prepared.config, result)


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    return make_bank(tmp_path_factory.mktemp("bank"))


@pytest.fixture(scope="module")
def done(bank):
    return run(bank)


def test_every_example_has_a_row_for_each_algorithm_and_original(bank, done):
    result, path = done
    rows = pq.read_table(f"{bank}/{path}/rows.parquet").to_pylist()
    assert len(rows) == 44 * 2 * 2
    assert {row["index"] for row in rows} == {1, 2}
    assert all(row["gt"] is None or 0 <= row["gt"] <= 1.5 for row in rows)
    assert any(row["flipped"] for row in rows)
    assert not result.incomplete


def test_tables_and_pictures_are_written_and_the_store_is_whole(bank, done):
    _, path = done
    correlations = pq.read_table(f"{bank}/{path}/table-correlations.parquet").to_pylist()
    assert {row["algorithm"] for row in correlations} == {"gradient-ascent", "neggrad-plus"}
    built_in = next(row for row in correlations if row["factor"] == "test_probability")
    assert "built in" in built_in["built_in"]
    findings = json.loads(Path(bank, path, "findings.json").read_text())
    assert any(claim["family"] == "TPS" for claim in findings["findings"])
    assert any("not flipped after 20 steps" in line for line in findings["remarks"])
    assert any("lr" in line and "smallest of" in line for line in findings["remarks"])
    verified = verify(Store.open(bank))
    assert not verified.damaged | verified.missing | verified.stale, verified


def test_the_predicted_difficulty_is_a_score_that_forget_sets_take(bank, done):
    ids, values = Store.open(bank).score(SCORE)
    assert len(ids) == 200
    assert np.isfinite(values).all()


def test_a_run_that_was_killed_goes_on_with_the_jobs_that_are_missing(bank, done, monkeypatch):
    store = Store.open(bank)
    files = store.folder.names("difficulty")
    lost = f"difficulty/{sorted(files)[0]}"
    before = store.folder.read(lost)
    store.folder.remove(lost)
    ran = []
    monkeypatch.setattr(
        "unlearn.difficulty.plan.run_difficulty_job",
        lambda job, shared: ran.append(job) or run_difficulty_job(job, shared),
    )
    result, _ = run(bank)
    assert len(ran) == 1
    again = [{**row, "seconds": 0} for row in result.results["examples"]]
    first = [{**row, "seconds": 0} for row in done[0].results["examples"]]
    assert repr(again) == repr(first)
    assert len(store.folder.read(lost)) > 0 < len(before)


def test_samples_and_all_examples_are_compared(done):
    assert any("Spearman" in line and "all examples" in line for line in done[0].remarks)


def test_a_larger_size_continues_a_smaller_one_and_reports_no_example_of_the_calibration():
    correct = np.ones((2, 400), dtype=bool)
    correct[0, ::5] = False
    small, large = (draw_instances(correct, size, 0) for size in (30, 60))
    assert large.rows[:30] == small.rows
    assert not set(large.rows) & set(large.calibration)
    assert len(large.calibration) == 5
    assert all(row % 5 for row in (*large.rows, *large.calibration))
    assert list_chunks(large.rows)[0] == list_chunks(small.rows)[0]
    with pytest.raises(ValueError, match=r"--size 316: .*only 320 training examples rightly.*use 315 or less"):
        draw_instances(correct, 316, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": 4}, r"--budget 4: difficulty has no sweep"),
        ({"tunings": 2}, r"--tunings 2: difficulty has no sweep"),
        ({"algorithms": ("ssd",)}, r"--algorithms ssd: difficulty unlearns single examples by gradient-ascent"),
    ],
)
def test_options_that_say_nothing_here_are_refused(bank, options, message):
    with pytest.raises(ValueError, match=message):
        prepare_experiment(ExperimentConfig(name="difficulty", store=bank, **OPTIONS | options))


def test_rates_are_an_option_of_this_experiment_alone(bank):
    with pytest.raises(ValueError, match=r"--rates paper: rum searches its learning rates"):
        prepare_experiment(ExperimentConfig(name="rum", store=bank, rates="paper"))


def test_a_stratified_draw_has_each_label_in_its_share():
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    rows = draw_stratified(labels, 50, np.random.default_rng(0))
    assert np.bincount(labels[rows]).tolist() == [30, 15, 5]
    assert len(set(rows.tolist())) == 50
    assert draw_stratified(labels, 500, np.random.default_rng(0)).tolist() == list(range(100))


def test_a_job_is_named_by_what_decides_its_file_and_splits_into_single_examples():
    job = DifficultyJob(store="a", index=1, key="k", algorithm="salun", rows=(1, 2), lr=0.1)
    assert job.name == replace(job, store="b", device="cuda").name
    assert job.name != replace(job, lr=0.2).name
    assert [part.rows for part in job.split()] == [(1,), (2,)]


def test_a_job_that_a_pool_ran_in_parts_is_as_good_as_whole(bank, done):
    store = Store.open(bank)
    context = open_context(store, forget="random", size=1, seed=0, data=None, folder=None)
    key = compute_original_key(store.manifest, removed=[], index=1)
    rows = tuple(row["row"] for row in done[0].results["examples"][:3])
    job = DifficultyJob(store=bank, index=1, key=key, algorithm="gradient-ascent", rows=rows, lr=0.01)
    for number, part in enumerate(job.split()):
        assert not is_job_stored(store, job)
        assert len(read_job(store, job)) == number
        run_difficulty_job(part, context.trial_data)
    assert is_job_stored(store, job)
    in_parts = [row | {"seconds": 0} for row in read_job(store, job)]
    store.folder.remove(job.split()[0].path)
    assert not is_job_stored(store, job)
    run_difficulty_job(job, context.trial_data)
    assert repr([row | {"seconds": 0} for row in read_job(store, job)]) == repr(in_parts)
