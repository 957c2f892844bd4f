"""What a run would cost: models, originals, and the bytes of their outputs; and the forecast that chooses a pool."""

import time
from dataclasses import replace

import pytest

from cluster.pool import SerialPool
from memscore.models.architectures import build_network, count_parameters
from memscore.pipeline import dry_run, network_times, precision_times, proxy_times, run_forecast
from memscore.pipeline.cards import CARDS, LAUNCH_S, UTILISATION
from memscore.pipeline.config import BankConfig
from memscore.pipeline.dry_run import estimate_cost
from memscore.pipeline.jobs import read_recipe
from memscore.pipeline.network_times import NetworkTimes, time_network
from memscore.pipeline.precision_times import time_precisions
from memscore.pipeline.run_forecast import forecast_bank
from memscore.pipeline.runner import estimate, prepare_bank
from memscore.pipeline.work import Work
from memscore.training.recipes import count_steps
from tests.fixtures.opened import open_bank

SMALL = BankConfig(train_limit=200, epochs=4, design="exact", block=8, models=8, originals=1, proxies=("none",))
CNN = replace(SMALL, arch="cnn-4-8", recipe="digits")


def prepare(tmp_path, config=SMALL):
    return prepare_bank(replace(config, store=str(tmp_path / "store")))


@pytest.fixture
def fixed_times(monkeypatch):
    """Replaces the timing: a step takes a second, as a model alone ten, and predicting an image 100 s."""
    times = NetworkTimes(
        step=Work(core_s=1.0, flops=5.0, launches=3.0),
        lone_step=Work(core_s=4.0),
        trained_image=Work(core_s=0.1875),
        predicted_image=Work(core_s=100.0),
        batch=32,
        embedding=7,
    )
    assert times.original_step.core_s == 10
    for module in (dry_run, run_forecast):
        monkeypatch.setattr(module, "time_network", lambda *_: times)
    monkeypatch.setattr(dry_run, "MODEL_S", 0.0)
    return times


def test_an_original_takes_its_own_steps_and_three_predictions_of_each_image(tmp_path, fixed_times):
    bank = prepare(tmp_path)
    cost, recipe = estimate_cost(bank, 2), read_recipe(bank.store)
    n_train, n_rows = bank.store.manifest.split_sizes[0], bank.store.manifest.n_rows
    assert count_steps(recipe, 1.0, n_train) == pytest.approx(2 * count_steps(recipe, 0.5, n_train), abs=1)
    steps = count_steps(recipe, 0.5, n_train)
    assert cost.model == Work(core_s=steps + 100 * n_rows, flops=5 * steps, launches=3 * steps)
    assert cost.original.core_s == pytest.approx(10 * count_steps(recipe, 1.0, n_train) + 300 * n_rows, rel=1e-6)
    scoring_s = 8 * n_train / dry_run.SCORED_CELLS_PER_S
    assert cost.wall_s == pytest.approx((8 * cost.model.core_s + cost.original.core_s + scoring_s) / 2, rel=1e-12)
    with_events = estimate_cost(replace(bank, config=replace(bank.config, evaluation_events=True)), 2)
    assert with_events.original.core_s - cost.original.core_s == pytest.approx(100 * n_train * recipe.epochs)
    with_queries = estimate_cost(replace(bank, config=replace(bank.config, queries=3)), 2)
    assert with_queries.model.core_s - cost.model.core_s == 200 * n_rows


@pytest.mark.parametrize("config", [SMALL, CNN], ids=["mlp", "cnn"])
def test_outputs_are_as_wide_as_the_network_s_embeddings(tmp_path, config):
    bank = open_bank(replace(config, store=str(tmp_path / "store")))
    with_one, without = (
        estimate_cost(replace(bank, config=replace(bank.config, originals=n)), 1).bytes for n in (1, 0)
    )
    estimate(bank, SerialPool(), lambda *report: None)
    [key] = bank.store.folder.names("outputs")
    logits, embeddings = bank.store.read_outputs(key.removesuffix(".parquet"))
    weights = sum(tensor.nbytes for tensor in bank.store.read_weights(key.removesuffix(".parquet")).values())
    assert with_one - without == logits.nbytes + embeddings.nbytes + weights


def test_stored_originals_are_not_counted_again(tmp_path):
    bank = open_bank(replace(SMALL, store=str(tmp_path / "store")))
    estimate(bank, SerialPool(), lambda *report: None)
    assert estimate_cost(bank, 1).trained == Work()
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

    def take_time(bank, names, times):
        timed.extend(names)
        return dict.fromkeys(names, Work(core_s=4e6))

    monkeypatch.setattr(run_forecast, "time_proxies", take_time)
    names = ("holdout", "el2n", "grand")
    bank = prepare(tmp_path, replace(SMALL, originals=2, proxies=names, validation=0.2))
    without = forecast_bank(replace(bank, config=replace(bank.config, proxies=())), 1e9)
    assert forecast_bank(bank, 1e9) == without + 2 * 3 * 4e6
    timed.clear()
    assert forecast_bank(bank, without + 10e6) == without + 2 * 2 * 4e6
    assert len(timed) == 2


def test_an_inversion_gain_counts_two_attacks_two_trainings_and_what_they_store(tmp_path, monkeypatch, fixed_times):
    bank = prepare(tmp_path, replace(CNN, proxies=("inversion", "inversion-gain"), inversion_candidates=150))
    monkeypatch.setattr(proxy_times, "time_call", lambda function: 3.0)  # two iterations
    monkeypatch.setattr(proxy_times, "PROXY_BUDGET_S", 1e9)  # of 64 examples
    cost, without = (
        estimate_cost(replace(bank, config=replace(bank.config, proxies=p)), 1) for p in (bank.config.proxies, ())
    )
    attack_s = 3.0 / 2 * bank.config.inversion_iterations * 150 / 64
    steps = count_steps(read_recipe(bank.store), 0.5, 200)
    seconds = {name: work.core_s for name, work in cost.proxies.items()}
    assert seconds == pytest.approx({"inversion": attack_s, "inversion-gain": 2 * (attack_s + 10.0 * steps)})
    assert cost.proxies["inversion"].flops > 0
    weights = 4 * count_parameters(build_network("cnn-4-8", (1, 8, 8), 10, 0))
    assert cost.bytes - without.bytes == pytest.approx(3 * 150 * 64 + 2 * weights)
    only = estimate_cost(replace(bank, config=replace(bank.config, proxies=("inversion",))), 1)
    assert only.bytes - without.bytes == 150 * 64


def test_operations_and_activations_of_a_network_are_counted(tmp_path):
    """Of a network of one hidden layer on 64 pixels, by hand: 2 N a weight forward, as many for each gradient."""
    bank = prepare(tmp_path, replace(SMALL, arch="mlp-32"))
    times, first, last = time_network(bank.store, bank.splits), 64 * 32, 32 * 10
    assert times.predicted_image.flops == 2 * (first + last)
    assert times.step.flops == 32 * (4 * first + 6 * last)  # the pixels need no gradient
    assert times.step.core_s > 0
    assert times.parameters == first + last + 32 + 10
    bank = prepare(tmp_path, replace(CNN, arch="cnn-4"))
    deep = time_network(bank.store, bank.splits)
    # the images, what the convolution, the pooling with its indices and the ReLU keep, and the probabilities
    assert 4 * (64 + 256) <= deep.activation_bytes <= 4 * (64 + 256 + 4 * 64 + 3 * 64 + 40)


def test_a_large_network_is_timed_with_few_images(tmp_path, monkeypatch):
    """A step of a whole batch would take a minute, which is never taken."""
    batches = []
    train = network_times.train

    def record(runs, data, labels, recipe, steps):
        batches.append(recipe.batch)
        train(runs, data, labels, recipe, steps)

    monkeypatch.setattr(network_times, "train", record)
    monkeypatch.setattr(network_times, "STEP_BUDGET_S", 0.0)
    bank = prepare(tmp_path, replace(CNN, train_limit=1000, batch=256))
    times = time_network(bank.store, bank.splits)
    assert set(batches) == {2}
    assert times.original_step.core_s == times.step.core_s > 0
    assert times.trained_image.core_s * 256 == pytest.approx(times.step.core_s - times.lone_step.core_s)


def test_a_half_that_holds_no_batch_is_refused_before_anything_is_made(tmp_path):
    with pytest.raises(ValueError, match="batch"):
        prepare(tmp_path, replace(SMALL, keep=0.75, batch=120, proxies=("inversion-gain",)))
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("precision", "seconds"), [("bfloat16", 312e12), ("tf32", 156e12), ("float32", 19.5e12)], ids=str
)
def test_a_card_s_time_is_of_its_peak_rate_or_of_its_launches(precision, seconds):
    card = CARDS["a100"]
    assert card.compute_seconds(1e15, 0, precision) == pytest.approx(1e15 / (UTILISATION * seconds))
    assert card.compute_seconds(1e6, 1000, precision) == pytest.approx(1000 * LAUNCH_S)


def test_a_new_bank_of_convolutions_is_counted_in_tf32_on_a_gpu(tmp_path):
    assert estimate_cost(prepare(tmp_path, CNN), 1).precision == "tf32"
    assert estimate_cost(prepare(tmp_path, SMALL), 1).precision == "float32"
    assert estimate_cost(prepare(tmp_path, replace(CNN, precision="float32")), 1).precision == "float32"
    assert estimate_cost(prepare(tmp_path, replace(CNN, precision="bfloat16")), 1).precision == "bfloat16"
    # a GPU has no bfloat16-products, and trains such a network in float32
    assert estimate_cost(prepare(tmp_path, replace(SMALL, precision="bfloat16-products")), 1).precision == "float32"


@pytest.mark.parametrize("precision", ["float32", "bfloat16-products"])
def test_a_new_bank_of_stacks_is_timed_in_both_of_their_precisions(tmp_path, monkeypatch, precision):
    bank, timed = prepare(tmp_path, replace(SMALL, precision=precision)), []

    def time_step(runs, data, labels, recipe):
        timed.append(recipe.precision)
        return {"float32": 0.3, "bfloat16-products": 0.2}[recipe.precision] * len(runs)

    monkeypatch.setattr(precision_times, "time_step", time_step)
    times = time_precisions(bank.store, bank.splits)
    assert timed[:2] == ["float32", "bfloat16-products"]
    assert (times.float32, times.bfloat16_products) == pytest.approx((0.3, 0.2))
    assert times.gain == pytest.approx(1.5)
    assert times.precision == precision


def test_a_choice_that_is_none_is_not_timed(tmp_path):
    other = prepare_bank(replace(CNN, store=str(tmp_path / "cnn")))
    adam = prepare_bank(replace(SMALL, store=str(tmp_path / "adam"), optimizer="adam", lr=0.001))
    stored = open_bank(replace(SMALL, store=str(tmp_path / "stored")))
    for bank in (other, adam, stored):
        assert time_precisions(bank.store, bank.splits) is None
    rounded = open_bank(replace(SMALL, store=str(tmp_path / "rounded"), precision="bfloat16-products"))
    times = time_precisions(rounded.store, rounded.splits)
    assert 0 < times.bfloat16_products < 1
    assert 0 < times.float32 < 1
