"""Influence unlearning against retraining, against the dense matrix, and against the recursion written out."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, hessian

from memscore.training.device_data import DeviceImages
from memscore.training.recipes import Recipe
from tests.fixtures.problems import SIZES, copy_state, make_tiny_problem, run_algorithm
from unlearn.algorithms.influence import InfluenceConfig, influence, removal_gradient, woodfisher
from unlearn.optimization.curvature import (
    compute_gradient,
    conjugate_gradient,
    gauss_newton_product,
    split_like_parameters,
    summed_cross_entropy,
)
from unlearn.optimization.loop import TrainingDiverged
from unlearn.problem import make_problem

TRAIN, FORGET, INPUTS, CLASSES = 60, 6, 5, 3
RECIPE = Recipe(epochs=1, batch=8, lr=0.1)
L2 = 0.05


def make_linear_problem(seed=0):
    """A linear network in float64, and noisy points of three classes; not trained."""
    rng = np.random.default_rng(seed)
    labels = np.arange(TRAIN + 2) % CLASSES
    points = rng.normal(size=(TRAIN + 2, INPUTS)) + 0.8 * np.eye(CLASSES, INPUTS)[labels]
    pixels = torch.from_numpy(points).view(-1, 1, INPUTS, 1)
    shade = torch.zeros(1, dtype=torch.float64)
    images = DeviceImages(pixels=pixels, shape=(1, 1, INPUTS), flat=False, black=shade, white=shade + 1)
    theta = nn.Sequential(nn.Flatten(), nn.Linear(INPUTS, CLASSES)).double()
    return make_problem(theta, images, torch.from_numpy(labels), (TRAIN, 1, 1), range(FORGET), RECIPE, CLASSES)


def squared(logits, labels):
    """Half the squared distance to the one-hot label, summed."""
    return 0.5 * ((logits - nn.functional.one_hot(labels, CLASSES)) ** 2).sum()


def get_weights(theta):
    return torch.cat([weight.detach().reshape(-1) for weight in theta.parameters()])


def set_weights(vector, theta):
    with torch.no_grad():
        for weight, part in zip(theta.parameters(), split_like_parameters(vector, theta), strict=True):
            weight.copy_(part)


def compute_dense(theta, examples, loss):
    """Gradient and Hessian of mean loss + L2/2 |w|^2 at theta, by autodiff of the whole vector."""
    images, labels = examples.take(torch.arange(len(examples))), examples.labels

    def objective(w):
        named = dict(zip(dict(theta.named_parameters()), split_like_parameters(w, theta), strict=True))
        return loss(functional_call(theta, named, (images,)), labels) / len(labels) + L2 / 2 * (w @ w)

    w = get_weights(theta)
    return torch.func.grad(objective)(w), hessian(objective)(w)


def train_to_minimum(theta, examples, loss):
    for _ in range(12):  # Newton's method doubles the digits each time
        gradient, matrix = compute_dense(theta, examples, loss)
        set_weights(get_weights(theta) - torch.linalg.solve(matrix, gradient), theta)
    assert compute_dense(theta, examples, loss)[0].abs().max() < 1e-14
    return get_weights(theta)


def compute_newton_step(problem, loss):
    v = removal_gradient(problem.theta_o, problem.retain, problem.forget, 16, loss)
    return conjugate_gradient(
        lambda u: gauss_newton_product(problem.theta_o, problem.retain, u, 16, loss) + L2 * u, v, 60, 1e-14
    )


def test_newtons_step_on_ridge_is_retraining():
    problem = make_linear_problem()
    theta = problem.theta_o
    theta_r = train_to_minimum(theta, problem.retain, squared)
    theta_o = train_to_minimum(theta, problem.retain.concatenate(problem.forget), squared)
    assert (theta_o - theta_r).norm() > 1e-3
    # float64 algebra on 18 unknowns: conjugate gradients end at rounding
    torch.testing.assert_close(theta_o + compute_newton_step(problem, squared), theta_r, rtol=1e-10, atol=1e-12)


def test_on_a_linear_softmax_it_is_newtons_step_and_lands_near_retraining():
    problem = make_linear_problem()
    theta = problem.theta_o
    theta_r = train_to_minimum(theta, problem.retain, summed_cross_entropy)
    theta_o = train_to_minimum(theta, problem.retain.concatenate(problem.forget), summed_cross_entropy)
    gradient, matrix = compute_dense(theta, problem.retain, summed_cross_entropy)
    config = InfluenceConfig(variant="ihvp-cg", damping=L2, iterations=60, tolerance=1e-14, batch=16)
    theta_u = influence(theta, problem.retain, problem.forget, config, np.random.default_rng(0))
    torch.testing.assert_close(
        get_weights(theta_u), theta_o - torch.linalg.solve(matrix, gradient), rtol=1e-10, atol=1e-12
    )
    relative_distance = (get_weights(theta_u) - theta_r).norm() / (theta_o - theta_r).norm()
    assert relative_distance < 0.05  # second order in a tenth of the examples


def test_the_released_recursion_written_out():
    problem = make_linear_problem(seed=3)
    theta, retain = problem.theta_o, problem.retain
    few = retain.select(torch.tensor([4, 0, 9]))
    first, second, third = (compute_gradient(theta, few.select(torch.tensor([i])), 1).numpy() for i in range(3))
    v = torch.linspace(-1, 1, len(first), dtype=torch.float64)
    o, k = first, v.numpy()
    for g in (second, third):
        t = o @ g
        k, o = k - (k @ g) / (3 + t) * o, o - t / (3 + t) * o
    torch.testing.assert_close(woodfisher(theta, few, v).numpy(), k, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(woodfisher(theta, few.select(torch.tensor([0])), v), v)


def test_woodfisher_draws_its_samples_unless_told_to_take_the_first():
    problem = make_linear_problem()

    def run_influence(seed, order):
        config = InfluenceConfig(samples=5, order=order)
        rng = np.random.default_rng(seed)
        return get_weights(influence(problem.theta_o, problem.retain, problem.forget, config, rng))

    assert torch.equal(run_influence(0, "first"), run_influence(1, "first"))
    assert not torch.equal(run_influence(0, "drawn"), run_influence(1, "drawn"))


def test_conjugate_gradients_read_the_retain_set_once_an_iteration():
    problem = make_tiny_problem()
    run_algorithm("influence", problem, variant="ihvp-cg", iterations=3, tolerance=1e-12)
    assert problem.retain.read_counter.examples == SIZES[0] + 3 * len(problem.retain)


def test_the_gauss_newton_product_is_symmetric_and_never_negative():
    problem = make_tiny_problem("batch-norm")
    n = sum(weight.numel() for weight in problem.theta_o.parameters())
    one, other = torch.randn(2, n, generator=torch.Generator().manual_seed(0))
    products = [gauss_newton_product(problem.theta_o, problem.retain, u, 20) for u in (one, other)]
    torch.testing.assert_close(
        one @ products[1], other @ products[0], rtol=1e-4, atol=1e-5
    )  # float32 sums over 54 examples
    assert one @ products[0] > 0


def test_weights_in_channels_last_give_the_same_step():
    problem = make_tiny_problem("cnn")
    expected = copy_state(run_algorithm("influence", problem, variant="ihvp-cg", iterations=2))
    problem.theta_o.to(memory_format=torch.channels_last)
    actual = copy_state(run_algorithm("influence", problem, variant="ihvp-cg", iterations=2))
    for name, weight in expected.items():
        torch.testing.assert_close(actual[name], weight)


def test_what_is_no_number_ends_it_by_name():
    problem = make_tiny_problem()
    with torch.no_grad():
        problem.theta_o.head.bias[0] = float("nan")
    with pytest.raises(TrainingDiverged, match="try a smaller alpha"):
        run_algorithm("influence", problem)


def retain_gradient_over_the_forget_set(theta, retain, forget):
    """Section 6, bug 13: the ImageNet branch of the released code sums R's gradient over F's loader."""
    n, share = len(retain) + len(forget), len(forget) / len(retain)
    return (compute_gradient(theta, forget, 16) - share * compute_gradient(theta, forget, 16)) / n


def test_bug_13_nothing_pulls_when_the_forget_set_is_the_retain_set_twice_over():
    theta, retain = make_linear_problem().theta_o, make_linear_problem().retain
    forget = retain.concatenate(retain)
    scale = compute_gradient(theta, retain, 16).norm() / len(retain)
    assert removal_gradient(theta, retain, forget, 16).norm() < 1e-12 * scale
    assert retain_gradient_over_the_forget_set(theta, retain, forget).norm() > 0.1 * scale


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"alpha": 0}, "alpha of InfluenceConfig must be above 0 and finite, got 0"),
        ({"variant": "cg"}, "must be woodfisher or ihvp-cg, got cg"),
        ({"samples": 1}, "samples of InfluenceConfig must be 2 or more"),
        ({"damping": -1}, "damping of InfluenceConfig must be 0 or more"),
    ],
)
def test_a_config_that_is_none_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        InfluenceConfig(**wrong)
