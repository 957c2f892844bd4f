"""Fine-tuning, gradient ascent, NegGrad+ and L1-sparse: one step by hand, and the bugs of their released codes."""

from itertools import cycle

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from tests.fixtures.problems import KINDS, copy_state, have_same_weights, make_unsure_problem, run_algorithm
from tests.fixtures.spies import classify_batches, have_close_weights, record_batches_read, take_plain_step
from unlearn.algorithms.l1_sparse import L1SparseConfig, l1_norm
from unlearn.optimization.loop import UnlearningLoop, UnlearningLoopConfig, copy_model
from unlearn.problem import BatchSampler

ONCE = {"epochs": 1, "batch": 64, "lr": 0.05, "weight_decay": 0.01}
every_kind = pytest.mark.parametrize("kind", KINDS)


def full_batch_loss(theta, examples):
    """The loss of a set in one batch."""
    return cross_entropy(theta(examples.take(torch.arange(len(examples)))), examples.labels)


def step_from_theta_o(problem, loss):
    """theta_o after one step down a loss, in training mode."""
    theta = copy_model(problem.theta_o).train()
    take_plain_step(theta, loss(theta), lr=0.05, weight_decay=0.01)
    return theta


@every_kind
def test_one_step_of_finetune(kind):
    problem = make_unsure_problem(kind)
    expected = step_from_theta_o(problem, lambda theta: full_batch_loss(theta, problem.retain))
    assert have_close_weights(run_algorithm("finetune", problem, **ONCE), expected)


@every_kind
def test_one_step_of_gradient_ascent(kind):
    problem = make_unsure_problem(kind)
    expected = step_from_theta_o(problem, lambda theta: -full_batch_loss(theta, problem.forget))
    assert have_close_weights(run_algorithm("gradient-ascent", problem, **ONCE), expected)


@every_kind
@pytest.mark.parametrize("beta", [0.0, 0.7, 1.0])
def test_one_step_of_neggrad_plus(kind, beta):
    problem = make_unsure_problem(kind)

    def loss(theta):
        return beta * full_batch_loss(theta, problem.retain) - (1 - beta) * full_batch_loss(theta, problem.forget)

    assert have_close_weights(
        run_algorithm("neggrad-plus", problem, **ONCE, beta=beta), step_from_theta_o(problem, loss)
    )


@every_kind
def test_one_step_of_l1_sparse(kind):
    problem = make_unsure_problem(kind)

    def loss(theta):
        return full_batch_loss(theta, problem.retain) + 0.02 * sum(p.abs().sum() for p in theta.parameters())

    assert have_close_weights(run_algorithm("l1-sparse", problem, **ONCE, gamma=0.02), step_from_theta_o(problem, loss))


def test_ascent_climbs_on_the_forget_set_and_finetune_descends_on_the_rest():
    problem = make_unsure_problem()
    before = full_batch_loss(problem.theta_o, problem.forget)
    assert full_batch_loss(run_algorithm("gradient-ascent", problem, lr=1e-4), problem.forget) > before
    assert full_batch_loss(run_algorithm("neggrad-plus", problem, lr=1e-4, beta=0.5), problem.forget) > before
    assert full_batch_loss(run_algorithm("finetune", problem, lr=1e-4), problem.retain) < full_batch_loss(
        problem.theta_o, problem.retain
    )


def run_neggrad_skipping(problem):
    """A small copy of bug 6: batches of unequal size are left out."""
    theta, rng = copy_model(problem.theta_o), np.random.default_rng(0)
    retain_batches, forget_batches = BatchSampler(problem.retain, 16, rng), BatchSampler(problem.forget, 16, rng)

    def losses():
        for (images, labels), (forget_images, forget_labels) in zip(
            retain_batches, forget_batches.cycle(), strict=False
        ):
            if len(labels) != len(forget_labels):
                continue
            yield cross_entropy(theta(images), labels) - cross_entropy(theta(forget_images), forget_labels)

    return UnlearningLoop(theta, UnlearningLoopConfig(lr=0.01)).run(losses())


def test_bug_6_neggrad_skips_unequal_batches():
    problem = make_unsure_problem(forget=[5])
    assert have_same_weights(run_neggrad_skipping(problem), problem.theta_o)
    assert not have_same_weights(run_algorithm("neggrad-plus", problem, lr=0.01), problem.theta_o)
    assert full_batch_loss(run_algorithm("neggrad-plus", problem, lr=0.01, beta=0.5), problem.forget) > full_batch_loss(
        problem.theta_o, problem.forget
    )


def test_bug_7_the_first_pass_over_the_forget_set_is_cached(monkeypatch):
    problem = make_unsure_problem()

    def record_cached_orders():
        caching = cycle(BatchSampler(problem.forget, 10, np.random.default_rng(0)))
        return [next(caching)[1].tolist() for _ in range(6)]

    def record_orders():
        batch_rows = record_batches_read(monkeypatch, lambda: run_algorithm("neggrad-plus", problem, epochs=2))
        return [rows for rows in batch_rows if classify_batches([rows], problem.forget) == "F"]

    assert len({tuple(order) for order in record_cached_orders()}) == 1
    orders = record_orders()
    assert len(orders) == 8
    assert len({tuple(order) for order in orders}) == 8


def test_neggrad_plus_of_beta_one_is_finetune():
    params = {"epochs": 2, "lr": 0.01}
    assert have_same_weights(
        run_algorithm("neggrad-plus", make_unsure_problem(), beta=1.0, **params),
        run_algorithm("finetune", make_unsure_problem(), **params),
    )


def test_the_penalty_falls_to_zero_in_a_line():
    config = L1SparseConfig(epochs=5, plain_epochs=1, gamma=0.4)
    assert [config.gamma_at(epoch) for epoch in range(5)] == pytest.approx([0.4, 0.3, 0.2, 0.1, 0.0])
    config = L1SparseConfig(epochs=4, plain_epochs=2, gamma=0.4, gamma_decay="none")
    assert [config.gamma_at(epoch) for epoch in range(4)] == [0.4, 0.4, 0.0, 0.0]


def test_the_norm_is_a_sum_over_all_parameters_those_of_batch_norms_too():
    theta = make_unsure_problem("batch-norm").theta_o.requires_grad_(False)
    expected = sum(
        value.abs().sum() for name, value in copy_state(theta).items() if name in dict(theta.named_parameters())
    )
    assert float(l1_norm(theta)) == pytest.approx(float(expected))
    assert "body.1.weight" in dict(theta.named_parameters())


def test_l1_sparse_without_a_penalty_is_finetune_and_with_one_is_sparser():
    params = {"lr": 0.01, "epochs": 3}
    plain = run_algorithm("finetune", make_unsure_problem("mlp"), **params)
    assert have_close_weights(run_algorithm("l1-sparse", make_unsure_problem("mlp"), gamma=0.0, **params), plain)
    assert l1_norm(run_algorithm("l1-sparse", make_unsure_problem("mlp"), gamma=0.05, **params)) < 0.9 * l1_norm(plain)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"epochs": 10, "plain_epochs": 10},
            "plain_epochs of L1SparseConfig must be 0 or more and under epochs, 10 .*, got 10",
        ),
        ({"plain_epochs": -1}, "plain_epochs of L1SparseConfig must be 0 or more, got -1"),
        ({"gamma": -1.0}, "gamma of L1SparseConfig must be 0 or more, got -1"),
        ({"gamma_decay": "rising"}, "gamma_decay of L1SparseConfig must be linear or none, got rising"),
    ],
)
def test_an_l1_config_that_is_none_is_refused(params, message):
    with pytest.raises(ValueError, match=message):
        L1SparseConfig(**params)
