"""CF-k and EU-k: trainable and frozen layers, and how often the last layers are drawn."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from tests.fixtures.problems import (
    KINDS,
    copy_state,
    have_same_weights,
    make_tiny_problem,
    make_unsure_problem,
    run_algorithm,
)
from tests.fixtures.spies import have_close_weights
from unlearn.algorithms.cf_k import CFKConfig
from unlearn.optimization.layers import reinitialize
from unlearn.optimization.loop import UnlearningLoop, copy_model
from unlearn.problem import BatchSampler

NORM = {f"body.6.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}
HEAD = {"head.weight", "head.bias"}
LAST = {
    ("mlp", 1): HEAD,
    ("cnn", 1): HEAD,
    ("cnn", 2): HEAD | {"body.3.weight", "body.3.bias"},
    ("batch-norm", 1): HEAD,
    ("batch-norm", 2): HEAD | {"body.5.weight", "body.5.bias"} | NORM,
}
every_last = pytest.mark.parametrize(("kind", "k"), LAST)
both = pytest.mark.parametrize("name", ["cf-k", "eu-k"])


def find_changed_tensors(run, kind):
    """The names of the tensors that a run changes."""
    problem = make_unsure_problem(kind)
    before, after = copy_state(problem.theta_o), copy_state(run(problem))
    return {name for name in before if not torch.equal(before[name], after[name])}


def train(theta, retain, *, epochs=1, trainable=None, seed=0):
    """A plain loop over the retain set."""
    batches = BatchSampler(retain, 16, np.random.default_rng(seed))

    def losses():
        for images, labels in [batch for _ in range(epochs) for batch in batches]:
            yield cross_entropy(theta(images), labels)

    return UnlearningLoop(theta, CFKConfig(lr=0.01), trainable=trainable).run(losses())


@both
@every_last
def test_bug_9_the_classifier_stays_frozen(name, kind, k):
    def all_but_the_classifier(problem):
        body = {name for name, _ in problem.theta_o.named_parameters()} - HEAD
        return train(copy_model(problem.theta_o), problem.retain, trainable=body)

    assert not HEAD & find_changed_tensors(all_but_the_classifier, kind)
    assert find_changed_tensors(lambda problem: run_algorithm(name, problem, k=k, lr=0.01), kind) == LAST[kind, k]


@both
def test_bug_10_running_statistics_of_frozen_layers_drift(name):
    def without_gradients(problem):
        theta = copy_model(problem.theta_o).train()
        theta.body.requires_grad_(False)
        steps = torch.optim.SGD(theta.head.parameters(), lr=0.01)
        for images, labels in BatchSampler(problem.retain, 16, np.random.default_rng(0)):
            steps.zero_grad()
            cross_entropy(theta(images), labels).backward()
            steps.step()
        return theta

    drifting = {f"body.{n}.{value}" for n in (1, 6) for value in ("running_mean", "running_var", "num_batches_tracked")}
    assert find_changed_tensors(without_gradients, "batch-norm") == drifting | HEAD
    assert find_changed_tensors(lambda problem: run_algorithm(name, problem, k=1), "batch-norm") == HEAD


def correlation(one, other):
    return float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1])


def test_bug_8_the_last_layers_are_drawn_again_each_epoch():
    problem = make_unsure_problem("cnn")

    def record_heads_drawn_each_epoch():
        theta, rng, heads = copy_model(problem.theta_o), np.random.default_rng(0), []
        for epoch in range(2):
            theta.head.load_state_dict(reinitialize(theta, rng).head.state_dict())
            train(theta, problem.retain, trainable=HEAD, seed=epoch)
            heads.append(theta.head.weight.detach().clone())
        return heads

    def record_heads():
        heads, steps = [], -(-len(problem.retain) // 16)

        def record_head(step, theta):
            if step % steps == 0:
                heads.append(theta.head.weight.detach().clone())

        run_algorithm("eu-k", problem, step_callback=record_head, lr=1e-4)
        assert len(heads) == 2
        return heads

    assert correlation(*record_heads_drawn_each_epoch()) < 0.9
    assert correlation(*record_heads()) > 0.99


@every_last
def test_eu_k_draws_the_last_layers_and_norms_anew_and_keeps_the_rest(kind, k):
    problem = make_tiny_problem(kind)
    seen = []
    params = {"k": k, "lr": 1e-12, "weight_decay": 0.0, "batch_norm": "frozen"}
    theta_u = run_algorithm("eu-k", problem, step_callback=lambda step, _: seen.append(step), **params)
    new, old = copy_state(reinitialize(problem.theta_o, np.random.default_rng(0))), copy_state(problem.theta_o)
    for name, value in theta_u.state_dict().items():
        assert torch.allclose(value, new[name] if name in LAST[kind, k] else old[name], atol=1e-6)
    assert not torch.allclose(theta_u.head.weight, old["head.weight"], atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_cf_k_of_all_layers_is_finetune(kind):
    layers = {"mlp": 2, "cnn": 3, "batch-norm": 3}[kind]
    params = {"lr": 1e-3, "epochs": 2, "weight_decay": 5e-5}
    assert have_same_weights(
        run_algorithm("cf-k", make_unsure_problem(kind), k=layers, **params),
        run_algorithm("finetune", make_unsure_problem(kind), **params),
    )


@both
def test_more_layers_than_there_are_are_refused(name):
    with pytest.raises(ValueError, match="the network has 3 convolutional or linear layers, not 5; use k 3 or less"):
        run_algorithm(name, make_tiny_problem("cnn"), k=5)


def test_restarts_are_those_of_torch():
    config = CFKConfig(epochs=15, lr=0.1, schedule="restarts")
    weight = torch.nn.Parameter(torch.zeros(1))
    steps = torch.optim.SGD([weight], lr=0.1)
    theirs = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(steps, T_0=1, T_mult=2)
    for place in np.arange(0, 15, 0.25):
        theirs.step(place)
        assert config.lr_at(place) == pytest.approx(steps.param_groups[0]["lr"], abs=1e-9)
    assert config.lr_at(6.999) < 1e-6 < config.lr_at(7) == 0.1
    assert CFKConfig(lr=0.1).lr_at(6.999) == 0.1


def test_restarts_reach_the_steps():
    params = {"k": 1, "epochs": 2, "batch": 64, "momentum": 0.0, "weight_decay": 0.0, "lr": 1e-3}
    whole = [
        run_algorithm("cf-k", make_unsure_problem(), schedule=schedule, **params)
        for schedule in ("constant", "restarts")
    ]
    assert have_close_weights(*whole)  # a step an epoch, at the start of a cycle
    params["batch"] = 16
    whole = [
        run_algorithm("cf-k", make_unsure_problem(), schedule=schedule, **params)
        for schedule in ("constant", "restarts")
    ]
    assert not have_close_weights(*whole)
