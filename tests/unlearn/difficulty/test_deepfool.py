"""DeepFool: exact for a linear network, near foolbox's for another, and no distance where no boundary is crossed."""

import itertools
import math

import foolbox
import numpy as np
import pytest
import torch
from torch import nn

from unlearn.difficulty.deepfool import OVERSHOOT, deepfool


def make_network(*sizes):
    torch.manual_seed(0)
    layers = [nn.Flatten()]
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b), nn.Tanh()]
    return nn.Sequential(*layers[:-1]).eval()


def test_a_linear_network_has_its_exact_distance_in_pixel_units():
    network, images = make_network(6, 3), torch.randn(5, 1, 2, 3)
    scale = torch.tensor([4.0])  # a pixel unit is 4 normalised units, so distances are a quarter
    weight, bias = network[1].weight.detach(), network[1].bias.detach()
    logits = images.flatten(1) @ weight.T + bias
    answered = logits.argmax(1)
    expected = [
        min(float((z[c] - z[k]) / (weight[c] - weight[k]).norm()) for k in range(3) if k != c) / 4
        for z, c in zip(logits, answered, strict=True)
    ]
    found = deepfool(network, images, scale)
    # the step goes 1e-4 of a logit and 2 % beyond the boundary
    np.testing.assert_allclose(found, np.array(expected) * (1 + OVERSHOOT), rtol=2e-3, atol=2e-4)


def test_distances_agree_with_foolbox():
    network, images = make_network(16, 32, 4), torch.rand(40, 1, 4, 4)
    labels = network(images).argmax(1)
    reference = foolbox.attacks.L2DeepFoolAttack(steps=50, overshoot=OVERSHOOT, candidates=4, loss="logits")
    model = foolbox.PyTorchModel(network, bounds=(-100, 100), device="cpu")
    advs, _, flipped = reference(model, images, labels, epsilons=None)
    assert flipped.all()
    expected = (advs - images).flatten(1).norm(dim=1)
    found = deepfool(network, images, torch.tensor([1.0]))
    np.testing.assert_allclose(found, expected.detach(), rtol=0.01, atol=3e-4)


def test_a_network_that_decides_the_same_everywhere_has_no_distance():
    network = make_network(4, 3)
    with torch.no_grad():
        network[1].weight.zero_()
        network[1].bias[:] = torch.tensor([1.0, 0.0, 0.0])
    assert deepfool(network, torch.randn(2, 1, 2, 2), torch.tensor([1.0])).isnan().all()


def test_a_boundary_that_is_not_reached_in_the_steps_gives_none():
    network, images = make_network(16, 32, 4), torch.rand(8, 1, 4, 4)
    few = deepfool(network, images, torch.tensor([1.0]), max_steps=0)
    assert all(math.isnan(value) for value in few.tolist())


@pytest.mark.parametrize("batch", [1, 3])
def test_an_image_has_the_same_distance_alone_and_among_others(batch):
    network, images = make_network(16, 32, 4), torch.rand(6, 1, 4, 4)
    together = deepfool(network, images, torch.tensor([1.0]))
    apart = torch.cat([deepfool(network, part, torch.tensor([1.0])) for part in images.split(batch)])
    np.testing.assert_allclose(together, apart, rtol=1e-4)
