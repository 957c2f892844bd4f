"""The captured engine's step, called instead of replayed, so that a CPU can show what it does; the graph is a GPU's."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from memscore.models.architectures import Classifier, build, logits
from memscore.pipeline import jobs
from memscore.pipeline.config import Plan
from memscore.pipeline.jobs import BankJob, OriginalJob, key_of, work
from memscore.pipeline.runner import open_bank
from memscore.pipeline.train_bank import group_size, shared_of
from memscore.training import cuda_graphs, engines
from memscore.training.cuda_graphs import CannotCapture, Captured, CapturedForward
from memscore.training.device_data import resident
from memscore.training.engines import Abreast, way_to_train
from memscore.training.evaluation import observe
from memscore.training.learning_events import Events
from memscore.training.loop import Assignment, Single, train
from memscore.training.numerics import one_thread
from memscore.training.recipes import Recipe

CPU = torch.device("cpu")
N, K = 70, 3
RECIPE = Recipe(epochs=3, batch=16, lr=0.05, schedule="cosine")
CNN, RESNET = ("cnn-4-8", (2, 8, 8)), ("resnet18-imagenet-stem", (3, 16, 16))


@pytest.fixture(autouse=True)
def fresh():
    """One thread, and no engine that another test has left."""
    with one_thread():
        yield
    engines.forget()
    for kept in (engines._refused, engines._fastest, jobs._static):
        kept.clear()


def data(shape, n=N):
    rng = np.random.default_rng(0)
    raw = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
    images = resident(raw, (0.4,) * shape[0], (0.3,) * shape[0], CPU, flat=False)
    return images, torch.from_numpy(rng.integers(0, K, n))


def assignment(i, arch, shape, rows=40):
    return Assignment(
        model=build(arch, shape, K, seed=i),
        rows=np.sort(np.random.default_rng(i).choice(N, rows + i % 3, replace=False)),
        order=np.random.default_rng(100 + i),
        chance=np.random.default_rng(200 + i),
        architecture=arch,
    )


def values(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_equal(one, other):
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def by_single(i, kind, recipe=RECIPE, steps=7, **kwargs):
    images, labels = data(kind[1])
    own = assignment(i, *kind)
    train([own], images, labels, recipe, steps, engine=Single(own, images, labels, recipe), **kwargs)
    return values(own.model)


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
def test_its_steps_are_the_single_engine_s(change):
    # the same operations in the same order; a momentum of zeros gives the same first step. Only Adam computes with the
    # rate in float64 before it rounds, so there a rate that comes in float32 shows in the last bits.
    recipe = replace(RECIPE, **change)
    images, labels = data(CNN[1])
    chosen = [assignment(i, *CNN) for i in range(3)]
    engines = [Captured(chosen[0].model, images, labels, recipe, capture=False) for _ in chosen]
    train(chosen, images, labels, recipe, 7, engine=Abreast(engines, chosen))
    for i, own in enumerate(chosen):
        wanted = by_single(i, CNN, recipe)
        if recipe.optimizer == "sgd":
            assert_equal(values(own.model), wanted)
        else:
            torch.testing.assert_close(values(own.model), wanted)


@pytest.mark.parametrize("kind", [("mlp-20", (1, 5, 5)), RESNET], ids=["mlp", "batch norm"])
def test_other_networks_and_their_running_statistics_too(kind):
    images, labels = data(kind[1])
    own = assignment(1, *kind)
    engine = Captured(own.model, images, labels, RECIPE, capture=False)
    train([own], images, labels, RECIPE, 5, engine=Abreast([engine], [own]))
    assert_equal(values(own.model), by_single(1, kind, steps=5))


def test_nothing_of_the_model_before_is_left():
    images, labels = data(RESNET[1])
    first, second = assignment(0, *RESNET), assignment(1, *RESNET)
    engine = Captured(first.model, images, labels, RECIPE, capture=False)
    storage = [value.data_ptr() for value in engine.net.state_dict().values()]
    train([first], images, labels, RECIPE, 4, engine=Abreast([engine], [first]))
    kept = values(first.model)
    train([second], images, labels, RECIPE, 4, engine=Abreast([engine], [second]))
    assert_equal(values(second.model), by_single(1, RESNET, steps=4))
    assert_equal(values(first.model), kept)
    assert storage == [value.data_ptr() for value in engine.net.state_dict().values()]


def test_rehearsals_and_trials_leave_no_trace(monkeypatch):
    monkeypatch.setattr(engines, "TRIED", 2)
    images, labels = data(RESNET[1])
    own = assignment(2, *RESNET)
    before, drawn = values(own.model), torch.get_rng_state()
    candidates = [Captured(own.model, images, labels, RECIPE, capture=False) for _ in range(2)]
    assert not torch.equal(candidates[0].net.body.bn1.running_mean, own.model.body.bn1.running_mean)  # it has rehearsed
    engines.seconds_a_step(candidates)
    assert_equal(values(own.model), before)
    assert torch.equal(torch.get_rng_state(), drawn)
    train([own], images, labels, RECIPE, 4, engine=Abreast(candidates, [own]))
    assert_equal(values(own.model), by_single(2, RESNET, steps=4))


@pytest.mark.parametrize("ahead", [1, 3, 256])
def test_windows_epochs_and_learning_events_do_not_depend_on_the_tables(monkeypatch, ahead):
    monkeypatch.setattr(cuda_graphs, "AHEAD", ahead)
    images, labels = data(CNN[1])
    recipe = replace(RECIPE, batch=8, augment=("crop", "flip"), crop_padding=1)
    chosen, events, seen = [assignment(i, *CNN) for i in range(2)], Events.none_yet(2, N, CPU), []
    engines = [Captured(chosen[0].model, images, labels, recipe, capture=False) for _ in chosen]
    train(
        *(chosen, images, labels, recipe, 14),
        events=events,
        at_epoch=lambda epoch: seen.append((epoch, values(chosen[1].model))),
        engine=Abreast(engines, chosen),
    )
    alone, wanted = Events.none_yet(1, N, CPU), []
    own = assignment(1, *CNN)
    single = Single(own, images, labels, recipe)
    train(
        *([own], images, labels, recipe, 14),
        events=alone,
        at_epoch=lambda epoch: wanted.append((epoch, values(own.model))),
        engine=single,
    )
    assert [epoch for epoch, _ in seen] == [epoch for epoch, _ in wanted] == [1, 2, 3]
    for (_, got), (_, expected) in zip(seen, wanted, strict=True):
        assert_equal(got, expected)
    for column, got in events.averages(1).items():
        np.testing.assert_array_equal(got, alone.averages(0)[column])


def test_engines_are_kept_for_one_architecture_recipe_and_data_set():
    images, labels = data(CNN[1])
    chosen = [assignment(i, *CNN) for i in range(2)]
    way = way_to_train(chosen, images, labels, RECIPE, capture=False)
    assert way.facts["engine"] == "uncaptured"
    [kept] = engines._kept.values()
    before = list(kept)
    way_to_train(chosen, images, labels, RECIPE, capture=False)
    assert [engine is old for engine, old in zip(kept, before, strict=True)] == [True] * len(before)
    for others in (data(CNN[1]), (images, labels)):
        recipe = replace(RECIPE, momentum=0.5) if others[0] is images else RECIPE
        way_to_train(chosen, *others, recipe, capture=False)
        [now] = engines._kept.values()
        assert all(engine is not old for engine in now for old in before)


@pytest.mark.parametrize(("models", "best"), [(1, 1), (3, 2), (4, 4)])
def test_the_fastest_number_of_streams_is_taken_tried_once_and_the_others_given_up(monkeypatch, models, best):
    tried = []

    def seconds(engines):
        tried.append(len(engines))
        return 1 / len(engines)

    monkeypatch.setattr(engines, "seconds_a_step", seconds)
    images, labels = data(CNN[1])
    chosen = [assignment(i, *CNN) for i in range(models)]
    for _ in range(2):
        way = way_to_train(chosen, images, labels, RECIPE, capture=False)
        assert way.together == way.facts["streams"] == best
    assert tried == [count for count in (1, 2, 4) if count <= models > 1]
    [kept] = engines._kept.values()
    assert len(kept) == best


def test_where_more_networks_do_not_fit_fewer_are_trained_at_once(monkeypatch):
    made = []

    class Large(Captured):
        def __init__(self, *args, **kwargs):
            if len(made) == 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr(engines, "Captured", Large)
    monkeypatch.setattr(engines, "seconds_a_step", lambda engines: 1 / len(engines))
    images, labels = data(CNN[1])
    chosen = [assignment(i, *CNN) for i in range(4)]
    assert way_to_train(chosen, images, labels, RECIPE, capture=False).together == 2


def test_a_network_that_does_not_fit_at_all_is_the_pool_s_business(monkeypatch):
    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(engines, "Captured", full)
    with pytest.raises(torch.OutOfMemoryError):
        way_to_train([assignment(0, *CNN)], *data(CNN[1]), RECIPE, capture=False)


def test_networks_that_draw_on_the_device_run_one_at_a_time(monkeypatch):
    class Drawing(Captured):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.draws = True

    monkeypatch.setattr(engines, "Captured", Drawing)
    monkeypatch.setattr(engines, "seconds_a_step", lambda engines: 1 / len(engines))
    images, labels = data(CNN[1])
    assert way_to_train([assignment(i, *CNN) for i in range(4)], images, labels, RECIPE, capture=False).together == 1


def test_what_cannot_be_captured_is_trained_eagerly_and_says_so_once(monkeypatch, caplog):
    def refuse(*args, **kwargs):
        raise CannotCapture("a step waits for the device: it asks")

    monkeypatch.setattr(engines, "Captured", refuse)
    images, labels = data(CNN[1])
    for _ in range(2):
        chosen = [assignment(i, *CNN) for i in range(2)]
        way = way_to_train(chosen, images, labels, RECIPE, capture=False)
        assert way.facts == {"engine": "eager, because a step waits for the device: it asks", "streams": 1}
        assert way.together == 1
        train(chosen[:1], images, labels, RECIPE, 7, engine=way.engine(chosen[:1]))
        assert_equal(values(chosen[0].model), by_single(0, CNN))
    assert [record.getMessage() for record in caplog.records] == [
        "cnn-4-8 is trained without a CUDA graph, which is slower, because a step waits for the device: it asks"
    ]


def test_a_network_without_a_name_is_never_put_into_another_s_graph():
    own = replace(assignment(0, *CNN), architecture="")
    way = way_to_train([own], *data(CNN[1]), RECIPE, capture=False)
    assert way.facts["engine"] == "eager, because nobody says what architecture it is"
    assert engines._kept == {}


def test_a_network_that_cannot_be_copied_is_refused():
    class Attached(nn.Module):
        def __deepcopy__(self, memo):
            raise TypeError("it holds a lock")

    network = Classifier(Attached(), nn.Linear(4, K))
    with pytest.raises(CannotCapture, match="it cannot be copied: it holds a lock"):
        Captured(network, *data(CNN[1]), RECIPE, capture=False)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_evaluation_is_filled_up_reused_and_the_last_rows_are_right(monkeypatch, precision):
    monkeypatch.setattr(cuda_graphs, "EVALUATED", 32)
    recipe = replace(RECIPE, precision=precision)
    images, labels = data(RESNET[1])
    models = [build(*RESNET, K, seed=i).eval() for i in range(2)]
    static = CapturedForward(models[0], images.take(torch.arange(5)), recipe, capture=False)
    autocast = torch.bfloat16 if precision == "bfloat16" else None
    for model in (*models, models[0]):
        said = observe(lambda shown, model=model: static(model, shown), images, labels, batch=50)
        wanted = observe(lambda shown, model=model: logits(model, shown, autocast), images, labels, batch=50)
        # another batch, other blocks in the products: float32 differs in the last bits, bfloat16 in its own
        tolerance = {"float32": 1e-4, "bfloat16": 0.05}[precision]
        for column in ("logit_confidence", "gap", "top_gap"):
            np.testing.assert_allclose(said[column], wanted[column], rtol=tolerance, atol=tolerance)


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Jobs take the captured engine's path, without its graph."""

    def way(*args):
        return way_to_train(*args, capture=False)

    monkeypatch.setattr("memscore.pipeline.jobs.way_to_train", way)


PLAN = Plan(
    data="digits", train_limit=120, epochs=1, design="exact", block=8, models=8, originals=1, arch="cnn-4-8",
    recipe="digits",
)  # fmt: skip


def trained_bank(folder):
    bank = open_bank(replace(PLAN, store=str(folder)))
    arm = bank.arms[0]
    bank.store.add_arm({"name": arm.name, "design": arm.design, "keep": arm.keep, "block": arm.block, "clusters": None})
    shared = shared_of(bank.splits, None)
    for models in ((0, 1, 2, 3), (4, 5, 6)):
        work(BankJob(store=bank.store.url, arm=arm.name, models=models, events=True), shared)
    original = OriginalJob(store=bank.store.url, index=0, evaluate=True)
    work(original, shared)
    return bank.store, key_of(bank.store, original)


def test_jobs_of_four_give_the_shards_events_and_originals_of_one_at_a_time(tmp_path, request):
    plain, key = trained_bank(tmp_path / "plain")
    request.getfixturevalue("as_on_a_gpu")
    store, _ = trained_bank(tmp_path / "abreast")
    for kind in ("shards", "events"):
        assert plain.folder.names(kind) == store.folder.names(kind)
        for name in store.folder.names(kind):
            assert store.folder.read(f"{kind}/{name}") == plain.folder.read(f"{kind}/{name}")
    for name, value in store.read_weights(key).items():
        assert torch.equal(value, plain.read_weights(key)[name])
    engines = {receipt["engine"] for receipt in store.receipts().values()}
    streams = {r["streams"] for name, r in store.receipts().items() if not name.startswith("original")}
    assert engines == {"uncaptured"}
    assert len(streams) == 1
    assert streams < {1, 2, 4}
    assert {receipt["engine"] for receipt in plain.receipts().values()} == {"single"}


def test_a_job_on_a_gpu_carries_four_models_or_a_stack(tmp_path):
    cnn = open_bank(replace(PLAN, store=str(tmp_path / "cnn"))).store
    mlp = open_bank(replace(PLAN, store=str(tmp_path / "mlp"), arch="mlp-64")).store
    assert (group_size(cnn, "cpu"), group_size(cnn, "cuda")) == (1, 4)
    assert group_size(mlp, "cpu") == group_size(mlp, "cuda") > 4
