"""SURE: one step by hand, and embeddings that no longer tell who was seen."""

import copy
from functools import cache

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from memscore.models.architectures import build_network
from memscore.training.device_data import to_device
from tests.fixtures.domains import compute_embeddings, domain_accuracy
from tests.fixtures.problems import N_CLASSES, RECIPE, SMALL, make_tiny_problem, run_algorithm
from unlearn.algorithms.sure import SureConfig
from unlearn.optimization.domain_adversarial import build_discriminator, draw_class_matched
from unlearn.problem import make_problem

ONE_STEP = {"epochs": 1, "batch": 64, "lr": 0.1, "momentum": 0.0, "weight_decay": 0.0}


def read_all(examples):
    return examples.take(torch.arange(len(examples))), examples.labels


def step_by_hand(problem, alpha, sign):
    """theta_o - lr (alpha grad L_R + sign (1 - alpha) grad L_d), with V and d as seed 0 draws them."""
    rng = np.random.default_rng(0)
    unseen, _ = draw_class_matched(problem.forget, problem.validation, rng)
    theta = copy.deepcopy(problem.theta_o)
    d = build_discriminator(theta.head.in_features, SureConfig().hidden, rng)
    images, labels = read_all(problem.retain)
    inside, outside = (d(theta.body(read_all(part)[0])) for part in (problem.forget, unseen))
    domain = binary_cross_entropy_with_logits(inside, torch.ones_like(inside))
    domain = domain + binary_cross_entropy_with_logits(outside, torch.zeros_like(outside))
    loss = alpha * cross_entropy(theta(images), labels) + sign * (1 - alpha) * domain
    gradients = torch.autograd.grad(loss, list(theta.parameters()))
    return [weight - 0.1 * gradient for weight, gradient in zip(theta.parameters(), gradients, strict=True)]


def are_close(theta, weights):
    # float32: three sets in one forward or in three
    return all(torch.allclose(a, b, atol=2e-6) for a, b in zip(theta.parameters(), weights, strict=True))


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_one_step_by_hand_climbs_the_domain_loss(kind):
    problem = make_tiny_problem(kind)
    theta_u = run_algorithm("sure", problem, alpha=0.4, forget_batch=64, **ONE_STEP)
    assert are_close(theta_u, step_by_hand(problem, 0.4, sign=-1))
    assert not are_close(theta_u, step_by_hand(problem, 0.4, sign=1))  # a reversal forgotten


def test_with_all_weight_on_the_retain_set_the_step_is_fine_tunings():
    problem = make_tiny_problem()
    theta_u = run_algorithm("sure", problem, alpha=1.0, **ONE_STEP)
    assert are_close(theta_u, run_algorithm("finetune", problem, **ONE_STEP).parameters())
    assert not are_close(run_algorithm("sure", problem, alpha=0.9, **ONE_STEP), theta_u.parameters())


def test_the_head_does_not_learn_from_the_domains():
    problem = make_tiny_problem()
    theta_u = run_algorithm("sure", problem, alpha=0.0, **ONE_STEP)
    assert torch.equal(theta_u.head.weight, problem.theta_o.head.weight)
    assert not torch.equal(theta_u.body[0].weight, problem.theta_o.body[0].weight)


def test_a_batch_norm_sees_forgotten_and_unseen_examples_in_one_batch():
    seen = []
    problem = make_tiny_problem("batch-norm")
    hook = type(problem.theta_o.body[1]).forward

    def forward(layer, images):
        seen.append(len(images))
        return hook(layer, images)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(problem.theta_o.body[1]), "forward", forward)
        run_algorithm("sure", problem)
    assert seen == [16 + 20, 16 + 20, 16 + 20, 6 + 20] * SMALL["epochs"]


def test_a_class_without_unseen_examples_is_refused():
    problem = make_tiny_problem(forget=range(0, 64, 4))
    object.__setattr__(problem, "validation", problem.validation.select(torch.tensor([1, 2, 3])))
    with pytest.raises(ValueError, match="16 examples of class 0, and the validation set 0"):
        run_algorithm("sure", problem)


@cache
def make_memorized_problem():
    """Noisy pixels; a hundred examples have random labels, which a narrow embedding has learned by heart."""
    n_forget, n_retain, unseen = 100, 100, 200
    rng = np.random.default_rng(0)
    labels = rng.integers(0, N_CLASSES, n_forget + n_retain + 2 * unseen)
    images = rng.integers(0, 255, (len(labels), 1, 8, 8))
    for row, label in enumerate(labels):
        images[row, :, 4 * (label // 2) :][:, :4, 4 * (label % 2) :][:, :, :4] += 60
    labels[:n_forget] = rng.integers(0, N_CLASSES, n_forget)
    data = to_device(images.clip(0, 255).astype(np.uint8), (0.4,), (0.25,), torch.device("cpu"), flat=True)
    truth = torch.from_numpy(labels)
    theta = build_network("mlp-128-8", (1, 8, 8), N_CLASSES, seed=0)
    sgd = torch.optim.SGD(theta.parameters(), lr=0.05, momentum=0.9)
    train_images = data.take(torch.arange(n_forget + n_retain))
    for _ in range(200):
        sgd.zero_grad()
        cross_entropy(theta(train_images), truth[: len(train_images)]).backward()
        sgd.step()
    return make_problem(theta, data, truth, (n_forget + n_retain, unseen, unseen), range(n_forget), RECIPE, N_CLASSES)


def measure_domain_accuracy(theta, problem):
    """By a discriminator that learns alone, on embeddings that it has not seen."""
    unseen, _ = draw_class_matched(problem.forget, problem.validation, np.random.default_rng(5))
    embeddings_of_sets = (compute_embeddings(theta, part) for part in (problem.forget, unseen))
    return domain_accuracy(*embeddings_of_sets, np.random.default_rng(3), steps=50)


def test_what_was_memorized_is_no_longer_told_from_what_was_never_seen():
    problem = make_memorized_problem()
    margin = 4 * np.sqrt(0.25 / 200)  # four standard errors of a coin thrown 200 times
    accuracies = []

    def step_callback(step, theta):
        if step in {4, 40}:
            accuracies.append(measure_domain_accuracy(theta, problem))

    assert measure_domain_accuracy(problem.theta_o, problem) > 0.5 + margin
    theta_u = run_algorithm("sure", problem, alpha=0.5, lr=0.045, epochs=20, batch=64, step_callback=step_callback)
    assert len(accuracies) == 2
    assert accuracies[0] > accuracies[1]
    assert abs(accuracies[-1] - 0.5) < margin
    assert accuracies[-1] == measure_domain_accuracy(theta_u, problem)
    finetuned = run_algorithm("sure", problem, alpha=1.0, lr=0.045, epochs=20, batch=64)
    assert measure_domain_accuracy(finetuned, problem) > 0.5 + margin
    images, labels = read_all(problem.retain)
    assert float((theta_u(images).argmax(1) == labels).float().mean()) > 0.95


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"alpha": 1.5}, r"alpha of SureConfig must be in \[0, 1\], got 1.5"),
        ({"discriminator_lr": 0}, "discriminator_lr of SureConfig must be above 0"),
        ({"forget_batch": 0}, "forget_batch of SureConfig must be 1 or more"),
        ({"heaviest": 0.5}, "heaviest of SureConfig must be 1 or more"),
    ],
)
def test_a_config_that_is_none_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        SureConfig(**wrong)
