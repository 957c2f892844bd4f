"""Relearning: nothing to do for who knows, the oracle's effort for who forgot, and a stop for who cannot."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from tests.fixtures.problems import KINDS, copy_state, have_same_weights, make_tiny_problem, run_algorithm
from unlearn.measures.inputs import ModelInputs
from unlearn.measures.relearn import LOOP_CONFIG, LOSS_FLOOR, count_steps_until, mean_loss, relearn


def make_relabelled_problem(kind="cnn"):
    """F under labels that only a model trained on F has: the next class's."""
    problem = make_tiny_problem(kind)
    return replace(problem, forget=replace(problem.forget, labels=(problem.forget.labels + 1) % 4))


def train_on_forget_set(problem, steps=400):
    """theta_o taught the forget set."""
    theta = run_algorithm("original", problem)
    sgd = torch.optim.SGD(theta.parameters(), lr=0.02, momentum=0.9)
    images = problem.forget.images.take(problem.forget.rows)
    for _ in range(steps):
        sgd.zero_grad()
        cross_entropy(theta(images), problem.forget.labels).backward()
        sgd.step()
    sgd.zero_grad()
    return theta.eval()


def test_who_knows_needs_no_step_and_who_does_not_needs_the_oracles():
    problem = make_relabelled_problem()
    theta_o, theta_r = train_on_forget_set(problem), problem.theta_o
    problem = replace(problem, theta_o=theta_o)
    assert mean_loss(theta_o, problem.forget) < LOSS_FLOOR < mean_loss(theta_r, problem.forget)
    original = relearn(ModelInputs(problem=problem, judged=theta_o, theta_r=theta_r))
    oracle = relearn(ModelInputs(problem=problem, judged=theta_r, theta_r=theta_r))
    assert original == {"relearn_steps": 0.0, "relearn_ratio": 0.0, "relearn_censored": 0.0}
    assert oracle["relearn_steps"] > 1
    assert oracle["relearn_ratio"] == 1.0
    again = relearn(
        ModelInputs(
            problem=problem, judged=run_algorithm("original", replace(problem, theta_o=theta_r)), theta_r=theta_r
        )
    )
    assert again == oracle  # one stream for all


def test_the_step_that_is_named_is_the_first_at_the_target():
    problem = make_relabelled_problem("mlp")
    steps = count_steps_until(0.5, problem.theta_o, problem.forget, LOOP_CONFIG, np.random.default_rng(1), 500)
    assert steps > 1
    short = count_steps_until(0.5, problem.theta_o, problem.forget, LOOP_CONFIG, np.random.default_rng(1), steps - 1)
    assert short is None
    assert (
        count_steps_until(0.5, problem.theta_o, problem.forget, LOOP_CONFIG, np.random.default_rng(1), steps) == steps
    )


def test_who_does_not_get_there_is_censored():
    problem = make_relabelled_problem()
    problem, theta_r = replace(problem, theta_o=train_on_forget_set(problem)), problem.theta_o
    values = relearn(ModelInputs(problem=problem, judged=theta_r, theta_r=theta_r), max_steps=2)
    assert values["relearn_steps"] == 2.0
    assert values["relearn_censored"] == 1.0
    assert np.isnan(values["relearn_ratio"])
    wild = relearn(ModelInputs(problem=problem, judged=theta_r, theta_r=theta_r), replace(LOOP_CONFIG, lr=1e30))
    assert wild["relearn_censored"] == 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_no_network_is_changed_and_nothing_is_counted_as_the_algorithms(kind):
    problem = make_relabelled_problem(kind)
    theta_r = run_algorithm("retrain", problem, kind=kind)
    before = copy_state(problem.theta_o), copy_state(theta_r), problem.forget.read_counter.examples
    relearn(ModelInputs(problem=problem, judged=problem.theta_o, theta_r=theta_r))
    assert all(torch.equal(value, before[0][name]) for name, value in problem.theta_o.state_dict().items())
    assert all(torch.equal(value, before[1][name]) for name, value in theta_r.state_dict().items())
    assert problem.forget.read_counter.examples == before[2]
    assert have_same_weights(problem.theta_o, problem.theta_o)


def test_the_loss_of_a_set_is_its_mean():
    problem = make_tiny_problem()
    images = problem.retain.images.take(problem.retain.rows)
    expected = float(cross_entropy(problem.theta_o(images), problem.retain.labels).detach())
    assert mean_loss(problem.theta_o, problem.retain) == pytest.approx(expected, rel=1e-5)
