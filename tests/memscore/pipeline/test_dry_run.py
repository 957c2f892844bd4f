"""What a run would cost: models, originals, and the bytes of their outputs; and the forecast that chooses a pool."""

import time
from dataclasses import replace

import pytest

from cluster.pool import SerialPool
from memscore.models.architectures import build_network, count_parameters
from memscore.pipeline import dry_run, run_forecast
from memscore.pipeline.config import BankConfig
from memscore.pipeline.dry_run import TrainingTimes, estimate_cost
from memscore.pipeline.jobs import read_recipe
from memscore.pipeline.run_forecast import forecast_bank
from memscore.pipeline.runner import estimate, prepare_bank
from memscore.training.recipes import count_steps
from tests.fixtures.opened import open_bank

SMALL = BankConfig(train_limit=200, epochs=4, design="exact", block=8, models=8, originals=1, proxies=("none",))
CNN = replace(SMALL, arch="cnn-4-8", recipe="digits")


def prepare(tmp_path, config=SMALL):
    return prepare_bank(replace(config, store=str(tmp_path / "store")))


@pytest.fixture
def fixed_times(monkeypatch):
    """Replaces the timing: a step takes a second, as a model alone ten, and predicting an image 100 s."""
    times = TrainingTimes(step=1.0, original_step=10.0, image=100.0, embedding=7)
    monkeypatch.setattr(dry_run, "time_training", lambda bank: times)
    monkeypatch.setattr(dry_run, "MODEL_S", 0.0)
    return times


def test_an_original_takes_its_own_steps_and_three_predictions_of_each_image(tmp_path, fixed_times):
    bank = prepare(tmp_path)
    cost, recipe = estimate_cost(bank, 2), read_recipe(bank.store)
    n_train, n_rows = bank.store.manifest.split_sizes[0], bank.store.manifest.n_rows
    assert count_steps(recipe, 1.0, n_train) == pytest.approx(2 * count_steps(recipe, 0.5, n_train), abs=1)
    assert cost.seconds == count_steps(recipe, 0.5, n_train) + 100 * n_rows
    assert cost.original_seconds == pytest.approx(10 * count_steps(recipe, 1.0, n_train) + 300 * n_rows, rel=1e-6)
    assert cost.wall_s == (8 * cost.seconds + cost.original_seconds) / 2
    with_events = estimate_cost(replace(bank, config=replace(bank.config, evaluation_events=True)), 2)
    assert with_events.original_seconds - cost.original_seconds == pytest.approx(100 * n_train * recipe.epochs)
    assert estimate_cost(replace(bank, config=replace(bank.config, queries=3)), 2).seconds - cost.seconds == (
        200 * n_rows
    )


@pytest.mark.parametrize("config", [SMALL, CNN], ids=["mlp", "cnn"])
def test_outputs_are_as_wide_as_the_network_s_embeddings(tmp_path, config):
    bank = open_bank(replace(config, store=str(tmp_path / "store")))
    with_one, without = (
        estimate_cost(replace(bank, config=replace(bank.config, originals=n)), 1).bytes for n in (1, 0)
    )
    estimate(bank, SerialPool(), lambda *report: None)
    [key] = bank.store.folder.names("outputs")
    logits, embeddings = bank.store.read_outputs(key.removesuffix(".parquet"))
    assert with_one - without == logits.nbytes + embeddings.nbytes


def test_stored_originals_are_not_counted_again(tmp_path):
    bank = open_bank(replace(SMALL, store=str(tmp_path / "store")))
    estimate(bank, SerialPool(), lambda *report: None)
    assert estimate_cost(bank, 1).wall_s == 0
    more = replace(bank, config=replace(bank.config, originals=3))
    assert estimate_cost(more, 1).originals == 2


def test_a_forecast_of_a_stored_bank_is_of_its_scores_alone(tmp_path, monkeypatch):
    bank = open_bank(replace(SMALL, store=str(tmp_path / "store")))
    assert forecast_bank(bank, 1e9) > 0.01
    estimate(bank, SerialPool(), lambda *report: None)
    monkeypatch.setattr(run_forecast, "estimate_cost", None)  # nothing is timed
    assert forecast_bank(bank, 1e9) == pytest.approx(8 * 200 / run_forecast.SCORED_CELLS_PER_S)
    large = replace(bank, config=replace(bank.config, proxies=("centroid-distance",)))
    assert run_forecast.find_missing_proxies(large, run_forecast.count_missing_models(large, 1)) == (
        "centroid-distance",
    )


def test_a_large_network_is_recognised_without_a_step(tmp_path, monkeypatch):
    monkeypatch.setattr(run_forecast, "estimate_cost", None)
    bank = prepare(tmp_path, replace(SMALL, arch="resnet18", recipe="digits", epochs=1000))
    started = time.monotonic()
    assert forecast_bank(bank, 15) >= 15
    assert time.monotonic() - started < 5


def test_proxies_count_until_the_limit(tmp_path, monkeypatch, fixed_times):
    timed = []

    def take_time(bank, names):
        timed.extend(names)
        return dict.fromkeys(names, 4e6)

    monkeypatch.setattr(run_forecast, "time_proxies", take_time)
    names = ("holdout", "el2n", "grand")
    bank = prepare(tmp_path, replace(SMALL, originals=2, proxies=names, validation=0.2))
    without = forecast_bank(replace(bank, config=replace(bank.config, proxies=())), 1e9)
    assert forecast_bank(bank, 1e9) == without + 2 * 3 * 4e6
    timed.clear()
    assert forecast_bank(bank, without + 10e6) == without + 2 * 2 * 4e6
    assert len(timed) == 2


def test_an_inversion_gain_counts_two_attacks_two_trainings_and_what_they_store(tmp_path, monkeypatch):
    bank = prepare(tmp_path, replace(CNN, proxies=("inversion", "inversion-gain"), inversion_candidates=150))
    monkeypatch.setattr(dry_run, "time_second_call", lambda function: 3.0)  # two iterations of 64 examples
    monkeypatch.setattr(dry_run, "time_step", lambda runs, *rest: 0.25 * len(runs))
    cost, without = (
        estimate_cost(replace(bank, config=replace(bank.config, proxies=p)), 1) for p in (bank.config.proxies, ())
    )
    attack_s = 3.0 / 2 * bank.config.inversion_iterations * 150 / 64
    steps = count_steps(read_recipe(bank.store), 0.5, 200)
    assert cost.proxies == pytest.approx({"inversion": attack_s, "inversion-gain": 2 * (attack_s + 0.25 * steps)})
    weights = 4 * count_parameters(build_network("cnn-4-8", (1, 8, 8), 10, 0))
    assert cost.bytes - without.bytes == pytest.approx(3 * 150 * 64 + 2 * weights)
    only = estimate_cost(replace(bank, config=replace(bank.config, proxies=("inversion",))), 1)
    assert only.bytes - without.bytes == 150 * 64


def test_a_half_that_holds_no_batch_is_refused_before_anything_is_made(tmp_path):
    with pytest.raises(ValueError, match="batch"):
        prepare(tmp_path, replace(SMALL, keep=0.75, batch=120, proxies=("inversion-gain",)))
    assert not (tmp_path / "store").exists()
