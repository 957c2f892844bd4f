"""The training loop against a plain one, and that a model's bits do not depend on the other models trained with it."""

from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, softplus

from memscore.models.architectures import build_network, find_mlp_layers
from memscore.training import numerics, stacked_mlp
from memscore.training.augmentation import augment
from memscore.training.device_data import round_up_to_alignment, to_device
from memscore.training.engines import select_engine
from memscore.training.evaluation import evaluate_examples
from memscore.training.graph_recording import GraphCaptureError
from memscore.training.learning_events import LearningEvents
from memscore.training.loop import EpochSampler, TrainingRun, is_stackable, split_into_windows, train
from memscore.training.numerics import float32_matmul
from memscore.training.recipes import Recipe, compute_lr
from memscore.training.stacked_mlp import StackedMLPEngine, compute_stack_size
from tests.memscore.training.graph_emulator import emulate_graphs

CPU = torch.device("cpu")
N, SHAPE, K = 90, (1, 7, 5), 3  # 35 inputs: not a multiple of 16
RECIPE = Recipe(epochs=3, batch=20, lr=0.1, schedule="cosine", source="test")


def toy_data(flat=True, shape=SHAPE):
    rng = np.random.default_rng(0)
    raw = rng.integers(0, 256, (N, *shape), dtype=np.uint8)
    labels = torch.from_numpy(rng.integers(0, K, N))
    channels = shape[0]
    return to_device(raw, (0.4,) * channels, (0.3,) * channels, CPU, flat=flat), labels


def make_runs(indices, arch="mlp-33", shape=SHAPE):
    return [
        TrainingRun(
            model=build_network(arch, shape, K, seed=i),
            rows=np.sort(np.random.default_rng(i).choice(N, 45 + i % 3, replace=False)),
            order_rng=np.random.default_rng(100 + i),
            augmentation_rng=np.random.default_rng(200 + i),
        )
        for i in indices
    ]


def weights(model):
    return [p.detach().clone() for p in model.parameters()]


def train_some(indices, *, steps=17, recipe=RECIPE, **kwargs):
    runs = make_runs(indices, **kwargs)
    images, labels = toy_data()
    with float32_matmul(CPU):
        train(runs, images, labels, recipe, steps)
    return {i: weights(a.model) for i, a in zip(indices, runs, strict=True)}


@pytest.mark.parametrize("changes", [{}, {"momentum": 0.0}, {"weight_decay": 0.0}])
@pytest.mark.parametrize("arch", ["mlp-33-17", "mlp-64-32", "mlp-3072"])  # padded, in one batch, in pieces
def test_a_stack_trains_each_model_like_a_plain_loop(arch, changes):
    images, labels = toy_data()
    recipe = replace(RECIPE, **changes)
    stacked = train_some([0, 1, 2], arch=arch, recipe=recipe)
    for i, twin in enumerate(make_runs([0, 1, 2], arch=arch)):
        order = EpochSampler(twin.rows, twin.order_rng)
        sgd = torch.optim.SGD(twin.model.parameters(), 1.0, recipe.momentum, weight_decay=recipe.weight_decay)
        for step in range(17):
            sgd.param_groups[0]["lr"] = compute_lr(RECIPE, step / 17)
            rows = torch.from_numpy(order.take(20)[0])
            sgd.zero_grad()
            cross_entropy(twin.model(images.take(rows)), labels[rows]).backward()
            sgd.step()
        for got, expected in zip(stacked[i], weights(twin.model), strict=True):
            torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("longest", [5, 256])
@pytest.mark.parametrize("arch", ["mlp-33-17", "mlp-3072"])
def test_a_captured_stack_takes_the_steps_of_a_plain_one(arch, longest, monkeypatch):
    monkeypatch.setattr(stacked_mlp, "MAX_TABLE_STEPS", longest)
    images, labels = toy_data()
    results = []
    for capture in (False, True):
        runs, events = make_runs([0, 1, 2], arch=arch), LearningEvents.zeros(3, len(labels), torch.device("cpu"))
        with emulate_graphs() if capture else nullcontext():
            choice = select_engine(runs, images, labels, RECIPE, capture=capture or None)
            assert choice.receipt_fields["engine"] == ("stack, captured" if capture else "stack")
            train(runs, images, labels, RECIPE, 17, events=events, engine=choice.engine(runs))
        results.append(
            [weights(run.model) for run in runs] + [[*events.compute_averages(k).values()] for k in range(3)]
        )
    for plain, captured in zip(*results, strict=True):
        for expected, got in zip(plain, captured, strict=True):
            pair = torch.as_tensor(got), torch.as_tensor(expected)
            torch.testing.assert_close(*pair, rtol=1e-5, atol=1e-6, equal_nan=True)  # NaN: never visited


def test_a_stack_that_cannot_be_captured_is_trained_without_a_graph(monkeypatch, caplog):
    def refuse(*args):
        raise GraphCaptureError("a step waits for the device")

    monkeypatch.setattr(stacked_mlp, "record_graph", refuse)
    images, labels = toy_data()
    runs = make_runs([0, 1, 2], arch="mlp-33-17")
    with emulate_graphs():
        choice = select_engine(runs, images, labels, RECIPE, capture=True)
        train(runs, images, labels, RECIPE, 17, engine=choice.engine(runs))
    assert choice.describe_model(0, 3) == {"engine": "stack, not captured because a step waits for the device"}
    assert len(caplog.records) == 1
    alone = train_some([0, 1, 2], arch="mlp-33-17").values()
    for got, expected in zip([weights(run.model) for run in runs], alone, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


@pytest.mark.parametrize("vendor", ["GenuineIntel", "AuthenticAMD"])  # both libraries of matrix products
@pytest.mark.parametrize("arch", ["mlp-33", "mlp-16", "mlp-9-21", "mlp-64-32", "mlp-3072"])
def test_a_models_bits_do_not_depend_on_its_place_or_on_other_models(arch, vendor, monkeypatch):
    monkeypatch.setattr(numerics, "cpu_vendor", lambda: vendor)
    together = train_some(list(range(7)), arch=arch)

    @settings(derandomize=True, deadline=None, max_examples=5)
    @given(st.permutations(range(7)), st.integers(1, 7))
    def in_any_group(order, size):
        for start in range(0, 7, size):
            group = list(order[start : start + size])
            for i, got in train_some(group, arch=arch).items():
                assert all(torch.equal(a, b) for a, b in zip(got, together[i], strict=True))

    in_any_group()


def test_the_engine_follows_from_architecture_and_recipe_alone():
    mlp, cnn = build_network("mlp-8", SHAPE, K, 0), build_network("cnn-4", SHAPE, K, 0)
    assert is_stackable(mlp, RECIPE)
    assert not is_stackable(cnn, RECIPE)
    for change in ({"augment": ("flip",)}, {"optimizer": "adam"}, {"nesterov": True}, {"precision": "bfloat16"}):
        assert not is_stackable(mlp, replace(RECIPE, **change))


def test_a_stack_fits_the_cache():
    small, large = build_network("mlp-32", (1, 8, 8), 10, 0), build_network("mlp-512-256", (1, 28, 28), 10, 0)
    assert compute_stack_size(small) == 64
    assert compute_stack_size(large) == 1
    # on a GPU 512 MiB of weights, momenta and gradients fill it
    assert [compute_stack_size(model, "cuda") for model in (small, large)] == [512, 64]


def test_a_sampler_reads_every_example_once_a_pass():
    order = EpochSampler(np.arange(10) * 3, np.random.default_rng(0))
    first, ending = order.take(7)
    assert ending == 0
    second, ending = order.take(7)
    assert ending == 3
    assert sorted([*first, *second[:3]]) == list(range(0, 30, 3))
    third, ending = order.take(6)
    assert ending == 6
    assert sorted([*second[3:], *third]) == list(range(0, 30, 3))


@settings(derandomize=True, deadline=None)
@given(st.integers(1, 300), st.integers(1, 12), st.integers(1, 40))
def test_windows_cover_all_steps_and_end_at_every_epoch(steps, epochs, longest):
    cut = list(split_into_windows(steps, epochs, longest))
    assert sum(length for length, _ in cut) == steps
    assert max(length for length, _ in cut) <= longest
    ends, done = [], 0
    for length, epoch in cut:
        done += length
        if epoch:
            ends.append((epoch, done))
    assert all(done == round(epoch * steps / epochs) for epoch, done in ends)
    assert steps < epochs or [epoch for epoch, _ in ends] == list(range(1, epochs + 1))
    assert ends[-1] == (epochs, steps)


@given(st.integers(1, 40), st.integers(1, 400))
@settings(derandomize=True, deadline=None)
def test_of_more_epochs_than_steps_each_step_ends_the_last_that_rounds_to_it(steps, epochs):
    ends = {round(epoch * steps / epochs): epoch for epoch in range(1, epochs + 1)}
    assert [epoch for _, epoch in split_into_windows(steps, epochs, steps) if epoch] == [
        e for end, e in ends.items() if end
    ]


def test_a_billion_epochs_in_twenty_steps_are_twenty_windows():
    assert [length for length, _ in split_into_windows(20, 10**9, 20)] == [1] * 20


def test_a_batch_larger_than_the_smallest_subset_is_refused():
    images, labels = toy_data()
    with pytest.raises(
        ValueError, match="a batch of 50 is larger than the smallest subset, 45 of 90 examples; use --batch 45 or less"
    ):
        train(make_runs([0, 1]), images, labels, replace(RECIPE, batch=50), 3)


def test_a_network_is_trained_by_autograd_like_a_plain_loop():
    images, labels = toy_data(flat=False, shape=(3, 8, 8))
    recipe = replace(RECIPE, nesterov=True, schedule="constant")
    run, twin = (make_runs([4], arch="cnn-4-8", shape=(3, 8, 8))[0] for _ in range(2))
    train([run], images, labels, recipe, 9)
    order, sgd = (
        EpochSampler(twin.rows, twin.order_rng),
        torch.optim.SGD(twin.model.parameters(), 0.1, 0.9, 0, 5e-4, True),
    )
    for _ in range(9):
        rows = torch.from_numpy(order.take(20)[0])
        sgd.zero_grad()
        cross_entropy(twin.model(images.take(rows)), labels[rows]).backward()
        sgd.step()
    for got, expected in zip(weights(run.model), weights(twin.model), strict=True):
        torch.testing.assert_close(got, expected)


def test_each_image_is_cropped_and_mirrored_by_its_own_draw():
    shape = (2, 6, 5)
    images, _ = toy_data(flat=False, shape=shape)
    batch = images.take(torch.arange(40))
    recipe = replace(RECIPE, augment=("crop", "flip"), crop_padding=2)
    got = augment(batch, images.black, recipe, np.random.default_rng(7))
    rng = np.random.default_rng(7)
    tops, lefts = rng.integers(0, 5, (2, 40, 1))[..., 0]
    mirrored = rng.random(40) < 0.5
    for i in range(40):
        canvas = images.black[:, None, None].expand(2, 10, 9).clone()
        canvas[:, 2:8, 2:7] = batch[i]
        view = canvas[:, tops[i] : tops[i] + 6, lefts[i] : lefts[i] + 5]
        assert torch.equal(got[i], view.flip(-1) if mirrored[i] else view)
    assert len({(int(t), int(left)) for t, left in zip(tops, lefts, strict=True)}) > 10
    assert 0 < mirrored.sum() < 40


def test_black_is_what_a_black_pixel_becomes():
    images = to_device(np.zeros((1, 3, 2, 2), np.uint8), (0.1, 0.2, 0.3), (0.5, 0.5, 0.25), CPU, flat=False)
    assert torch.equal(images.take(torch.tensor([0]))[0, :, 0, 0], images.black)


def test_flat_images_unpad_to_their_shape():
    raw = np.arange(2 * 35, dtype=np.uint8).reshape(2, *SHAPE)
    images = to_device(raw, (0.0,), (1 / 255,), CPU, flat=True)
    assert images.pixels.shape == (2, round_up_to_alignment(35)) == (2, 64)
    torch.testing.assert_close(images.take(torch.tensor([1]))[0], torch.from_numpy(raw[1]).float())


def test_learning_events_equal_a_loop_over_visits():
    images, labels = toy_data()
    runs = make_runs([0, 1, 2])
    events = LearningEvents.zeros(3, N, CPU)
    train(runs, images, labels, RECIPE, 17, events=events)
    for k, twin in enumerate(make_runs([0, 1, 2])):
        visits = {i: [] for i in range(N)}
        order = EpochSampler(twin.rows, twin.order_rng)
        sgd = torch.optim.SGD(twin.model.parameters(), 1.0, 0.9, weight_decay=5e-4)
        for step in range(17):
            sgd.param_groups[0]["lr"] = compute_lr(RECIPE, step / 17)
            rows = torch.from_numpy(order.take(20)[0])
            z = twin.model(images.take(rows))
            for i, p, y in zip(rows.tolist(), z.detach().double().softmax(-1), labels[rows].tolist(), strict=True):
                visits[i].append((p[y], p.max(), -(p * p.log()).sum(), float(p.argmax() == y)))
            sgd.zero_grad()
            cross_entropy(z, labels[rows]).backward()
            sgd.step()
        table = events.compute_averages(k)
        for i in range(N):
            assert table["visits"][i] == len(visits[i])
            if not visits[i]:
                assert np.isnan(table["confidence"][i])
                assert np.isnan(table["forgetting"][i])
                continue
            columns = ("confidence", "max_confidence", "entropy", "accuracy")
            for column, values in zip(columns, zip(*visits[i], strict=True), strict=True):
                assert table[column][i] == pytest.approx(np.mean(values), rel=1e-4, abs=1e-6)  # float32 softmax
            right = [v[3] for v in visits[i]]
            assert table["forgetting"][i] == sum(a > b for a, b in pairwise(right))


def test_counting_events_changes_no_weight_and_no_other_model_changes_events():
    images, labels = toy_data()
    together, events = make_runs([0, 1, 2]), LearningEvents.zeros(3, N, CPU)
    alone = LearningEvents.zeros(1, N, CPU)
    with float32_matmul(CPU):
        train(together, images, labels, RECIPE, 17, events=events)
        train(make_runs([1]), images, labels, RECIPE, 17, events=alone)
    plain = train_some([0, 1, 2])
    assert all(torch.equal(a, b) for a, b in zip(weights(together[1].model), plain[1], strict=True))
    for column, values in alone.compute_averages(0).items():
        np.testing.assert_array_equal(values, events.compute_averages(1)[column])


def test_on_epoch_end_sees_the_weights_of_that_moment():
    images, labels = toy_data()
    runs, visits = make_runs([0]), []
    train(runs, images, labels, RECIPE, 12, on_epoch_end=lambda epoch: visits.append((epoch, weights(runs[0].model))))
    assert [epoch for epoch, _ in visits] == [1, 2, 3]
    assert not torch.equal(visits[0][1][0], visits[1][1][0])
    assert torch.equal(visits[2][1][0], weights(runs[0].model)[0])


def test_a_diverging_model_leaves_its_neighbours_alone():
    images, labels = toy_data()
    runs = make_runs([0, 1, 2])
    with torch.no_grad():
        next(runs[1].model.parameters()).fill_(torch.inf)
    with float32_matmul(CPU):
        train(runs, images, labels, RECIPE, 17)
    plain = train_some([0, 1, 2])
    for i in (0, 2):
        assert all(torch.equal(a, b) for a, b in zip(weights(runs[i].model), plain[i], strict=True))


def test_evaluated_columns_follow_from_the_logits():
    images, labels = toy_data()
    model = build_network("mlp-8", SHAPE, K, 0).eval()
    outputs = evaluate_examples(model, images, labels, batch=32)
    with torch.no_grad():
        z = model(images.take(torch.arange(N))).double()
    loss = cross_entropy(z, labels, reduction="none")
    torch.testing.assert_close(
        softplus(-torch.from_numpy(outputs["logit_confidence"]).double()), loss, rtol=1e-5, atol=1e-6
    )
    top = z.sort(-1).values
    torch.testing.assert_close(
        torch.from_numpy(outputs["top_gap"]).double(), top[:, -1] - top[:, -2], rtol=1e-4, atol=1e-5
    )
    assert (outputs["correct"] == (z.argmax(-1) == labels).numpy()).all()
    assert ((outputs["gap"] > 0) == outputs["correct"]).all()


@pytest.mark.parametrize("vendor", ["GenuineIntel", "AuthenticAMD", ""])
def test_only_a_product_with_float32_error_is_used(vendor, monkeypatch):
    monkeypatch.setattr(numerics, "cpu_vendor", lambda: vendor)
    before = torch.get_float32_matmul_precision()
    with float32_matmul(CPU) as runs:
        a, b = torch.randn(2, 300, 300, generator=torch.Generator().manual_seed(1))
        truth = a.double() @ b.double()
        assert float(((a @ b).double() - truth).norm() / truth.norm()) < 2e-6
        assert runs in ({"medium", "highest"} if vendor == "AuthenticAMD" else {"highest"})
    assert torch.get_float32_matmul_precision() == before


def test_a_stack_refuses_other_networks():
    images, labels = toy_data(flat=False)
    with pytest.raises(ValueError, match="not a plain stack of linear layers"):
        StackedMLPEngine([a.model for a in make_runs([0], arch="cnn-4")], images, labels, RECIPE)
    assert find_mlp_layers(build_network("cnn-4", SHAPE, K, 0)) is None
