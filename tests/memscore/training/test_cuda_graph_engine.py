"""The CUDA graph engine's step, called instead of replayed, so that a CPU can test it; the graph needs a GPU."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from memscore.models.architectures import Classifier, build_network, compute_logits
from memscore.pipeline import train_bank
from memscore.pipeline.config import BankConfig
from memscore.pipeline.jobs import BankJob, OriginalJob, compute_job_key, run_job
from memscore.pipeline.train_bank import build_shared_data, choose_models_per_job
from memscore.training import cuda_graphs, engines
from memscore.training.cuda_graphs import CudaGraphEngine, CudaGraphForward
from memscore.training.device_data import to_device
from memscore.training.engines import MultiStreamEngine, select_engine
from memscore.training.evaluation import evaluate_examples
from memscore.training.graph_recording import GraphCaptureError
from memscore.training.learning_events import LearningEvents
from memscore.training.loop import EagerEngine, TrainingRun, train
from memscore.training.recipes import Recipe
from memscore.training.step_flops import count_step_flops
from tests.fixtures.opened import open_bank

CPU = torch.device("cpu")
N, K = 70, 3
RECIPE = Recipe(epochs=3, batch=16, lr=0.05, schedule="cosine")
CNN, RESNET = ("cnn-4-8", (2, 8, 8)), ("resnet18-imagenet-stem", (3, 16, 16))


def data(shape, n=N):
    rng = np.random.default_rng(0)
    raw = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
    images = to_device(raw, (0.4,) * shape[0], (0.3,) * shape[0], CPU, flat=False)
    return images, torch.from_numpy(rng.integers(0, K, n))


def make_run(i, arch, shape, rows=40):
    return TrainingRun(
        model=build_network(arch, shape, K, seed=i),
        rows=np.sort(np.random.default_rng(i).choice(N, rows + i % 3, replace=False)),
        order_rng=np.random.default_rng(100 + i),
        augmentation_rng=np.random.default_rng(200 + i),
        architecture=arch,
    )


def values(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_equal(actual, other):
    assert actual.keys() == other.keys()
    assert [name for name in actual if not torch.equal(actual[name], other[name])] == []


def train_eagerly(i, kind, recipe=RECIPE, steps=7, **kwargs):
    images, labels = data(kind[1])
    run = make_run(i, *kind)
    train([run], images, labels, recipe, steps, engine=EagerEngine(run, images, labels, recipe), **kwargs)
    return values(run.model)


CHANGES = {
    "momentum": {},
    "no momentum": {"momentum": 0.0},
    "nesterov": {"nesterov": True},
    "crop and flip": {"augment": ("crop", "flip"), "crop_padding": 2},
    "flip": {"augment": ("flip",)},
    "adamw": {"optimizer": "adamw", "lr": 0.002},
    "bfloat16": {"precision": "bfloat16"},
    "steps": {"schedule": "steps", "milestones": (1, 2)},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_its_steps_are_the_eager_engine_s(change):
    # the same operations in the same order; a momentum of zeros gives the same first step. Only Adam computes with the
    # rate in float64 before it rounds, so there a rate that comes in float32 shows in the last bits.
    recipe = replace(RECIPE, **change)
    images, labels = data(CNN[1])
    runs = [make_run(i, *CNN) for i in range(3)]
    engines = [CudaGraphEngine(runs[0].model, images, labels, recipe, capture=False) for _ in runs]
    train(runs, images, labels, recipe, 7, engine=MultiStreamEngine(engines, runs))
    for i, run in enumerate(runs):
        expected_values = train_eagerly(i, CNN, recipe)
        if recipe.optimizer == "sgd":
            assert_equal(values(run.model), expected_values)
        else:
            torch.testing.assert_close(values(run.model), expected_values)


@pytest.mark.parametrize("kind", [("mlp-20", (1, 5, 5)), RESNET], ids=["mlp", "batch norm"])
def test_other_networks_and_their_running_statistics_too(kind):
    images, labels = data(kind[1])
    run = make_run(1, *kind)
    engine = CudaGraphEngine(run.model, images, labels, RECIPE, capture=False)
    train([run], images, labels, RECIPE, 5, engine=MultiStreamEngine([engine], [run]))
    assert_equal(values(run.model), train_eagerly(1, kind, steps=5))


def test_nothing_remains_of_the_previous_model():
    images, labels = data(RESNET[1])
    first, second = make_run(0, *RESNET), make_run(1, *RESNET)
    engine = CudaGraphEngine(first.model, images, labels, RECIPE, capture=False)
    storage = [value.data_ptr() for value in engine.network.state_dict().values()]
    train([first], images, labels, RECIPE, 4, engine=MultiStreamEngine([engine], [first]))
    cached = values(first.model)
    train([second], images, labels, RECIPE, 4, engine=MultiStreamEngine([engine], [second]))
    assert_equal(values(second.model), train_eagerly(1, RESNET, steps=4))
    assert_equal(values(first.model), cached)
    assert storage == [value.data_ptr() for value in engine.network.state_dict().values()]


def test_warmup_and_timing_change_no_model_and_no_generator(monkeypatch):
    monkeypatch.setattr(engines, "AUTOTUNE_STEPS", 2)
    images, labels = data(RESNET[1])
    run = make_run(2, *RESNET)
    before, rng_state = values(run.model), torch.get_rng_state()
    candidates = [CudaGraphEngine(run.model, images, labels, RECIPE, capture=False) for _ in range(2)]
    assert not torch.equal(
        candidates[0].network.body.bn1.running_mean, run.model.body.bn1.running_mean
    )  # warm-up steps were run
    engines.measure_seconds_per_step(candidates)
    assert_equal(values(run.model), before)
    assert torch.equal(torch.get_rng_state(), rng_state)
    train([run], images, labels, RECIPE, 4, engine=MultiStreamEngine(candidates, [run]))
    assert_equal(values(run.model), train_eagerly(2, RESNET, steps=4))


@pytest.mark.parametrize("ahead", [1, 3, 256])
def test_windows_epochs_and_learning_events_do_not_depend_on_the_tables(monkeypatch, ahead):
    monkeypatch.setattr(cuda_graphs, "MAX_TABLE_STEPS", ahead)
    images, labels = data(CNN[1])
    recipe = replace(RECIPE, batch=8, augment=("crop", "flip"), crop_padding=1)
    runs, events, epochs_seen = [make_run(i, *CNN) for i in range(2)], LearningEvents.zeros(2, N, CPU), []
    engines = [CudaGraphEngine(runs[0].model, images, labels, recipe, capture=False) for _ in runs]
    train(
        *(runs, images, labels, recipe, 14),
        events=events,
        on_epoch_end=lambda epoch: epochs_seen.append((epoch, values(runs[1].model))),
        engine=MultiStreamEngine(engines, runs),
    )
    alone, expected_values = LearningEvents.zeros(1, N, CPU), []
    run = make_run(1, *CNN)
    single = EagerEngine(run, images, labels, recipe)
    train(
        *([run], images, labels, recipe, 14),
        events=alone,
        on_epoch_end=lambda epoch: expected_values.append((epoch, values(run.model))),
        engine=single,
    )
    assert [epoch for epoch, _ in epochs_seen] == [epoch for epoch, _ in expected_values] == [1, 2, 3]
    for (_, got), (_, expected) in zip(epochs_seen, expected_values, strict=True):
        assert_equal(got, expected)
    for column, got in events.compute_averages(1).items():
        np.testing.assert_array_equal(got, alone.compute_averages(0)[column])


def test_engines_are_cached_for_one_architecture_recipe_and_data_set():
    images, labels = data(CNN[1])
    runs = [make_run(i, *CNN) for i in range(2)]
    choice = select_engine(runs, images, labels, RECIPE, capture=False)
    assert choice.receipt_fields["engine"] == "uncaptured"
    [cached] = engines._engine_cache.values()
    before = list(cached)
    select_engine(runs, images, labels, RECIPE, capture=False)
    assert [engine is old for engine, old in zip(cached, before, strict=True)] == [True] * len(before)
    for others in (data(CNN[1]), (images, labels)):
        recipe = replace(RECIPE, momentum=0.5) if others[0] is images else RECIPE
        select_engine(runs, *others, recipe, capture=False)
        [now] = engines._engine_cache.values()
        assert all(engine is not old for engine in now for old in before)


@pytest.mark.parametrize(("models", "best"), [(1, 1), (3, 2), (4, 4)])
def test_the_fastest_number_of_streams_is_timed_once_and_the_other_engines_are_deleted(monkeypatch, models, best):
    timed_counts = []

    def seconds(engines):
        timed_counts.append(len(engines))
        return 1 / len(engines)

    monkeypatch.setattr(engines, "measure_seconds_per_step", seconds)
    images, labels = data(CNN[1])
    runs = [make_run(i, *CNN) for i in range(models)]
    for _ in range(2):
        choice = select_engine(runs, images, labels, RECIPE, capture=False)
        assert choice.models_per_call == choice.receipt_fields["streams"] == best
    assert timed_counts == [count for count in (1, 2, 4) if count <= models > 1]
    [cached] = engines._engine_cache.values()
    assert len(cached) == best


def test_where_more_networks_do_not_fit_fewer_are_trained_at_once(monkeypatch):
    created = []

    class Large(CudaGraphEngine):
        def __init__(self, *args, **kwargs):
            if len(created) == 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            super().__init__(*args, **kwargs)
            created.append(self)

    monkeypatch.setattr(engines, "CudaGraphEngine", Large)
    monkeypatch.setattr(engines, "measure_seconds_per_step", lambda engines: 1 / len(engines))
    images, labels = data(CNN[1])
    runs = [make_run(i, *CNN) for i in range(4)]
    assert select_engine(runs, images, labels, RECIPE, capture=False).models_per_call == 2


def test_a_network_that_does_not_fit_at_all_is_the_pool_s_business(monkeypatch):
    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(engines, "CudaGraphEngine", full)
    with pytest.raises(torch.OutOfMemoryError):
        select_engine([make_run(0, *CNN)], *data(CNN[1]), RECIPE, capture=False)


def test_networks_that_draw_on_the_device_run_one_at_a_time(monkeypatch):
    class Drawing(CudaGraphEngine):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.uses_device_rng = True

    monkeypatch.setattr(engines, "CudaGraphEngine", Drawing)
    monkeypatch.setattr(engines, "measure_seconds_per_step", lambda engines: 1 / len(engines))
    images, labels = data(CNN[1])
    assert (
        select_engine([make_run(i, *CNN) for i in range(4)], images, labels, RECIPE, capture=False).models_per_call == 1
    )


def test_what_cannot_be_captured_is_trained_eagerly_with_one_warning(monkeypatch, caplog):
    def refuse(*args, **kwargs):
        raise GraphCaptureError("a step waits for the device: it asks")

    monkeypatch.setattr(engines, "CudaGraphEngine", refuse)
    images, labels = data(CNN[1])
    for _ in range(2):
        runs = [make_run(i, *CNN) for i in range(2)]
        choice = select_engine(runs, images, labels, RECIPE, capture=False)
        assert choice.receipt_fields == {"engine": "eager, because a step waits for the device: it asks", "streams": 1}
        assert choice.models_per_call == 1
        train(runs[:1], images, labels, RECIPE, 7, engine=choice.engine(runs[:1]))
        assert_equal(values(runs[0].model), train_eagerly(0, CNN))
    assert [record.getMessage() for record in caplog.records] == [
        "cnn-4-8 is trained without a CUDA graph, which is slower, because a step waits for the device: it asks"
    ]


def test_a_network_without_a_name_is_never_put_into_another_s_graph():
    run = replace(make_run(0, *CNN), architecture="")
    choice = select_engine([run], *data(CNN[1]), RECIPE, capture=False)
    assert choice.receipt_fields["engine"] == "eager, because nobody says what architecture it is"
    assert engines._engine_cache == {}


def test_a_network_that_cannot_be_copied_raises():
    class Attached(nn.Module):
        def __deepcopy__(self, memo):
            raise TypeError("it holds a lock")

    network = Classifier(Attached(), nn.Linear(4, K))
    with pytest.raises(GraphCaptureError, match="it cannot be copied: it holds a lock"):
        CudaGraphEngine(network, *data(CNN[1]), RECIPE, capture=False)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_evaluation_is_filled_up_reused_and_the_last_rows_are_right(monkeypatch, precision):
    monkeypatch.setattr(cuda_graphs, "GRAPH_EVALUATION_BATCH", 32)
    recipe = replace(RECIPE, precision=precision)
    images, labels = data(RESNET[1])
    models = [build_network(*RESNET, K, seed=i).eval() for i in range(2)]
    static = CudaGraphForward(models[0], images.take(torch.arange(5)), recipe, capture=False)
    autocast = torch.bfloat16 if precision == "bfloat16" else None
    for model in (*models, models[0]):
        static.load(model)
        outputs = evaluate_examples(static, images, labels, batch=50)
        expected_values = evaluate_examples(
            lambda shown, model=model: compute_logits(model, shown, autocast), images, labels, batch=50
        )
        # another batch, other blocks in the products: float32 differs in the last bits, bfloat16 in its own
        tolerance = {"float32": 1e-4, "bfloat16": 0.05}[precision]
        for column in ("logit_confidence", "gap", "top_gap"):
            np.testing.assert_allclose(outputs[column], expected_values[column], rtol=tolerance, atol=tolerance)


@pytest.fixture
def graph_engine_steps(monkeypatch):
    """Let jobs use the CUDA graph engine without its graph."""

    def choice(*args):
        return select_engine(*args, capture=False)

    monkeypatch.setattr("memscore.pipeline.jobs.select_engine", choice)


PLAN = BankConfig(
    data="digits", train_limit=120, epochs=1, design="exact", block=8, models=8, originals=1, arch="cnn-4-8",
    recipe="digits",
)  # fmt: skip


def trained_bank(folder):
    bank = open_bank(replace(PLAN, store=str(folder)))
    arm = bank.arms[0]
    bank.store.add_arm({"name": arm.name, "design": arm.design, "keep": arm.keep, "block": arm.block, "clusters": None})
    shared = build_shared_data(bank.splits, None)
    for models in ((0, 1, 2, 3), (4, 5, 6)):
        run_job(BankJob(store=bank.store.url, arm=arm.name, models=models, events=True), shared)
    original = OriginalJob(store=bank.store.url, index=0, evaluate=True)
    run_job(original, shared)
    return bank.store, compute_job_key(bank.store, original)


def test_jobs_of_four_give_the_shards_events_and_originals_of_one_at_a_time(tmp_path, request):
    plain, key = trained_bank(tmp_path / "plain")
    request.getfixturevalue("graph_engine_steps")
    store, _ = trained_bank(tmp_path / "several")
    for kind in ("shards", "events"):
        assert plain.folder.names(kind) == store.folder.names(kind)
        for name in store.folder.names(kind):
            assert store.folder.read(f"{kind}/{name}") == plain.folder.read(f"{kind}/{name}")
    for name, value in store.read_weights(key).items():
        assert torch.equal(value, plain.read_weights(key)[name])
    engines = {receipt["engine"] for receipt in store.receipts().values()}
    streams = {name: receipt["streams"] for name, receipt in store.receipts().items()}
    assert engines == {"uncaptured"}
    # jobs of four and of three models, whose last group may be smaller than the timing's best count
    assert set(streams.values()) <= {1, 2, 3, 4}
    assert streams["original-00000"] == 1
    assert {receipt["engine"] for receipt in plain.receipts().values()} == {"single, compiled convolutions"}


def test_a_job_on_a_gpu_carries_as_many_models_as_fill_it(tmp_path, monkeypatch):
    cnn = open_bank(replace(PLAN, store=str(tmp_path / "cnn"))).store
    mlp = open_bank(replace(PLAN, store=str(tmp_path / "mlp"), arch="mlp-64")).store
    assert [choose_models_per_job(cnn, device) for device in ("cpu", "cuda")] == [1, 16]
    assert [choose_models_per_job(mlp, device) for device in ("cpu", "cuda")] == [64, 512]
    # a convolution of 4 filters on 8x8 digits, pooled, one of 8, pooled, and the head; the first computes no gradient
    # of its input, so that it does two products and the others three
    convolutions = [2 * 64 * 4 * 9, 3 * 16 * 8 * 9 * 4, 3 * 32 * 10]
    network = build_network("cnn-4-8", (1, 8, 8), 10, seed=0)
    assert count_step_flops(network, (1, 8, 8), 50) == 2 * 50 * sum(convolutions)
    monkeypatch.setattr(train_bank, "SMALL_STEP_FLOPS", 1)
    assert choose_models_per_job(cnn, "cuda") == 4
