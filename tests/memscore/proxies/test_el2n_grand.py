"""EL2N and GraNd against their definitions."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, one_hot

from memscore.models.architectures import Classifier, build_network
from memscore.proxies.el2n_grand import el2n, grand
from memscore.training.device_data import DeviceImages

SHAPE, N, K = (1, 4, 4), 9, 3


def points():
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(N, *SHAPE)))
    shades = {"black": torch.zeros(1), "white": torch.ones(1)}
    images = DeviceImages(pixels=x.permute(0, 2, 3, 1).contiguous(), shape=SHAPE, flat=False, **shades)
    return images, torch.arange(N) % K


def test_el2n_is_the_distance_to_the_label():
    rng = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(40, 5, generator=rng).double() * 4, torch.randint(0, 5, (40,), generator=rng)
    expected = (logits.softmax(-1) - one_hot(labels, 5)).norm(dim=1)
    np.testing.assert_allclose(el2n(logits.numpy(), labels.numpy()), expected, rtol=1e-10)


def test_el2n_of_two_classes_is_root_two_times_the_other_s_probability_even_where_it_is_tiny():
    """p_other = 1 / (1 + e^gap); 1 - p_y formed from p_y would be exactly 0 from a gap of 37 on."""
    gap = np.array([-3.0, 0.0, 3.0, 40.0, 200.0])
    logits, labels = np.stack([gap, np.zeros(5)], 1), np.zeros(5, np.int64)
    expected = np.sqrt(2) / (1 + np.exp(gap))

    def is_exact(score):
        np.testing.assert_allclose(score(logits, labels), expected, rtol=1e-10)

    is_exact(el2n)
    with pytest.raises(AssertionError):
        is_exact(lambda z, y: np.linalg.norm(np.exp(z) / np.exp(z).sum(1, keepdims=True) - np.eye(2)[y], axis=1))


def test_grand_of_a_linear_classifier_is_el2n_times_the_length_of_its_input_and_1():
    """dW = (p - e) x^T and db = p - e, so the norm is ||p - e|| sqrt(||x||^2 + 1)."""
    model, (images, labels) = Classifier(nn.Flatten(), nn.Linear(16, K)).double(), points()
    shown = images.take(torch.arange(N))
    lengths = (shown.flatten(1).norm(dim=1) ** 2 + 1).sqrt().numpy()
    expected = el2n(model(shown).detach().numpy(), labels.numpy()) * lengths
    np.testing.assert_allclose(grand(model, images, labels), expected, rtol=1e-10)


@pytest.mark.parametrize("chunk", [1, 4, None])
def test_grand_is_the_norm_of_one_example_s_gradient_in_evaluation_mode(chunk):
    model, (images, labels) = build_network("cnn-2-3", SHAPE, K, 0).double(), points()
    model.body.append(nn.Dropout(0.5))
    expected = []
    model.eval()
    for k in range(N):
        loss = cross_entropy(model(images.take(torch.tensor([k]))), labels[k : k + 1])
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        expected.append(float(sum((s**2).sum() for s in gradients)) ** 0.5)
    model.train()
    np.testing.assert_allclose(grand(model, images, labels, chunk), expected, rtol=1e-10)
    assert all(layer.training for layer in model.modules())
    assert all(p.grad is None for p in model.parameters())
