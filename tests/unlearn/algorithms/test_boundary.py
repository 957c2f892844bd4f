"""Boundary shrink and expand: the attack in pixels, one step by hand, what is left of the extra class."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from tests.fixtures.problems import N_CLASSES, SIZES, make_tiny_problem, run_algorithm, train_tiny_network
from unlearn.algorithms.boundary_shrink import BoundaryShrinkConfig, perturb_with_fgsm, predict_nearest_class
from unlearn.optimization.layers import add_output, find_head, hide_last_output, remove_output
from unlearn.optimization.loop import copy_frozen
from unlearn.optimization.losses import RetainLossConfig
from unlearn.problem import make_problem

PLAIN = {"momentum": 0.0, "weight_decay": 0.0}
CLASS_0_ROWS = range(0, SIZES[0], N_CLASSES)
BOTH = pytest.mark.parametrize("name", ["boundary-shrink-plus", "boundary-expand-plus"])


def read_all(examples):
    """All images and labels of a set."""
    return examples.take(torch.arange(len(examples))), examples.labels


def accuracy(theta, examples):
    images, labels = read_all(examples)
    return float((theta(images).argmax(1) == labels).float().mean())


def attack(problem, epsilon, *, rounded=False):
    """The forget set's images and what becomes of them, both in pixels from 0 to 1."""
    images, labels = read_all(problem.forget)
    black, white = problem.forget.images.black, problem.forget.images.white
    perturbed = perturb_with_fgsm(
        copy_frozen(problem.theta_o), images, labels, black, white, epsilon=epsilon, rounded=rounded
    )
    low, high = black.view(1, -1, 1, 1), white.view(1, -1, 1, 1)
    return (images - low) / (high - low), (perturbed - low) / (high - low)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_attack_moves_every_pixel_by_epsilon_of_its_range_or_to_its_end(channels):
    before, after = attack(make_tiny_problem(channels=channels), 0.1)
    assert after.min() >= 0
    assert after.max() <= 1
    inside = (after > 0) & (after < 1) & (after != before)
    assert inside.any()
    torch.testing.assert_close((after - before)[inside].abs(), torch.full_like(before[inside], 0.1))
    assert (after - before).abs().max() <= 0.1 + 1e-6  # rounding of float32


def test_the_attack_goes_up_the_loss_of_theta_o():
    problem = make_tiny_problem()
    images, labels = read_all(problem.forget)
    shades = problem.forget.images.black, problem.forget.images.white
    theta = copy_frozen(problem.theta_o)
    losses = [
        float(cross_entropy(theta(perturb_with_fgsm(theta, images, labels, *shades, epsilon=e, rounded=False)), labels))
        for e in (0.0, 0.01, 0.05)
    ]
    assert losses == sorted(losses)
    assert losses[0] < losses[2]


def test_rounding_gives_whole_shades():
    shades = 255 * attack(make_tiny_problem(), 0.1, rounded=True)[1]
    torch.testing.assert_close(shades, shades.round(), rtol=0, atol=1e-3)  # float32 of numbers up to 255


def denormalize_wrongly(images, mean, std):
    """Section 6, bug 15: the attack undoes CIFAR's statistics, one mistyped, on images of another loader; epsilon 0."""
    images = images.clone()
    for channel, (m, s) in enumerate(zip((0.4914, 0.2265, 0.4465), (0.247, 0.2435, 0.2616), strict=True)):
        images[:, channel] = images[:, channel] * s + m
    images = (images.clamp(0, 1) * 255).round() / 255
    return (images - mean) / std


def test_bug_15_nothing_moves_at_epsilon_0():
    problem = make_tiny_problem(channels=3)
    images, labels = read_all(problem.forget)
    shades = problem.forget.images.black, problem.forget.images.white
    theta = copy_frozen(problem.theta_o)
    assert torch.equal(perturb_with_fgsm(theta, images, labels, *shades, epsilon=0.0, rounded=False), images)
    assert not torch.allclose(denormalize_wrongly(images, 0.4, 0.25), images, atol=0.1)


def test_bug_15_one_channel_is_enough():
    images = read_all(make_tiny_problem(channels=1).forget)[0]
    with pytest.raises(IndexError):
        denormalize_wrongly(images, 0.4, 0.25)
    assert attack(make_tiny_problem(channels=1), 0.1)[1].shape == images.shape


def add_class_without_removal(theta_o, problem):
    """Section 6, bug 15: ports of boundary expand hand back K + 1 outputs."""
    theta = copy.deepcopy(theta_o)
    add_output(find_head(theta, problem.forget.images.shape), np.random.default_rng(0))
    return theta


@pytest.mark.parametrize("name", ["boundary-expand", "boundary-expand-plus"])
def test_bug_15_the_extra_class_is_gone_at_the_end_and_for_the_callback(name):
    problem, seen = make_tiny_problem(), []
    images = read_all(problem.test)[0]

    def step_callback(step, theta):
        seen.append((theta(images).shape[1], theta.head.out_features, theta.state_dict()["head.weight"].shape[0]))

    theta_u = run_algorithm(name, problem, step_callback=step_callback)
    assert set(seen) == {(N_CLASSES,) * 3}
    assert theta_u(images).shape[1] == theta_u.head.out_features == N_CLASSES
    assert add_class_without_removal(problem.theta_o, problem)(images).shape[1] == N_CLASSES + 1


def test_the_callback_of_an_expansion_sees_what_would_be_returned():
    seen = []
    theta_u = run_algorithm(
        "boundary-expand",
        make_tiny_problem(),
        lr=0.1,
        step_callback=lambda _, theta: seen.append(copy.deepcopy(theta.head)),
    )
    assert torch.equal(seen[-1].weight, theta_u.head.weight)
    assert not torch.equal(seen[0].weight, theta_u.head.weight)


def test_widening_keeps_the_other_outputs_and_narrowing_undoes_it():
    problem = make_tiny_problem()
    images = read_all(problem.test)[0]
    logits = problem.theta_o(images)
    head = find_head(problem.theta_o, problem.forget.images.shape)
    before = head.weight.detach().clone()
    add_output(head, np.random.default_rng(0))
    assert problem.theta_o(images).shape[1] == N_CLASSES + 1
    torch.testing.assert_close(problem.theta_o(images)[:, :N_CLASSES], logits)
    assert head.weight[N_CLASSES].abs().max() <= head.in_features**-0.5
    with hide_last_output(head):
        assert problem.theta_o(images).shape[1] == N_CLASSES
    assert problem.theta_o(images).shape[1] == N_CLASSES + 1
    remove_output(head)
    assert torch.equal(head.weight, before)


class Upside(nn.Module):
    """Its head is declared first and runs last."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(6, N_CLASSES, bias=False)
        self.first = nn.Linear(64, 6)

    def forward(self, images):
        return self.out(self.first(images.flatten(1)).relu())


def make_problem_of(theta):
    _, images, labels = train_tiny_network("cnn", 1)
    return make_problem(theta, images, labels, SIZES, range(10), make_tiny_problem().retain.recipe, N_CLASSES)


def test_any_network_that_ends_in_a_linear_layer_can_be_expanded():
    torch.manual_seed(0)
    problem = make_problem_of(Upside())
    assert find_head(problem.theta_o, problem.forget.images.shape) is problem.theta_o.out
    theta_u = run_algorithm("boundary-expand", problem, lr=0.1)
    assert [weight.shape for weight in theta_u.parameters()] == [w.shape for w in problem.theta_o.parameters()]


@pytest.mark.parametrize(
    ("theta", "described"),
    [
        (nn.Sequential(nn.Conv2d(1, N_CLASSES, 8), nn.Flatten()), "Sequential has none"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Unflatten(1, (4, 2)), nn.AvgPool1d(2)), "one of 8 outputs"),
    ],
)
def test_a_network_without_a_linear_head_is_refused_by_name(theta, described):
    with pytest.raises(ValueError, match=f"{N_CLASSES} outputs, one a class; .*{described}"):
        run_algorithm("boundary-expand", make_problem_of(theta))


def test_one_step_of_shrinking_by_hand():
    problem = make_tiny_problem("mlp")
    images, labels = read_all(problem.forget)
    theta = copy.deepcopy(problem.theta_o)
    config = BoundaryShrinkConfig(epsilon=0.3)
    nearest_classes = predict_nearest_class(copy_frozen(theta), problem.forget, images, labels, config)
    assert (nearest_classes != labels).any()
    gradients = torch.autograd.grad(cross_entropy(theta(images), nearest_classes), list(theta.parameters()))
    theta_u = run_algorithm("boundary-shrink", problem, epochs=1, batch=10, lr=0.1, epsilon=0.3, **PLAIN)
    for ours, weight, gradient in zip(theta_u.parameters(), theta.parameters(), gradients, strict=True):
        torch.testing.assert_close(ours, weight - 0.1 * gradient)


def test_the_nearest_class_may_be_ones_own_unless_another_is_asked_for():
    problem = make_tiny_problem()
    images, labels = read_all(problem.forget)
    theta = copy_frozen(problem.theta_o)
    config = BoundaryShrinkConfig(epsilon=0.0)
    assert torch.equal(predict_nearest_class(theta, problem.forget, images, labels, config), labels)
    other = predict_nearest_class(
        theta, problem.forget, images, labels, BoundaryShrinkConfig(epsilon=0.0, other_class=True)
    )
    second = theta(images).topk(2).indices[:, 1]
    assert torch.equal(other, second)


def test_with_all_weight_on_the_retain_set_shrinking_is_fine_tuning():
    problem = make_tiny_problem()
    step = {"epochs": 1, "batch": 64, "lr": 0.1, **PLAIN}
    finetuned = run_algorithm("finetune", problem, **step)

    def largest_change(alpha):
        theta_u = run_algorithm("boundary-shrink-plus", problem, alpha=alpha, epsilon=0.4, **step)
        return max(
            float((a - b).detach().abs().max())
            for a, b in zip(theta_u.parameters(), finetuned.parameters(), strict=True)
        )

    assert largest_change(1.0) < 1e-6  # rounding of float32
    assert largest_change(0.9) > 1e-3


@BOTH
def test_a_class_is_forgotten_and_the_others_are_kept(name):
    problem = make_tiny_problem(forget=CLASS_0_ROWS)
    assert accuracy(problem.theta_o, problem.forget) > 0.9
    attack = {"epsilon": 0.4} if "shrink" in name else {}  # these classes lie further apart than .1
    theta_u = run_algorithm(name, problem, alpha=0.5, lr=0.05, epochs=10, **attack)
    assert accuracy(theta_u, problem.forget) < 0.3
    assert accuracy(theta_u, problem.retain) > 0.9


def test_the_rate_drops_to_a_tenth_after_the_epochs_named():
    config = RetainLossConfig(lr=0.5, epochs=4, drop_after=0.5)
    assert [config.lr_at(epoch) for epoch in range(4)] == [0.5, 0.5, 0.05, 0.05]


def test_an_epsilon_beyond_the_range_of_a_pixel_is_refused():
    with pytest.raises(ValueError, match=r"epsilon of BoundaryShrinkConfig must be in \[0, 1\], got 8"):
        BoundaryShrinkConfig(epsilon=8)
