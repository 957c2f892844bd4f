"""The seconds that trials, sweeps and experiments are forecast to take, from receipts and counts."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.pool import SerialPool
from cluster.search import SerialSearch
from memscore.store.store import Store
from tests.fixtures.sweeps import make_config
from tests.fixtures.tiny import SCORE, make_bank
from unlearn.experiments.config import ExperimentConfig
from unlearn.experiments.prepare import prepare_experiment
from unlearn.trials.forecast import STORED_TRIAL_S, TRIAL_S, find_training_seconds, forecast_trials
from unlearn.trials.prepare import prepare_trials
from unlearn.trials.request import TrialRequest
from unlearn.tuning.prepare import prepare_sweep


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    """A bank with one original."""
    return make_bank(tmp_path_factory.mktemp("bank"), originals=1)


@pytest.fixture
def store(bank, tmp_path):
    """A copy of it, in which nothing else is stored."""
    return str(shutil.copytree(bank, tmp_path / "bank"))


class Receipts:
    """A store that has only receipts, and an arm of half the training set."""

    def __init__(self, **seconds):
        self.seconds = seconds

    def arms(self):
        return {"exact-k0.500": {"keep": 0.5}}

    def read_receipt(self, name):
        kind = "arm" if name.startswith("exact") else "original"
        return {"seconds": self.seconds[kind]} if kind in self.seconds else None


@pytest.mark.parametrize(
    ("receipts", "seconds"),
    [({"original": 3.0, "arm": 9.0}, 3.0), ({"arm": 4.0}, 8.0), ({"original": None, "arm": 4.0}, 8.0), ({}, 0.0)],
)
def test_a_training_takes_what_an_original_took_or_a_model_of_an_arm_by_its_share(receipts, seconds):
    """A receipt that was restored from a shard has no seconds."""
    assert find_training_seconds(Receipts(**receipts)) == seconds
    assert forecast_trials(Receipts(**receipts), models=4, trials=5) == pytest.approx(
        4 * seconds + 5 * (TRIAL_S + seconds)
    )


def test_trials_that_are_stored_take_no_time(store):
    trials = prepare_trials(TrialRequest(store=store, algorithm="finetune", forget="random", size=12, seeds=2))
    training_s = find_training_seconds(Store.open(store))
    # one original and two oracles, and three rows of each original
    assert trials.forecast() == pytest.approx(3 * training_s + 6 * (TRIAL_S + training_s))
    trials.run(SerialPool(), "cpu")
    assert trials.forecast() == 0
    more = prepare_trials(replace(trials.request, algorithm="l1-sparse"))
    assert more.forecast() == pytest.approx(2 * (TRIAL_S + training_s))


def test_a_sweep_counts_its_whole_budget_and_then_what_it_reads(store):
    config = make_config(store, algorithms=("finetune",), seeds=1, set=())
    sweep = prepare_sweep(config)
    training_s = find_training_seconds(Store.open(store))
    # two configurations on one original, which is stored; of another the oracle, the original, and either choice
    assert sweep.forecast() == pytest.approx(3 * training_s + 6 * (TRIAL_S + training_s))
    result = sweep.run(SerialPool(), SerialSearch(), "cpu")
    assert len(result.tuning_rows) + len(result.judged_rows) <= 6
    # both selections may choose the same
    assert sweep.forecast() == pytest.approx(sweep.count().planned * STORED_TRIAL_S)
    assert sweep.count().planned in {5, 6}


def test_a_sweep_that_was_interrupted_has_only_the_rest_to_do(store):
    config = make_config(store, algorithms=("finetune",), seeds=1, set=(), name="new")
    prepare_sweep(config).run(SerialPool(), SerialSearch(), "cpu")
    sweep = prepare_sweep(config)
    # as if it had ended before its last judged trial
    (Path(store) / sweep.path / "trials.parquet").unlink()
    planned = sweep.count().planned
    training_s = find_training_seconds(Store.open(store))
    larger = prepare_sweep(replace(config, seeds=2, name="larger"))
    added = larger.count().planned - planned
    # one more original with its oracle, and its judged rows; the configurations are stored
    expected = planned * STORED_TRIAL_S + 2 * training_s + added * (TRIAL_S + training_s)
    assert sweep.forecast() == pytest.approx(planned * STORED_TRIAL_S)
    assert larger.forecast() == pytest.approx(expected)
    assert added in {3, 4}


@pytest.mark.parametrize(
    ("changes", "trials"),
    [
        # three parts one after the other; of the later two a search for each selection: 2 + 4 + 4 configurations
        ({"variants": ("rum",), "scores": (SCORE,)}, 10 + 4),
        ({"variants": ("rum",), "scores": (SCORE,), "tuning": "defaults", "budget": 1}, 1 + 4),
        ({"sampler": "tpe"}, 4 + 4),
        ({"algorithms": ("finetune", "l1-sparse"), "select": "oracle"}, 4 + 4),
        ({"tune_seeds": 2, "seeds": 3}, 4 + 12),
    ],
)
def test_what_a_sweep_has_to_do_is_counted(store, changes, trials):
    config = make_config(store, algorithms=("finetune",), seeds=1, set=(), name="new")
    sweep = prepare_sweep(replace(config, **changes))
    bank = Store.open(store)
    without_training = Receipts()
    context = replace(sweep.context, bank_store=without_training)
    assert replace(sweep, context=context).forecast() == pytest.approx(trials * TRIAL_S)
    assert sweep.forecast() > trials * (TRIAL_S + find_training_seconds(bank))


def test_an_experiment_takes_as_long_as_its_sweeps(store):
    config = ExperimentConfig(name="memorization", store=store, size=12, algorithms=("finetune",), budget=1)
    experiment = prepare_experiment(replace(config, tunings=2, tune_seeds=1, seeds=2))
    sweeps = experiment.experiment.make_sweeps(experiment.config)
    assert len(sweeps) > 1
    assert experiment.forecast() == pytest.approx(sum(prepare_sweep(each).forecast() for each in sweeps.values()))
