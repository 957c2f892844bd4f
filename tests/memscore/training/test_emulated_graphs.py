"""Recorded steps against the eager engine's, bit for bit, on a CPU that emulates CUDA graphs.

python -m tests.memscore.training.test_emulated_graphs     prints the table of cases and of planted mistakes
"""

import sys
import tempfile
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn

from memscore.models.architectures import Classifier, compute_logits
from memscore.pipeline.jobs import BankJob, OriginalJob, compute_job_key, run_job
from memscore.pipeline.train_bank import build_shared_data
from memscore.training import cuda_graphs, engines
from memscore.training.cuda_graphs import CudaGraphEngine, CudaGraphForward
from memscore.training.engines import MultiStreamEngine, select_engine
from memscore.training.graph_recording import GraphCaptureError
from memscore.training.learning_events import LearningEvents
from memscore.training.loop import EagerEngine, train
from memscore.training.numerics import single_threaded
from tests.fixtures.opened import open_bank
from tests.memscore.training.graph_emulator import emulate_graphs, run_plain_convolutions
from tests.memscore.training.test_cuda_graph_engine import (
    CHANGES,
    CNN,
    CPU,
    PLAN,
    RECIPE,
    RESNET,
    K,
    N,
    data,
    make_run,
    train_eagerly,
    values,
)

pytestmark = pytest.mark.usefixtures("plain_convolutions")
HERE = "tests.memscore.training.test_emulated_graphs"
MLP, VIT, RESNET_32 = ("mlp-20", (1, 5, 5)), ("vit-narrow", (1, 8, 8)), ("resnet18-imagenet-stem", (3, 32, 32))
ADAMW = replace(RECIPE, optimizer="adamw", lr=0.001)
CASES = {
    **{f"cnn, {name}": (CNN, replace(RECIPE, **change), 7) for name, change in CHANGES.items()},
    "cnn, adam": (CNN, replace(ADAMW, optimizer="adam"), 7),
    "mlp": (MLP, RECIPE, 7),
    "resnet with batch norm": (RESNET, RECIPE, 2),
    "resnet with batch norm, bfloat16": (RESNET_32, replace(RECIPE, precision="bfloat16"), 2),
    "vit": (VIT, RECIPE, 3),
    "vit, adamw": (VIT, ADAMW, 3),
}
"""Name -> network, recipe, steps."""


def train_in_turn(kind, recipe, steps, *, capture, indices=(0, 1), make=make_run):
    """Train models one after the other on one engine that another model made; values of each."""
    images, labels = data(kind[1])
    runs = [make(i, *kind) for i in indices]
    with emulate_graphs() if capture else nullcontext():
        engine = CudaGraphEngine(make(9, *kind).model, images, labels, recipe, capture=capture)
        for run in runs:
            train([run], images, labels, recipe, steps, engine=MultiStreamEngine([engine], [run]))
    return [values(run.model) for run in runs]


def are_equal(first, second):
    """Whether two lists of models have the same bits."""
    return all(
        a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
        for a, b in zip(first, second, strict=True)
    )


def compare_case(kind, recipe, steps):
    """Captured models, those of the called step, and eager ones; the step's rate is rounded sooner under Adam."""
    indices = (1,) if kind is RESNET_32 else (0, 1)  # two of those take long
    captured = train_in_turn(kind, recipe, steps, capture=True, indices=indices)
    eager = [train_eagerly(i, kind, recipe, steps) for i in indices]
    called = eager if recipe.optimizer == "sgd" else train_in_turn(kind, recipe, steps, capture=False)
    return captured, called, eager


@pytest.mark.parametrize(("kind", "recipe", "steps"), CASES.values(), ids=CASES)
def test_replays_are_the_eager_engine_s_steps_bit_for_bit(kind, recipe, steps):
    captured, called, eager = compare_case(kind, recipe, steps)
    assert are_equal(captured, called)
    for got, expected in zip(captured, eager, strict=True):
        # torch's own tolerance for float32; on another CPU a ViT under AdamW differed by 4e-4
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-3 if recipe.optimizer != "sgd" else 0)
    assert len(captured) == 1 or not are_equal(captured[:1], captured[1:])


@pytest.mark.parametrize("streams", [1, 2, 3, 4])
@pytest.mark.parametrize("ahead", [3, 256])
def test_models_side_by_side_with_learning_events_are_those_trained_alone(monkeypatch, streams, ahead):
    monkeypatch.setattr(cuda_graphs, "MAX_TABLE_STEPS", ahead)
    check_streams(streams)


def check_streams(streams):
    images, labels = data(CNN[1])
    recipe = replace(RECIPE, batch=8, augment=("crop", "flip"), crop_padding=1)
    runs, events, epochs = [make_run(i, *CNN) for i in range(streams)], LearningEvents.zeros(streams, N, CPU), []
    with emulate_graphs():
        together = [CudaGraphEngine(runs[0].model, images, labels, recipe) for _ in runs]
        assert len({id(engine.stream) for engine in together}) == streams
        engine = MultiStreamEngine(together, runs)
        train(*(runs, images, labels, recipe, 14), events=events, on_epoch_end=epochs.append, engine=engine)
    assert epochs == [1, 2, 3]
    for i, run in enumerate(runs):
        alone = LearningEvents.zeros(1, N, CPU)
        assert are_equal([values(run.model)], [train_eagerly(i, CNN, recipe, 14, events=alone)])
        for column, got in events.compute_averages(i).items():
            np.testing.assert_array_equal(got, alone.compute_averages(0)[column])


def test_the_selected_engine_trains_a_job_of_seven_models(monkeypatch):
    monkeypatch.setattr(engines, "measure_seconds_per_step", lambda engines: 1 / len(engines))
    images, labels = data(CNN[1])
    runs = [make_run(i, *CNN) for i in range(7)]
    with emulate_graphs():
        choice = select_engine(runs, images, labels, RECIPE, capture=True)
        for k in range(0, 7, choice.models_per_call):
            part = runs[k : k + choice.models_per_call]
            train(part, images, labels, RECIPE, 7, engine=choice.engine(part))
    assert are_equal([values(run.model) for run in runs], [train_eagerly(i, CNN) for i in range(7)])
    assert choice.models_per_call == 4  # the largest count that 7 models fill
    fields = [choice.describe_model(k, 7) for k in range(7)]
    assert fields == [{"engine": "captured", "streams": 4}] * 4 + [{"engine": "captured", "streams": 3}] * 3


def test_an_evaluation_is_replayed_with_the_weights_of_each_model(monkeypatch):
    monkeypatch.setattr(cuda_graphs, "GRAPH_EVALUATION_BATCH", 32)
    images, _ = data(RESNET[1])
    shown = images.take(torch.arange(N))
    models = [make_run(i, *RESNET).model.eval() for i in range(2)]
    with emulate_graphs():
        graph = CudaGraphForward(models[0], shown, RECIPE)
        for model in (*models, models[0]):
            graph.load(model)
            # other blocks in the products than of the whole batch, so the last bits differ
            torch.testing.assert_close(graph(shown), compute_logits(model, shown, None), rtol=1e-4, atol=1e-4)


class DropPath(nn.Module):
    """Leaves out the whole layer for some images: torch's generator, by another function than dropout's."""

    def forward(self, images):
        return images * (torch.rand(len(images), 1) < 0.8) / 0.8


def make_drawing_run(i, arch, shape):
    body = nn.Sequential(nn.Flatten(), nn.Linear(25, 16), DropPath(), nn.ReLU(), nn.Dropout(0.5))
    run = make_run(i, *MLP)
    torch.nn.init.trunc_normal_(body[1].weight, generator=torch.Generator().manual_seed(i))
    head = run.model.head if i < 0 else nn.Linear(16, K)
    torch.nn.init.trunc_normal_(head.weight, generator=torch.Generator().manual_seed(i))
    torch.nn.init.zeros_(head.bias)
    torch.nn.init.zeros_(body[1].bias)
    return replace(run, model=Classifier(body, head), architecture="drawing", network_seed=1000 + i)


def test_networks_that_draw_do_so_from_their_own_seed_in_a_graph_as_in_the_eager_engine():
    images, labels = data(MLP[1])

    def train_alone(i):
        run = make_drawing_run(i, *MLP)
        train([run], images, labels, RECIPE, 7, engine=EagerEngine(run, images, labels, RECIPE))
        return values(run.model)

    eager = [train_alone(i) for i in range(2)]
    torch.rand(3)  # whatever the process has drawn before
    assert are_equal(train_in_turn(MLP, RECIPE, 7, capture=True, make=make_drawing_run), eager)
    torch.rand(3)
    assert are_equal(train_in_turn(MLP, RECIPE, 7, capture=True, indices=(1, 0), make=make_drawing_run), eager[::-1])
    with emulate_graphs():
        runs = [make_drawing_run(i, *MLP) for i in range(4)]
        before = torch.default_generator.get_state()
        choice = select_engine(runs, images, labels, RECIPE, capture=True)
        assert (choice.models_per_call, choice.receipt_fields["engine"]) == (1, "captured")
        [cached] = engines._engine_cache.values()
        assert len(cached) == 1
        assert torch.equal(before, torch.default_generator.get_state())
        # the same model and examples under another seed: it is the draws that differ
        other = replace(runs[0], network_seed=7)
        train([other], images, labels, RECIPE, 7, engine=choice.engine([other]))
    assert not are_equal([values(other.model)], eager[:1])


def train_jobs(folder, capture, plan=PLAN):
    """A bank of two jobs and an original by whole jobs."""
    bank = open_bank(replace(plan, store=str(folder)))
    arm, device = bank.arms[0], "cpu"
    bank.store.add_arm({"name": arm.name, "design": arm.design, "keep": arm.keep, "block": arm.block, "clusters": None})
    shared = build_shared_data(bank.splits, None)

    def choose(*args):
        return select_engine(*args, capture=True if capture else None)

    with mock.patch("memscore.pipeline.jobs.select_engine", choose), emulate_graphs() if capture else nullcontext():
        for models in ((0, 1, 2, 3), (4, 5, 6)):
            run_job(BankJob(store=bank.store.url, arm=arm.name, models=models, events=True, device=device), shared)
        original = OriginalJob(store=bank.store.url, index=0, evaluate=True)
        run_job(original, shared)
    return bank.store, compute_job_key(bank.store, original)


def compare_jobs(folder, plan=PLAN):
    """Names of files that differ between jobs by graphs and jobs by the eager engine; receipts of the former."""
    (captured, key), (eager, _) = (train_jobs(folder / str(c), c, plan) for c in (True, False))
    different = [
        name
        for kind in ("shards", "events", "weights", "outputs")
        for name in {*captured.folder.names(kind), *eager.folder.names(kind)}
        if captured.folder.read(f"{kind}/{name}") != eager.folder.read(f"{kind}/{name}")
    ]
    assert len(captured.folder.names("shards")) == 7
    assert captured.has_weights(key)
    return different, captured.receipts()


def test_whole_jobs_leave_the_same_files_byte_for_byte(tmp_path, monkeypatch):
    monkeypatch.setattr(engines, "measure_seconds_per_step", lambda engines: 1 / len(engines))
    different, receipts = compare_jobs(tmp_path)
    assert different == []
    assert {receipt["engine"] for receipt in receipts.values()} == {"captured"}
    # what each model really used: jobs of 4 and 3 models, and an original
    assert sorted(receipt["streams"] for receipt in receipts.values()) == [1, 3, 3, 3, 4, 4, 4, 4]


def build_dropout_cnn(shape, n_classes):
    pixels = int(np.prod(shape))
    body = nn.Sequential(nn.Conv2d(shape[0], 4, 3, padding=1), nn.ReLU(), nn.Dropout(0.3), nn.Flatten())
    return Classifier(body, nn.Linear(4 * pixels // shape[0], n_classes))


def test_whole_jobs_of_a_network_with_dropout_too(tmp_path):
    arch = f"{HERE}:build_dropout_cnn"
    different, receipts = compare_jobs(tmp_path, replace(PLAN, arch=arch))
    assert different == []
    assert {(receipt["engine"], receipt["streams"]) for receipt in receipts.values()} == {("captured", 1)}


# Mistakes that the step, called on a CPU, does not show.


@contextmanager
def rate_as_a_number():
    """The host sets the rate before each step."""
    real_step, real_fill = CudaGraphEngine.step, CudaGraphEngine.fill_tables

    def step(self):
        rates = getattr(self, "rates", iter(()))
        self.optimizer.param_groups[0]["lr"] = next(rates, 0.0)
        real_step(self)

    def fill_tables(self, rows, learning_rates):
        self.rates = iter(learning_rates)
        real_fill(self, rows, learning_rates)

    with mock.patch.multiple(CudaGraphEngine, step=step, fill_tables=fill_tables):
        yield


@contextmanager
def rate_read_on_the_host():
    real_step = CudaGraphEngine.step

    def step(self):
        self.optimizer.param_groups[0]["lr"] = float(self.learning_rates[int(self.position)])
        real_step(self)

    with mock.patch.object(CudaGraphEngine, "step", step):
        yield


@contextmanager
def flip_drawn_in_the_step():
    """Each step draws its own augmentation, in the eager engine's order."""
    real_step, real_fill = CudaGraphEngine.step, CudaGraphEngine.fill_tables

    def step(self):
        _, mirrored = cuda_graphs.sample_augmentation(self.recipe, self.recipe.batch, self.augmentation_rng)
        self.mirrored[:] = torch.from_numpy(mirrored)
        real_step(self)

    def fill_tables(self, rows, learning_rates):
        unaugmented, self.recipe = self.recipe, replace(self.recipe, augment=())
        real_fill(self, rows, learning_rates)
        self.recipe = unaugmented

    with mock.patch.multiple(CudaGraphEngine, step=step, fill_tables=fill_tables):
        yield


@contextmanager
def table_replaced():
    """A table is a new tensor in each window, whose address the graph does not know."""
    real = CudaGraphEngine.fill_tables

    def fill_tables(self, rows, learning_rates):
        self.learning_rates = self.learning_rates.clone()
        real(self, rows, learning_rates)

    with mock.patch.object(CudaGraphEngine, "fill_tables", fill_tables):
        yield


@contextmanager
def momentum_replaced():
    """The optimizer starts each model with new momenta instead of zeroed ones."""
    real = CudaGraphEngine.load

    def load(self, run):
        real(self, run)
        for state in self.optimizer.state.values():
            state["momentum_buffer"] = torch.zeros_like(state["momentum_buffer"])

    with mock.patch.object(CudaGraphEngine, "load", load):
        yield


MISTAKES = {
    "a rate that is a Python number": (rate_as_a_number, "other bits"),
    "a rate read on the host": (rate_read_on_the_host, "a step waits for the device"),
    "a flip drawn in the step": (flip_drawn_in_the_step, "other bits"),
    "a table that is a new tensor in each window": (table_replaced, "other bits"),
    "new momenta for each model": (momentum_replaced, "other bits"),
}
"""Name -> what makes it, what the emulated graph shows."""


def judge_mistake(plant):
    """What the called step and the emulated graph show of a mistake: "equal bits", "other bits", or a refusal."""
    recipe, verdicts = replace(RECIPE, augment=("flip",)), []
    expected = [train_eagerly(i, CNN, recipe) for i in range(2)]
    for capture in (False, True):
        try:
            with plant():
                equal = are_equal(train_in_turn(CNN, recipe, 7, capture=capture), expected)
            verdicts.append("equal bits" if equal else "other bits")
        except GraphCaptureError as error:
            verdicts.append(str(error))
    return verdicts


@pytest.mark.parametrize(("plant", "shown"), MISTAKES.values(), ids=MISTAKES)
def test_the_emulated_graph_shows_mistakes_that_the_called_step_does_not(plant, shown):
    called, captured = judge_mistake(plant)
    assert called == "equal bits"
    assert captured.startswith(shown)


def test_without_a_mistake_both_have_equal_bits():
    assert judge_mistake(nullcontext) == ["equal bits"] * 2


def main() -> None:
    """Print the table."""
    rows = []
    with single_threaded():
        for name, (kind, recipe, steps) in CASES.items():
            captured, called, eager = compare_case(kind, recipe, steps)
            difference = max(
                float((got[key].double() - expected[key].double()).abs().max())
                for got, expected in zip(captured, eager, strict=True)
                for key in got
            )
            engine = "eager" if recipe.optimizer == "sgd" else f"called step (eager: within {difference:.1e})"
            rows.append((name, engine, are_equal(captured, called)))
        for streams in (1, 2, 3, 4):
            check_streams(streams)
            rows.append((f"cnn, {streams} streams, crop, flip, learning events", "eager", True))
        with tempfile.TemporaryDirectory() as folder:
            plans = {"cnn": PLAN, "cnn with dropout": replace(PLAN, arch=f"{HERE}:build_dropout_cnn")}
            for name, plan in plans.items():
                different, _ = compare_jobs(Path(folder) / name, plan)
                rows.append((f"whole jobs, {name}", "eager", different == []))
        lines = ["| case | equal to | equal bits |", "|---|---|---|"]
        lines += [f"| {case} | {engine} | {'yes' if equal else 'NO'} |" for case, engine, equal in rows]
        lines += ["", "| mistake | called step | caught by the emulated graph |", "|---|---|---|"]
        lines += [f"| {name} | {' | '.join(judge_mistake(plant))} |" for name, (plant, _) in MISTAKES.items()]
        sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    with run_plain_convolutions():
        main()
