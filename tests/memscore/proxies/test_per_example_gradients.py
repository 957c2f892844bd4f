"""Losses and gradients of one example at a time."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from memscore.models.architectures import build_network
from memscore.proxies.per_example_gradients import (
    build_gradient_function,
    compute_example_losses,
    compute_input_gradient,
    evaluation_mode,
)

SHAPE, K = (2, 8, 8), 4


def examples(n=5, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(n, *SHAPE, generator=rng).double(), torch.randint(0, K, (n,), generator=rng)


def network(arch):
    return build_network(arch, SHAPE, K, seed=0).double().eval()


def test_the_loss_is_cross_entropy():
    rng = torch.Generator().manual_seed(0)
    for classes in (2, 7):
        logits = torch.randn(50, classes, generator=rng).double() * 5
        labels = torch.randint(0, classes, (50,), generator=rng)
        expected = cross_entropy(logits, labels, reduction="none")
        torch.testing.assert_close(compute_example_losses(logits, labels), expected, rtol=1e-10, atol=1e-14)


def test_the_gradient_of_an_example_that_is_surely_right_sums_to_0():
    """d loss / d z = p - onehot sums to 0; with p_y = 1 - 2e-9 float32 keeps it only if 1 - p_y is never formed."""
    logits = torch.tensor([[20.0, 0.0, -1.0]])
    label = torch.tensor([0])

    def sums_to_zero(loss):
        shown = logits.clone().requires_grad_()
        gradient = torch.autograd.grad(loss(shown, label).sum(), shown)[0]
        others = gradient[0, 1:].sum()
        torch.testing.assert_close(-gradient[0, 0], others, rtol=1.3e-6, atol=0)  # float32

    sums_to_zero(compute_example_losses)
    with pytest.raises(AssertionError):
        sums_to_zero(lambda z, y: cross_entropy(z, y, reduction="none"))


@pytest.mark.parametrize("arch", ["mlp-9", "cnn-3-4"])
def test_gradients_over_the_weights_are_those_of_one_example_after_the_other(arch):
    model, (images, labels) = network(arch), examples()
    together = build_gradient_function(model)(images, labels)
    for k in range(len(labels)):
        loss = cross_entropy(model(images[k : k + 1]), labels[k : k + 1])
        alone = torch.autograd.grad(loss, list(model.parameters()))
        for got, expected in zip(together, alone, strict=True):
            torch.testing.assert_close(got[k], expected, rtol=1e-10, atol=1e-14)


def test_a_network_that_draws_in_evaluation_mode_draws_for_each_example():
    class Noisy(nn.Linear):
        def forward(self, images):
            return super().forward(images.flatten(1)) * torch.rand(len(images), 1, dtype=images.dtype)

    model, (images, labels) = Noisy(2 * 8 * 8, K).double().eval(), examples()
    images, labels = images[:1].expand(5, -1, -1, -1), labels[:1].expand(5)
    _, bias_gradients = build_gradient_function(model)(images, labels)
    assert len(bias_gradients.unique(dim=0)) == 5


def test_the_gradient_over_pixels_is_that_of_one_example_and_touches_no_weight():
    model, (images, labels) = network("cnn-3-4"), examples()
    together = compute_input_gradient(model, images, labels)
    shown = images[2:3].clone().requires_grad_()
    alone = torch.autograd.grad(cross_entropy(model(shown), labels[2:3]), shown)[0]
    torch.testing.assert_close(together[2:3], alone, rtol=1e-10, atol=1e-14)
    assert all(p.grad is None for p in model.parameters())


def test_a_network_comes_back_in_the_mode_it_was_in_even_after_an_error():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout())
    model[1].eval()
    modes = []

    def fail():
        with evaluation_mode(model):
            modes.extend(layer.training for layer in model.modules())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert modes == [False] * 4
    assert [layer.training for layer in model] == [True, False, True]


def test_batch_norm_reads_its_running_statistics():
    model = nn.Sequential(nn.Flatten(), nn.Linear(128, K), nn.BatchNorm1d(K)).double()
    images, labels = examples()
    before = copy.deepcopy(model.state_dict())
    with evaluation_mode(model):
        many, single = (
            build_gradient_function(model)(images, labels),
            build_gradient_function(model)(images[:1], labels[:1]),
        )
    for a, b in zip(many, single, strict=True):
        torch.testing.assert_close(a[:1], b, rtol=1e-10, atol=1e-14)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
