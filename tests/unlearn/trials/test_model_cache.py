"""Originals and oracles that a worker keeps between trials: read once, within a bound, and never changed."""

import numpy as np
import pytest
import torch

from memscore.pipeline.config import reload_splits
from memscore.pipeline.jobs import OriginalJob, compute_job_key
from memscore.store.store import Store
from tests.memscore.pipeline.test_jobs import InOrder
from unlearn.oracles import build_reference_jobs, build_trial_data, train_reference_models
from unlearn.trials import runner
from unlearn.trials.config import TrialConfig
from unlearn.trials.runner import load_cached_model, run_trial

SETS = ((1, 2, 3, 4, 5), (11, 12, 13))
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def lab(store):
    opened = Store.open(store)
    bench = build_trial_data(reload_splits(opened), opened.manifest.seed)
    train_reference_models(opened, build_reference_jobs(opened, list(SETS), [0, 1], "cpu"), bench, InOrder())
    return opened, bench


@pytest.fixture
def read(monkeypatch):
    """Keys of the outputs that were read since, by a worker that has kept none yet."""
    runner._model_cache.clear()
    seen, usual = [], Store.read_outputs

    def noted(self, key):
        seen.append(key)
        return usual(self, key)

    monkeypatch.setattr(Store, "read_outputs", noted)
    return seen


def attempts(store, rate):
    return [
        TrialConfig(
            store=store.url,
            algorithm="gradient-ascent",
            params=(("lr", rate),),
            forget_set="mine",
            forget=rows,
            index=index,
            measures=("tow",),
            core=False,
        )
        for index in (0, 1)
        for rows in SETS
    ]


def test_attempts_that_go_round_the_same_models_read_each_once(lab, read):
    store, bench = lab
    for rate in (1e-3, 2e-3, 3e-3):
        for trial in attempts(store, rate):
            run_trial(trial, bench)
    assert len(read) == len(set(read)) == 2 + 4  # originals, and an oracle of each for both sets


def test_no_more_is_kept_than_fits_but_always_a_pair(lab, read, monkeypatch):
    store, _ = lab
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


def test_trials_leave_what_is_kept_as_it_was(lab, read):
    store, bench = lab
    fresh = [run_trial(trial, bench) for trial in attempts(store, 4e-3)]
    for trial, row in zip(attempts(store, 4e-3), fresh, strict=True):
        store.folder.remove(f"trials/{row['trial']}.parquet")
        runner._model_cache.clear()
        alone = run_trial(trial, bench)
        np.testing.assert_equal(*({k: v for k, v in r.items() if "wall" not in k} for r in (alone, row)))
