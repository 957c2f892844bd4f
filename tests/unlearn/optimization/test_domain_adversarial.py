"""Gradient reversal, a class-matched unseen set, and a discriminator on fixed embeddings."""

import numpy as np
import pytest
import torch

from tests.fixtures.domains import compute_embeddings, domain_accuracy
from tests.fixtures.problems import N_CLASSES, make_tiny_problem
from unlearn.optimization.domain_adversarial import (
    build_discriminator,
    domain_loss,
    draw_class_matched,
    gradient_reversal,
)


def gradient_through(function, weight):
    """Compute the gradient of sum(3 function(x)) in x."""
    x = torch.tensor([1.0, -2.0], requires_grad=True)
    return torch.autograd.grad((3 * function(x, weight)).sum(), x)[0].tolist()


def test_a_reversal_passes_its_input_and_turns_the_slope():
    x = torch.tensor([1.0, -2.0])
    assert torch.equal(gradient_reversal(x, 0.5), x)
    assert gradient_through(gradient_reversal, 0.5) == [-1.5, -1.5]
    assert gradient_through(gradient_reversal, 0.0) == [0, 0]
    not_reversed = gradient_through(lambda x, weight: weight * x + (1 - weight) * x.detach(), 0.5)
    assert not_reversed == [1.5, 1.5]


def test_the_loss_of_a_discriminator_by_hand():
    logits = torch.tensor([[0.0], [np.log(3.0)], [0.0], [np.log(3.0)]])
    inside = (np.log(2) - np.log(3 / 4)) / 2
    outside = (0.5 * np.log(2) - 1.5 * np.log(1 / 4)) / 2
    assert float(domain_loss(logits, 2, torch.tensor([0.5, 1.5]))) == pytest.approx(inside + outside)
    assert float(domain_loss(torch.zeros(5, 1), 2, torch.ones(3))) == pytest.approx(2 * np.log(2))


def class_mix(examples, weights):
    return torch.bincount(examples.labels, weights=weights, minlength=N_CLASSES).tolist()


def test_the_unseen_set_has_the_size_and_the_class_mix_of_the_forget_set():
    problem = make_tiny_problem(forget=[0, 4, 8, 1, 2, 6])
    unseen, weights = draw_class_matched(problem.forget, problem.validation, np.random.default_rng(0))
    assert torch.bincount(unseen.labels, minlength=4).tolist() == [3, 1, 2, 0]
    assert weights.tolist() == [1] * 6
    assert set(unseen.rows.tolist()) <= set(problem.validation.rows.tolist())
    assert len(unseen.rows.unique()) == 6
    second, _ = draw_class_matched(problem.forget, problem.validation, np.random.default_rng(1))
    assert unseen.rows.tolist() != second.rows.tolist()


def test_a_small_unseen_set_weighs_as_the_forget_sets_mix():
    problem = make_tiny_problem(
        forget=[*range(0, 64, 4), 1, 5, 9, 13]
    )  # 16 of class 0, of which validation has 6; 4 of class 1
    unseen, weights = draw_class_matched(problem.forget, problem.validation, np.random.default_rng(0))
    assert torch.bincount(unseen.labels, minlength=4).tolist() == [6, 4, 0, 0]
    assert float(weights.mean()) == pytest.approx(1)
    assert class_mix(unseen, weights) == pytest.approx([10 * 16 / 20, 10 * 4 / 20, 0, 0])


def test_a_class_that_validation_lacks_is_refused_with_numbers():
    problem = make_tiny_problem(forget=range(0, 64, 4))
    without = problem.validation.select(torch.nonzero(problem.validation.labels != 0)[:, 0])
    with pytest.raises(ValueError, match=r"has 16 examples of class 0, and the validation set 0, .* needs 2 or more"):
        draw_class_matched(problem.forget, without, np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"has 16 examples of class 0, and the validation set 6, .* needs 8 or more"):
        draw_class_matched(problem.forget, problem.validation, np.random.default_rng(0), heaviest=2)


def test_embeddings_are_the_bodys_and_leave_modes_alone():
    problem = make_tiny_problem("batch-norm")
    expected = problem.theta_o.body(problem.test.take(torch.arange(24))).detach()
    problem.theta_o.train()
    problem.theta_o.body[1].eval()
    before = [module.training for module in problem.theta_o.modules()]
    torch.testing.assert_close(compute_embeddings(problem.theta_o, problem.test, batch=7), expected)
    assert [module.training for module in problem.theta_o.modules()] == before


def draw_clouds(difference, n=200):
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, n, 3)).astype(np.float32)
    return torch.from_numpy(first + difference), torch.from_numpy(second)


def test_equal_clouds_cannot_be_told_apart_and_distant_ones_can():
    accuracy = domain_accuracy(*draw_clouds(0.0), np.random.default_rng(0), steps=50)
    assert abs(accuracy - 0.5) < 4 * 0.5 / np.sqrt(400)  # four standard errors of a coin
    assert domain_accuracy(*draw_clouds(5.0), np.random.default_rng(0), steps=50) == 1


def test_sets_of_unequal_size_weigh_the_same():
    first, second = draw_clouds(0.0)
    accuracy = domain_accuracy(first, second[:40], np.random.default_rng(0), steps=50)
    assert abs(accuracy - 0.5) < 4 * np.sqrt(0.25 / 200 + 0.25 / 40) / 2  # a mean of two shares


def test_one_alone_cannot_be_told_apart():
    with pytest.raises(ValueError, match="two sets of 2 or more are needed to separate them, got 1 and 5"):
        domain_accuracy(torch.zeros(1, 3), torch.zeros(5, 3), np.random.default_rng(0))


def test_a_discriminator_is_the_rngs_and_touches_no_global_stream():
    before = torch.get_rng_state()
    first, same, second = (build_discriminator(3, 4, np.random.default_rng(seed))[0].weight for seed in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)
