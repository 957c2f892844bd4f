"""Stacks with bfloat16 products: what they compute, equal bits for every stack, and where they are refused."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memscore.models.architectures import build_network, find_mlp_layers
from memscore.training import precision as rules
from memscore.training import stacked_mlp
from memscore.training.bfloat16_stack import Bfloat16StackEngine
from memscore.training.engines import select_engine
from memscore.training.loop import build_default_engine, is_stackable
from memscore.training.recipes import BFLOAT16_PRODUCTS, Recipe
from tests.fixtures.banks import manifest
from tests.memscore.training.test_loop import RECIPE, SHAPE, K, N, make_runs, toy_data, train_some, weights

ROUNDED = replace(RECIPE, precision=BFLOAT16_PRODUCTS)


def round_to_bfloat16(values):
    return values.bfloat16().double()


def take_reference_steps(model, images, labels, rows, recipe):
    """Plain SGD in float64, with the products of hidden layers on rounded operands, and themselves rounded."""
    layers = find_mlp_layers(model)
    theta = [(layer.weight.detach().double(), layer.bias.detach().double()) for layer in layers]
    momenta = [(torch.zeros_like(w), torch.zeros_like(b)) for w, b in theta]
    r, last = round_to_bfloat16, len(layers) - 1
    for batch in rows:
        activations = [images[batch].double()]
        for k, (w, b) in enumerate(theta):
            product = r(r(activations[-1]) @ r(w).T) if k < last else activations[-1] @ w.T
            activations.append((product + b).clamp(min=0) if k < last else product + b)
        delta = torch.softmax(activations[-1], 1)
        delta[torch.arange(len(batch)), labels[batch]] -= 1
        delta /= len(batch)
        gradients = []
        for k in range(last, -1, -1):
            w, layer_input = theta[k][0], activations[k]
            gradients.insert(0, (delta.T @ layer_input if k == last else r(delta.T @ r(layer_input)), delta.sum(0)))
            if k:
                below = delta @ w if k == last else delta @ r(w)
                delta = r(below) * (layer_input > 0)
        for k, gradient in enumerate(gradients):
            for value, momentum, slope in zip(theta[k], momenta[k], gradient, strict=True):
                momentum.mul_(recipe.momentum).add_(slope + recipe.weight_decay * value)
                value.sub_(recipe.lr * momentum)
    return [value for pair in theta for value in pair]


@pytest.mark.parametrize("chunk_bytes", [400 * 2**10, 1000], ids=["whole matrices", "chunks"])
@pytest.mark.parametrize("arch", ["mlp-33", "mlp-64-48-32"])
def test_a_step_is_float32_but_for_the_rounded_products_of_hidden_layers(arch, chunk_bytes, monkeypatch):
    monkeypatch.setattr(stacked_mlp, "UPDATE_CHUNK_BYTES", chunk_bytes)
    images, labels = toy_data()
    runs = make_runs([0, 1], arch=arch)
    rows = torch.stack([torch.randperm(N, generator=torch.Generator().manual_seed(s))[:60] for s in range(2)])
    rows = rows.view(2, 3, 20)
    pixels = images.pixels[:, : SHAPE[1] * SHAPE[2]]
    expected = [
        take_reference_steps(run.model, pixels, labels, own, ROUNDED) for run, own in zip(runs, rows, strict=True)
    ]
    plain = [take_float32_steps(arch, seed, own) for seed, own in enumerate(rows)]
    before = [weights(run.model) for run in runs]
    engine = build_default_engine(runs, images, labels, ROUNDED)
    assert any(engine.chunks) == (chunk_bytes == 1000)
    engine.run(rows, [ROUNDED.lr] * 3, return_logits=False)
    engine.write_back()
    for run, wanted, exact, start in zip(runs, expected, plain, before, strict=True):
        for value, reference, unrounded, first in zip(weights(run.model), wanted, exact, start, strict=True):
            moved = (reference - first).norm()
            # A sum that is rounded the other way is one part in 256 of that number; the sums themselves are float32's.
            assert (value - reference).norm() < 2e-3 * moved
            if value.shape[0] != K:
                assert (unrounded - reference).norm() > 2e-3 * moved  # what the precision changes is more


def take_float32_steps(arch, seed, rows):
    images, labels = toy_data()
    [run] = make_runs([seed], arch=arch)
    engine = build_default_engine([run], images, labels, RECIPE)
    engine.run(rows[None], [RECIPE.lr] * len(rows), return_logits=False)
    engine.write_back()
    return weights(run.model)


@pytest.mark.parametrize(
    ("arch", "batch"), [("mlp-33", 20), ("mlp-100-150-150", 32), ("mlp-64-32", 16), ("mlp-3072", 20)]
)
def test_a_models_bits_do_not_depend_on_its_place_or_on_other_models(arch, batch):
    recipe = replace(ROUNDED, batch=batch)
    together = train_some(list(range(5)), arch=arch, recipe=recipe, steps=9)

    @settings(derandomize=True, deadline=None, max_examples=4)
    @given(st.permutations(range(5)), st.integers(1, 5))
    def in_any_group(order, size):
        for start in range(0, 5, size):
            group = list(order[start : start + size])
            for i, got in train_some(group, arch=arch, recipe=recipe, steps=9).items():
                assert all(torch.equal(a, b) for a, b in zip(got, together[i], strict=True))

    in_any_group()


def test_its_rounded_weights_are_those_of_the_weights_after_every_step(monkeypatch):
    monkeypatch.setattr(stacked_mlp, "UPDATE_CHUNK_BYTES", 6000)  # the first matrix in chunks, the second whole
    images, labels = toy_data()
    engine = build_default_engine(make_runs([0, 1], arch="mlp-64-16"), images, labels, ROUNDED)
    engine.run(torch.arange(80).view(2, 2, 20), [0.1, 0.1], return_logits=False)
    assert [bool(chunks) for chunks in engine.chunks] == [True, False, False]
    for rounded, weight in zip(engine.rounded_weights, engine.weights[::2], strict=False):
        assert torch.equal(rounded, weight.bfloat16())


def test_the_engine_is_named_and_trains_what_float32_s_stack_does():
    images, labels = toy_data()
    runs = make_runs([0, 1])
    assert is_stackable(runs[0].model, ROUNDED)
    choice = select_engine(runs, images, labels, ROUNDED)
    assert choice.describe_model(0, 2) == {"engine": "stack, bfloat16-products"}
    assert choice.models_per_call == 2
    assert type(build_default_engine(runs, images, labels, ROUNDED)) is Bfloat16StackEngine


@pytest.mark.parametrize(
    "change", [{"optimizer": "adam"}, {"nesterov": True}, {"augment": ("flip",)}, {"label_smoothing": 0.1}]
)
def test_recipes_that_do_not_stack_are_refused(change):
    with pytest.raises(ValueError, match=r"^precision bfloat16-products is of stacks, .* use precision float32$"):
        Recipe(epochs=1, batch=2, lr=0.1, precision=BFLOAT16_PRODUCTS, **change)


def test_other_networks_are_refused_and_not_trained_in_float32():
    for arch, shape in (("cnn-4", (1, 8, 8)), ("tests.memscore.training.test_bfloat16_stack:build_linear", (1, 8, 8))):
        run = replace(make_runs([0])[0], model=build_network(arch, shape, K, 0))
        data = toy_data(flat=False, shape=shape)
        for make in (build_default_engine, select_engine):
            with pytest.raises(ValueError, match=r"^--precision bfloat16-products is of the hidden layers"):
                make([run], *data, ROUNDED)
        asked = manifest(architecture=arch, precision=BFLOAT16_PRODUCTS, input_shape=shape, n_classes=K)
        with pytest.raises(ValueError, match=r"use --precision float32$"):
            rules.require_trainable(asked, "cpu")
    rules.require_trainable(replace(asked, architecture="mlp-8"), "cpu")


def build_linear(shape, classes):
    """Logistic regression, which has no hidden layer; named as "module:function"."""
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, classes))


def test_a_gpu_has_none_and_is_told_which_precision_serves_there():
    expected = r"^precision bfloat16-products is of products on CPUs; .* --precision float32, in which a GPU trains"
    with pytest.raises(ValueError, match=expected):
        rules.require_precision(BFLOAT16_PRODUCTS, "cuda")
    rules.require_precision(BFLOAT16_PRODUCTS, "cpu")
    images, labels = toy_data()
    with pytest.raises(ValueError, match=expected):
        select_engine(make_runs([0]), images, labels, ROUNDED, capture=True)
    with pytest.raises(ValueError, match=r"of a CPU, got meta"):
        Bfloat16StackEngine([run.model for run in make_runs([0])], images, labels.to("meta"), ROUNDED)


@pytest.mark.parametrize(
    ("rows", "inner", "columns"),
    [(256, 784, 256), (10, 33, 7), (150, 100, 128), (1, 64, 1), (512, 128, 784), (3, 5, 900)],
)
def test_products_on_this_cpu_are_the_rounded_sums_of_rounded_operands(rows, inner, columns):
    rng = torch.Generator().manual_seed(0)
    left, right = torch.randn(rows, inner, generator=rng), torch.randn(inner, columns, generator=rng)
    exact = round_to_bfloat16(left) @ round_to_bfloat16(right)
    size = round_to_bfloat16(left).abs() @ round_to_bfloat16(right).abs()
    got = torch.mm(left.bfloat16(), right.bfloat16(), out=torch.full((rows, columns), torch.nan, dtype=torch.bfloat16))
    assert bool(((got.double() - exact).abs() <= exact.abs() / 256 + 1e-5 * size).all())
