"""SalUn: an exact mask of the most salient weights, and masked weights that do not change."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from tests.fixtures.problems import KINDS, copy_state, have_same_weights, make_unsure_problem, run_algorithm
from unlearn.algorithms.salun import SalUnConfig, compute_saliency_mask
from unlearn.optimization.loop import copy_model
from unlearn.problem import BatchSampler, iterate_in_order

every_kind = pytest.mark.parametrize("kind", KINDS)


def compute_gradients(theta_o, forget):
    """The gradient of the forget set's loss, all parameters in one row, by backward in float64."""
    theta = copy_model(theta_o).double().eval()
    whole = forget.take(torch.arange(len(forget))).double()
    cross_entropy(theta(whole), forget.labels, reduction="sum").backward()
    return torch.cat([parameter.grad.flatten() for parameter in theta.parameters()])


def flatten_mask(mask):
    return torch.cat([part.flatten() for part in mask.values()])


def compute_least_salient_mask(theta, forget, density):
    """A small copy of bug 1: steps while it sums, and keeps the smallest."""
    sgd = torch.optim.SGD(theta.parameters(), lr=0.1)
    total = [torch.zeros_like(parameter) for parameter in theta.parameters()]
    for images, labels in iterate_in_order(forget, 4):
        sgd.zero_grad()
        cross_entropy(theta(images), labels).backward()
        for gradient, parameter in zip(total, theta.parameters(), strict=True):
            gradient += parameter.grad
        sgd.step()
    magnitudes = torch.cat([gradient.abs().flatten() for gradient in total])
    mask = torch.zeros_like(magnitudes, dtype=torch.bool)
    mask[magnitudes.argsort()[: int(density * len(magnitudes))]] = True
    named = [(name, parameter.shape) for name, parameter in theta.named_parameters()]
    parts = mask.split([shape.numel() for _, shape in named])
    return {name: part.view(shape) for (name, shape), part in zip(named, parts, strict=True)}


@every_kind
@pytest.mark.parametrize("density", [0.1, 0.3, 0.5])
def test_bug_1_the_mask_keeps_what_matters_least(kind, density):
    def check_mask(make):
        problem = make_unsure_problem(kind)
        magnitudes, before = compute_gradients(problem.theta_o, problem.forget).abs(), copy_state(problem.theta_o)
        selected = flatten_mask(make(problem.theta_o, problem.forget, density))
        exact = int(selected.sum()) == int(density * len(magnitudes))
        untouched = all(torch.equal(before[name], value) for name, value in copy_state(problem.theta_o).items())
        return (
            exact,
            bool(selected[magnitudes.argmax()]),
            bool(magnitudes[selected].min() >= magnitudes[~selected].max() - 1e-5),
            untouched,
        )

    assert check_mask(compute_least_salient_mask) == (True, False, False, False)
    assert check_mask(compute_saliency_mask) == (True, True, True, True)


def test_the_mask_depends_on_neither_batches_nor_order():
    problem = make_unsure_problem()
    whole = flatten_mask(compute_saliency_mask(problem.theta_o, problem.forget, 0.3))
    assert torch.equal(whole, flatten_mask(compute_saliency_mask(problem.theta_o, problem.forget, 0.3, batch=3)))
    backwards = problem.forget.select(torch.arange(9, -1, -1))
    assert torch.equal(whole, flatten_mask(compute_saliency_mask(problem.theta_o, backwards, 0.3)))


def test_the_count_is_exact_where_a_threshold_keeps_every_tie():
    problem = make_unsure_problem("mlp")
    with torch.no_grad():
        problem.theta_o.body[1].bias.fill_(-100.0)  # every hidden unit is off, so nearly all gradients are 0
    magnitudes = compute_gradients(problem.theta_o, problem.forget).abs()
    by_threshold = magnitudes >= magnitudes.sort(descending=True)[0][len(magnitudes) // 2 - 1]
    assert by_threshold.all()
    assert int(flatten_mask(compute_saliency_mask(problem.theta_o, problem.forget, 0.5)).sum()) == len(magnitudes) // 2


def test_a_share_is_not_rounded_down_by_floating_point():
    problem = make_unsure_problem("mlp", channels=1)
    weights = len(compute_gradients(problem.theta_o, problem.forget))
    for percent in range(1, 101):
        mask = compute_saliency_mask(problem.theta_o, problem.forget, percent / 100)
        assert int(flatten_mask(mask).sum()) == percent * weights // 100


@every_kind
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_bug_3_momentum_and_weight_decay_move_masked_weights(kind, optimizer):
    def train_with_masked_gradients(problem, mask):
        theta = copy_model(problem.theta_o).train()
        kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
        more = {"momentum": 0.9} if optimizer == "sgd" else {}
        steps = kinds[optimizer](theta.parameters(), lr=0.01, weight_decay=5e-4, **more)
        for images, labels in BatchSampler(problem.forget, 4, np.random.default_rng(0)):
            steps.zero_grad()
            cross_entropy(theta(images), labels).backward()
            for name, parameter in theta.named_parameters():
                parameter.grad *= mask[name]
            steps.step()
        return theta

    def masked_weights_stay(run):
        problem = make_unsure_problem(kind)
        mask = compute_saliency_mask(problem.theta_o, problem.forget, 0.5, batch=16)
        before, after = copy_state(problem.theta_o), copy_state(run(problem, mask))
        moved = torch.cat([(before[name] != after[name]).flatten() for name in mask])
        assert moved[flatten_mask(mask)].float().mean() > 0.5
        return not moved[~flatten_mask(mask)].any()

    assert not masked_weights_stay(train_with_masked_gradients)
    assert masked_weights_stay(
        lambda problem, _: run_algorithm("salun", problem, optimizer=optimizer, lr=0.01, kind=kind)
    )


@every_kind
@pytest.mark.parametrize("order", ["mixed", "sequential"])
def test_with_a_mask_of_ones_it_is_random_labels_bit_for_bit(kind, order):
    params = {"epochs": 2, "lr": 0.02, "order": order}
    assert have_same_weights(
        run_algorithm("salun", make_unsure_problem(kind), density=1.0, **params),
        run_algorithm("random-label", make_unsure_problem(kind), **params),
    )


def test_a_share_that_is_none_is_refused():
    for density in (0.0, 1.1):
        with pytest.raises(ValueError, match=f"density of SalUnConfig must be above 0 and at most 1, got {density}"):
            SalUnConfig(density=density)
    problem = make_unsure_problem("mlp")
    with pytest.raises(ValueError, match=r"a density of 0.0001 keeps none of 556 weights; use 0.0018 or more"):
        compute_saliency_mask(problem.theta_o, problem.forget, 0.0001)
