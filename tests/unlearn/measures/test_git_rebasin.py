"""Permuted units: the same function, recovered by matching; and weight distances after matching."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from memscore.models.architectures import build_network
from tests.fixtures.problems import make_tiny_problem, run_algorithm
from unlearn.measures.git_rebasin import UnsupportedArchitecture, find_symmetries, match_units, permute_units
from unlearn.measures.inputs import ModelInputs
from unlearn.measures.weight_distance import weight_distance

BATCH_NORM = "tests.fixtures.problems:with_batch_norm"
CHAINS = {"mlp-12-9": (1, 8, 8), "cnn-4-6": (3, 8, 8), BATCH_NORM: (1, 8, 8)}
RESIDUAL = {"resnet18": (3, 8, 8), "resnet8": (1, 8, 8)}
ALL = CHAINS | RESIDUAL


def build_trained_network(architecture, shape, seed=0):
    """A network whose statistics and batch-norm weights are no longer those it began with."""
    model = build_network(architecture, shape, 4, seed)
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if "running_" in name:
            value += 0.5 * torch.rand(value.shape, generator=generator)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm1d):
            for part in (layer.weight, layer.bias):
                part.data += 0.5 * torch.rand(part.shape, generator=generator)
    return model.eval()


def to_arrays(model):
    return {name: value.numpy() for name, value in model.state_dict().items()}


def predict(model, state, shape):
    model.load_state_dict({name: torch.from_numpy(np.asarray(value)) for name, value in state.items()})
    images = torch.rand(5, *shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model.eval()(images).numpy()


def shuffle_units(state, symmetries, seed=0):
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(state[group[0][0]].shape[group[0][1]]) for group in symmetries.groups]
    return orders, permute_units(state, symmetries.groups, orders)


@pytest.mark.parametrize("architecture", ALL)
def test_bug_20_a_reordered_network_answers_the_same_statistics_included(architecture):
    shape = ALL[architecture]
    model = build_trained_network(architecture, shape)
    state, symmetries = to_arrays(model), find_symmetries(model)
    state = {name: value.copy() for name, value in state.items()}
    plain = predict(model, state, shape)
    orders, moved = shuffle_units(state, symmetries)
    assert sum(not np.array_equal(moved[name], state[name]) for name in state) > len(orders)
    np.testing.assert_allclose(predict(model, moved, shape), plain, rtol=1e-5, atol=1e-5)
    if any("running_" in name for name in state):  # the bug: weights move, statistics stay
        weights_only = moved | {name: value for name, value in state.items() if "running_" in name}
        assert np.abs(predict(model, weights_only, shape) - plain).max() > 1e-3


@pytest.mark.parametrize("architecture", CHAINS)
def test_a_random_order_of_a_chain_is_found_again(architecture):
    model = build_trained_network(architecture, CHAINS[architecture])
    state, symmetries = to_arrays(model), find_symmetries(model)
    orders, moved = shuffle_units(state, symmetries, seed=3)
    recovered = permute_units(
        moved, symmetries.groups, match_units(state, moved, symmetries.groups, np.random.default_rng(0))
    )
    for name in state:
        np.testing.assert_array_equal(recovered[name], state[name])
    assert any((order != np.arange(len(order))).any() for order in orders)


@pytest.mark.parametrize("architecture", RESIDUAL)
def test_a_residual_network_is_brought_nearer_and_never_farther(architecture):
    model = build_trained_network(architecture, RESIDUAL[architecture])
    state, symmetries = to_arrays(model), find_symmetries(model)
    _, moved = shuffle_units(state, symmetries, seed=3)
    nearer = permute_units(
        moved, symmetries.groups, match_units(state, moved, symmetries.groups, np.random.default_rng(0))
    )
    trained = [name for name, _ in model.named_parameters()]
    before, after = (math.sqrt(sum(((one[n] - state[n]) ** 2).sum() for n in trained)) for one in (moved, nearer))
    assert after < 0.9 * before


def test_flattened_channels_move_as_blocks():
    symmetries = find_symmetries(build_network("cnn-4-6", (1, 8, 8), 4, 0))
    assert symmetries.groups == [
        [("body.0.weight", 0), ("body.0.bias", 0), ("body.3.weight", 1)],
        [("body.3.weight", 0), ("body.3.bias", 0), ("head.weight", 1)],
    ]
    assert symmetries.penultimate == "body.3"
    assert find_symmetries(build_network("resnet18", (3, 8, 8), 4, 0)).penultimate == "body.layer4.1.conv2"
    assert find_symmetries(build_network("resnet8", (3, 8, 8), 4, 0)).penultimate == "body.5.conv2"


def test_each_stage_of_resnet8_has_one_stream():
    """The stem and the first block share an order; a shortcut's convolution shares that of its block's last one."""
    groups = find_symmetries(build_network("resnet8", (1, 8, 8), 4, 0)).groups
    written = [{name for name, axis in group if axis == 0 and name.endswith("weight")} for group in groups]
    streams = [names for names in written if not any("conv1" in name for name in names)]
    assert streams == [
        {"body.0.weight", "body.1.weight", "body.3.conv2.weight", "body.3.bn2.weight"},
        {f"body.4.{part}.weight" for part in ("downsample.0", "downsample.1", "conv2", "bn2")},
        {f"body.5.{part}.weight" for part in ("downsample.0", "downsample.1", "conv2", "bn2")},
    ]
    assert len(groups) == 6  # and one within each block


@pytest.mark.parametrize(("architecture", "named"), [("vit-narrow", "VisionTransformer"), ("resnext50", "grouped")])
def test_other_architectures_are_refused_by_name(architecture, named):
    with pytest.raises(UnsupportedArchitecture, match=named):
        find_symmetries(build_network(architecture, (3, 16, 16), 4, 0))


class Opaque(nn.Module):
    """Nobody knows its layers' order."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, images):
        return self.inner(images)


def test_distances_are_zero_for_the_oracle_one_for_the_original_and_nan_for_the_unknown():
    problem = make_tiny_problem("batch-norm")
    theta_r = run_algorithm("retrain", problem, kind="batch-norm")
    values = weight_distance(ModelInputs(problem=problem, judged=theta_r, theta_r=theta_r))
    assert values == dict.fromkeys(values, 0.0)
    original = weight_distance(ModelInputs(problem=problem, judged=problem.theta_o, theta_r=theta_r))
    assert original["weight_distance_relative"] == 1.0
    assert 0 < original["weight_distance_penultimate"] < original["weight_distance"]
    unknown = weight_distance(ModelInputs(problem=problem, judged=Opaque(problem.theta_o), theta_r=theta_r))
    assert all(np.isnan(value) for value in unknown.values())


def test_an_oracle_in_another_order_is_no_distance_away():
    problem = make_tiny_problem("cnn")
    theta_r, other = (run_algorithm("retrain", problem) for _ in range(2))
    state = {name: value.numpy().copy() for name, value in theta_r.state_dict().items()}
    _, moved = shuffle_units(state, find_symmetries(theta_r), seed=5)
    other.load_state_dict({name: torch.from_numpy(value) for name, value in moved.items()})
    raw = math.sqrt(sum(((moved[name] - state[name]) ** 2).sum() for name in state))
    values = weight_distance(ModelInputs(problem=problem, judged=theta_r, theta_r=other))
    assert values["weight_distance"] == pytest.approx(0, abs=1e-6)
    assert raw > 1


def test_distance_to_a_network_one_step_away_is_that_step():
    problem = make_tiny_problem("mlp")
    other = run_algorithm("original", problem)
    with torch.no_grad():
        other.head.bias += torch.tensor([3.0, 0, 0, 4.0])
        other.body[1].weight[0, 0] += 12.0
    values = weight_distance(ModelInputs(problem=problem, judged=problem.theta_o, theta_r=other))
    assert values["weight_distance"] == pytest.approx(13.0, rel=1e-6)
    assert values["weight_distance_penultimate"] == pytest.approx(12.0, rel=1e-6)
