"""Networks that have learned nothing, and the last layers of networks."""

import numpy as np
import pytest
import torch
from torch import nn

from memscore.models.architectures import build_network
from tests.fixtures.problems import KINDS, copy_state, have_same_weights, make_tiny_problem
from unlearn.optimization.layers import find_last_layers, reinitialize


def reinitialize_seeded(theta, seed=0):
    return reinitialize(theta, np.random.default_rng(seed))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_learned_is_left_and_theta_o_stays(kind):
    theta = make_tiny_problem(kind).theta_o
    before, rng_state = copy_state(theta), torch.get_rng_state()
    new = reinitialize_seeded(theta)
    assert all(torch.equal(before[name], value) for name, value in theta.state_dict().items())
    assert torch.equal(torch.get_rng_state(), rng_state)
    assert not new.training
    for name, value in new.state_dict().items():
        scale_or_shift = kind == "batch-norm" and name.split(".")[1] in {"1", "6"}
        assert not (value == before[name]).any() or scale_or_shift
    assert have_same_weights(new, reinitialize_seeded(theta))
    assert not torch.equal(new.head.weight, reinitialize_seeded(theta, 1).head.weight)


def test_running_statistics_and_scales_are_as_at_the_start():
    new = copy_state(reinitialize_seeded(make_tiny_problem("batch-norm").theta_o))
    for norm in ("body.1", "body.6"):
        assert not new[f"{norm}.running_mean"].any()
        assert not new[f"{norm}.bias"].any()
        assert (new[f"{norm}.running_var"] == 1).all()
        assert (new[f"{norm}.weight"] == 1).all()
        assert new[f"{norm}.num_batches_tracked"] == 0


def test_layers_draw_as_torch_has_them_start():
    new, start = (
        reinitialize_seeded(build_network("mlp-64", (1, 8, 8), 4, seed=0)),
        build_network("mlp-64", (1, 8, 8), 4, seed=1),
    )
    for layer in ("body.1", "head"):
        new_weights, initial_weights = (network.get_submodule(layer).weight.detach() for network in (new, start))
        assert float(new_weights.std()) == pytest.approx(float(initial_weights.std()), rel=0.1)
        assert float(new_weights.abs().max()) == pytest.approx(float(initial_weights.abs().max()), rel=0.05)


def test_what_no_layer_draws_is_drawn_like_what_it_replaces():
    theta = build_network("vit-narrow", (1, 8, 8), 4, seed=0)
    named = dict(theta.named_parameters())
    position_name = next(name for name in named if name.endswith("pos_embedding"))
    inner = next(name for name in named if name.endswith("in_proj_weight"))
    with torch.no_grad():
        named[position_name].normal_(3.0, 0.5, generator=torch.Generator().manual_seed(1))
    new = dict(reinitialize_seeded(theta).named_parameters())
    assert all(value.isfinite().all() for value in new.values())
    assert float(new[position_name].detach().mean()) == pytest.approx(3.0, abs=0.2)
    assert float(new[position_name].detach().std()) == pytest.approx(0.5, rel=0.2)
    for name in (position_name, inner):
        assert abs(float(torch.corrcoef(torch.stack([new[name].flatten(), named[name].flatten()]))[0, 1])) < 0.2


class Backwards(nn.Module):
    """Runs its layers in another order than it lists them."""

    def __init__(self):
        super().__init__()
        self.last, self.shift = nn.Linear(6, 4), nn.Parameter(torch.zeros(6))
        self.first = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.BatchNorm1d(6))

    def forward(self, images):
        return self.last(self.first(images) + self.shift)


def test_the_last_layers_are_those_that_run_last():
    assert find_last_layers(Backwards(), (1, 8, 8), 1) == ["last"]
    assert find_last_layers(Backwards(), (1, 8, 8), 2) == ["first.1", "first.2", "last"]
    theta = make_tiny_problem("batch-norm").theta_o
    assert find_last_layers(theta, (1, 8, 8), 2) == ["body.5", "body.6", "head"]
    assert find_last_layers(theta, (1, 8, 8), 3) == ["body.0", "body.1", "body.5", "body.6", "head"]
    with pytest.raises(ValueError, match="has 3 convolutional or linear layers, not 4; use k 3 or less"):
        find_last_layers(theta, (1, 8, 8), 4)


def test_the_last_layers_of_a_residual_network_and_of_a_transformer():
    last = find_last_layers(build_network("resnet18", (1, 8, 8), 4, seed=0), (1, 8, 8), 2)
    assert last[-1] == "head"
    assert [name.split(".")[-1] for name in last] == ["conv2", "bn2", "head"]
    shortcut = ["body.5.downsample.0", "body.5.downsample.1"]  # runs after the block's second convolution
    last = find_last_layers(build_network("resnet8", (1, 8, 8), 4, seed=0), (1, 8, 8), 3)
    assert last == ["body.5.conv2", "body.5.bn2", *shortcut, "head"]
    last = find_last_layers(build_network("vit-narrow", (1, 8, 8), 4, seed=0), (1, 8, 8), 3)
    assert last[-1] == "head"
    assert len(last) == 4  # two layers of the last block, the norm at the end, the head
