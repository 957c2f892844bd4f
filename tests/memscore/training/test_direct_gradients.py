"""Gradients without autograd: the bits of autograd, and where they are not to be used."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from memscore.models.architectures import build_network
from memscore.training import loop
from memscore.training.direct_gradients import has_direct_gradients
from memscore.training.loop import train
from memscore.training.recipes import Recipe
from tests.memscore.training.test_loop import K, make_runs, toy_data, weights

SHAPE = (3, 9, 8)
RECIPE = Recipe(epochs=3, batch=20, lr=0.05, schedule="cosine", source="test")
IMAGES = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))

pytestmark = pytest.mark.skipif(
    bool(build_network("cnn-4", SHAPE, K, 0).body.explain_plain_layers()), reason="no compiled convolutions here"
)


def train_cnn(recipe, monkeypatch, *, direct):
    """Train a small CNN, with and without; return its weights and the logits of all steps."""
    seen = []

    def decide(*arguments):
        seen.append(has_direct_gradients(*arguments))
        return seen[-1] and direct

    monkeypatch.setattr(loop, "has_direct_gradients", decide)
    images, labels = toy_data(flat=False, shape=SHAPE)
    [run] = make_runs([0], arch="cnn-5-8", shape=SHAPE)
    train([run], images, labels, recipe, 7)
    engine = loop.EagerEngine(run, images, labels, recipe)
    logits = engine.run(torch.arange(2 * recipe.batch).view(1, 2, -1), [0.01, 0.01], return_logits=True)
    assert seen
    assert all(seen)
    return [*weights(run.model), logits]


@pytest.mark.parametrize(
    "change",
    [
        {"batch": 1},
        {"batch": 20},
        {"momentum": 0.0},
        {"nesterov": True},
        {"optimizer": "adamw", "lr": 0.01},
        {"augment": ("crop", "flip")},
    ],
    ids=lambda change: " ".join(f"{name} {value}" for name, value in change.items()),
)
def test_direct_gradients_train_the_same_bits_as_autograd(change, monkeypatch):
    recipe = replace(RECIPE, **change)
    direct, by_autograd = (train_cnn(recipe, monkeypatch, direct=direct) for direct in (True, False))
    assert all(torch.equal(a, b) for a, b in zip(direct, by_autograd, strict=True))
    start = weights(build_network("cnn-5-8", SHAPE, K, 0))
    assert not any(torch.equal(a, b) for a, b in zip(direct, start, strict=False))


def listen(module):
    module.register_forward_hook(lambda *_: None)


WATCHED = {
    "a hook of the network": listen,
    "a hook of the body": lambda model: listen(model.body),
    "a hook of the head": lambda model: listen(model.head),
    "a hook of a layer": lambda model: listen(model.body[0]),
    "a hook of a weight": lambda model: model.head.weight.register_hook(lambda gradient: gradient * 2),
    "a hook after a gradient": lambda model: model.head.bias.register_post_accumulate_grad_hook(lambda weight: None),
    "a frozen weight": lambda model: model.body[0].weight.requires_grad_(False),
    "another head": lambda model: setattr(model, "head", nn.Linear(model.head.in_features, K, bias=False)),
    "a subclass of the head": lambda model: setattr(model, "head", type("L", (nn.Linear,), {})(8 * 4, K)),
    "a changed layer": lambda model: model.body.insert(0, nn.Identity()),
    "other numbers": lambda model: model.double(),
}


@pytest.mark.parametrize("change", WATCHED.values(), ids=WATCHED)
def test_a_network_that_is_watched_or_changed_is_left_to_autograd(change):
    model = build_network("cnn-4-8", SHAPE, K, 0)
    assert has_direct_gradients(model, IMAGES, RECIPE)
    change(model)
    assert not has_direct_gradients(model, IMAGES, RECIPE)


def test_other_losses_images_and_modes_are_left_to_autograd():
    model = build_network("cnn-4-8", SHAPE, K, 0)
    for change in ({"label_smoothing": 0.1}, {"precision": "bfloat16"}):
        assert not has_direct_gradients(model, IMAGES, replace(RECIPE, **change))
    for images in (IMAGES[:, :2], IMAGES.double(), IMAGES.to("meta")):
        assert not has_direct_gradients(model, images, RECIPE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not has_direct_gradients(model, IMAGES, RECIPE)
    assert not has_direct_gradients(build_network("mlp-8", SHAPE, K, 0), IMAGES, RECIPE)
