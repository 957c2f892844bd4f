"""A bank of a GPU's precision on a CPU: what is stored is read, and what would be trained is refused in one line."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from memscore.pipeline.config import BankConfig
from memscore.store.trial_files import write_trial
from tests.fixtures.opened import open_bank
from unlearn.experiments.sequential_requests import compute_proxies
from unlearn.trials.config import TrialConfig, trial_key
from unlearn.trials.prepare import prepare_trials
from unlearn.trials.request import TrialRequest
from unlearn.trials.runner import run_trial
from unlearn.trials.setup import no_progress, run_trials
from unlearn.tuning.search import HyperparameterSearch, run_searches

REFUSED = r"^precision tf32 is TF32 in the convolutions of a GPU, and a CPU has none; train on a GPU"


class Untouched:
    """A pool, or a search, to which nothing may come."""

    def run(self, fn, jobs, shared=None):
        assert not list(jobs)
        return iter(())

    def search(self, *arguments, **more):
        raise AssertionError


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu") / "bank"
    config = BankConfig(
        data="digits",
        train_limit=200,
        validation=0.2,
        epochs=1,
        batch=20,
        arch="cnn-4",
        recipe="digits",
        store=str(folder),
    )
    opened = open_bank(config, "cuda").store
    assert opened.manifest.precision == "tf32"
    return opened


def make_trial(store):
    return TrialConfig(store=store.url, algorithm="finetune", forget_set="random:3", forget=(0, 1, 2))


def test_originals_and_oracles_are_not_trained(store):
    trials = prepare_trials(TrialRequest(store=store.url, algorithm="finetune", forget="random", size=10, seeds=1))
    with pytest.raises(ValueError, match=REFUSED):
        trials.run(Untouched(), "cpu")
    assert store.failures() == {}


def test_algorithms_and_searches_do_not_run_and_stored_rows_are_read(store):
    trial = make_trial(store)
    search = {"a": HyperparameterSearch(trials=(trial,))}
    config, context = SimpleNamespace(sampler="random", budget=1, seed=0), SimpleNamespace(store=store, trial_data=None)
    backend = Untouched()
    backend.enumerate_configs = lambda request, **_: request.initial
    for run in (
        lambda: run_trials([trial], None, Untouched()),
        lambda: run_trial(trial, None),
        lambda: run_searches(config, context, search, backend, lambda *_: None),
    ):
        with pytest.raises(ValueError, match=REFUSED):
            run()
    key = trial_key(store, trial)
    columns = {"trial": key, "algorithm": "finetune", "status": "ok", "tow": 0.5}
    write_trial(store, key, {column: np.array([value]) for column, value in columns.items()}, {"trial": key})
    [row], failed = run_trials([replace(trial, seed=0)], None, Untouched())
    assert (row["tow"], failed) == (0.5, {})


def test_proxies_of_sequential_requests_are_not_computed_again(store):
    runner = SimpleNamespace(device="cpu", pool=Untouched(), show_progress=no_progress)
    sequences = [SimpleNamespace(index=0, key=lambda store: "k", trials=[])]
    with pytest.raises(ValueError, match=REFUSED):
        compute_proxies(SimpleNamespace(store=store, trial_data=None), sequences, runner)
