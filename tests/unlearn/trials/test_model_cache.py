"""Originals and oracles cached by a worker between trials: read once, within a bound, and never changed."""

import numpy as np
import pytest
import torch

from memscore.pipeline.jobs import OriginalJob, compute_job_key
from memscore.pipeline.reload_data import reload_splits
from memscore.store.store import Store
from tests.memscore.pipeline.test_jobs import InOrder
from unlearn.oracles import build_reference_jobs, build_trial_data, train_reference_models
from unlearn.trials import runner
from unlearn.trials.config import TrialConfig
from unlearn.trials.runner import load_cached_model, run_trial

SETS = ((1, 2, 3, 4, 5), (11, 12, 13))
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def bank(store):
    opened = Store.open(store)
    trial_data = build_trial_data(reload_splits(opened), opened.manifest.seed)
    train_reference_models(opened, build_reference_jobs(opened, list(SETS), [0, 1], "cpu"), trial_data, InOrder())
    return opened, trial_data


@pytest.fixture
def read(monkeypatch):
    """Keys of the outputs that were read since, by a worker that has kept none yet."""
    runner._model_cache.clear()
    keys_read, read_outputs = [], Store.read_outputs

    def record(self, key):
        keys_read.append(key)
        return read_outputs(self, key)

    monkeypatch.setattr(Store, "read_outputs", record)
    return keys_read


def make_trials(store, lr):
    return [
        TrialConfig(
            store=store.url,
            algorithm="gradient-ascent",
            params=(("lr", lr),),
            forget_set="mine",
            forget=rows,
            index=index,
            measures=("tow",),
            core=False,
        )
        for index in (0, 1)
        for rows in SETS
    ]


def test_attempts_that_go_round_the_same_models_read_each_once(bank, read):
    store, trial_data = bank
    for lr in (1e-3, 2e-3, 3e-3):
        for trial in make_trials(store, lr):
            run_trial(trial, trial_data)
    assert len(read) == len(set(read)) == 2 + 4  # originals, and an oracle of each for both sets


def test_no_more_is_kept_than_fits_but_always_a_pair(bank, read, monkeypatch):
    store, _ = bank
    keys = [
        compute_job_key(store, OriginalJob(store=store.url, index=index, removed=r))
        for index in (0, 1)
        for r in ((), *SETS)
    ]
    one = sum(array.nbytes for array in store.read_outputs(keys[0]))
    monkeypatch.setattr(runner, "MODEL_CACHE_BYTES", 3 * one)
    for key in keys:
        load_cached_model(store, key, CPU)
    assert [key for key, _ in runner._model_cache] == keys[-3:]
    monkeypatch.setattr(runner, "MODEL_CACHE_BYTES", 0)
    load_cached_model(store, keys[-3], CPU)
    load_cached_model(store, keys[0], CPU)
    assert [key for key, _ in runner._model_cache] == [keys[-3], keys[0]]


def test_trials_leave_what_is_kept_as_it_was(bank, read):
    store, trial_data = bank
    fresh = [run_trial(trial, trial_data) for trial in make_trials(store, 4e-3)]
    for trial, row in zip(make_trials(store, 4e-3), fresh, strict=True):
        store.folder.remove(f"trials/{row['trial']}.parquet")
        runner._model_cache.clear()
        alone = run_trial(trial, trial_data)
        np.testing.assert_equal(*({k: v for k, v in r.items() if "wall" not in k} for r in (alone, row)))
