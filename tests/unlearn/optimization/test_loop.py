"""The optimization loop: which weights it changes, which it does not, and how it ends."""

import math

import pytest
import torch
from torch import nn

from tests.fixtures.problems import copy_state, have_same_weights, make_tiny_problem
from tests.fixtures.spies import take_plain_step
from unlearn.optimization.loop import TrainingDiverged, UnlearningLoop, UnlearningLoopConfig, copy_frozen, copy_model

BOTH = pytest.mark.parametrize("optimizer", ["sgd", "adam"])


def linear(*, seed=0):
    layer = nn.Linear(5, 3)
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(generator=rng)
    return layer


def config(**params):
    return UnlearningLoopConfig(**{"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1} | params)


def squared_losses(theta, steps):
    """Each weight falls towards 1 by itself."""
    for _ in range(steps):
        yield sum(((parameter - 1) ** 2).sum() for parameter in theta.parameters())


def mask_every_second(theta):
    return {name: torch.arange(p.numel()).view(p.shape) % 2 == 0 for name, p in theta.named_parameters()}


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_steps_are_those_of_the_textbook(momentum):
    theta, reference = linear(), linear()
    UnlearningLoop(theta, config(momentum=momentum)).run(squared_losses(theta, 3))
    velocity = [torch.zeros_like(p) for p in reference.parameters()]
    for _ in range(3):
        for parameter, speed in zip(reference.parameters(), velocity, strict=True):
            with torch.no_grad():
                speed.mul_(momentum).add_(2 * (parameter - 1) + 0.1 * parameter)
                parameter -= 0.1 * speed
    assert all(torch.allclose(a, b) for a, b in zip(theta.parameters(), reference.parameters(), strict=True))


@BOTH
def test_bug_3_momentum_and_weight_decay_move_what_only_its_gradient_masks(optimizer):
    def run_with_masked_gradients(theta, mask):
        loop = UnlearningLoop(theta, config(optimizer=optimizer))
        for name, parameter in theta.named_parameters():
            parameter.register_hook(lambda gradient, keep=mask[name]: gradient * keep)
        return loop.run(squared_losses(theta, 4))

    def masked_weights_stay(run):
        theta = linear()
        before, mask = copy_state(theta), mask_every_second(theta)
        after = copy_state(run(theta, mask))
        assert all((after[name] != before[name])[mask[name]].all() for name in mask)
        return all(torch.equal(after[name][~mask[name]], before[name][~mask[name]]) for name in mask)

    assert not masked_weights_stay(run_with_masked_gradients)
    assert masked_weights_stay(
        lambda theta, mask: UnlearningLoop(theta, config(optimizer=optimizer), mask=mask).run(squared_losses(theta, 4))
    )


@BOTH
def test_what_is_masked_gathers_no_momentum_and_the_rest_moves_as_it_would(optimizer):
    theta, unmasked = linear(), linear()
    mask = mask_every_second(theta)
    loop = UnlearningLoop(theta, config(optimizer=optimizer), mask=mask)
    loop.run(squared_losses(theta, 4))
    UnlearningLoop(unmasked, config(optimizer=optimizer)).run(squared_losses(unmasked, 4))
    for name, parameter in theta.named_parameters():
        assert torch.equal(parameter[mask[name]], dict(unmasked.named_parameters())[name][mask[name]])
        for moment in loop.optimizer.state[parameter].values():
            assert moment.ndim == 0 or not moment[~mask[name]].any()


def test_a_mask_of_ones_is_no_mask():
    theta, unmasked = linear(), linear()
    ones = {name: torch.ones_like(p, dtype=torch.bool) for name, p in theta.named_parameters()}
    UnlearningLoop(theta, config(), mask=ones).run(squared_losses(theta, 3))
    UnlearningLoop(unmasked, config()).run(squared_losses(unmasked, 3))
    assert have_same_weights(theta, unmasked)


def test_only_what_is_trained_moves():
    theta = linear()
    before = copy_state(theta)
    UnlearningLoop(theta, config(), trainable={"bias"}).run(squared_losses(theta, 2))
    assert torch.equal(theta.weight, before["weight"])
    assert (theta.bias != before["bias"]).all()
    assert all(p.requires_grad and p.grad is None for p in theta.parameters())


def copy_statistics(theta):
    return {name: value.clone() for name, value in theta.named_buffers()}


def run_with_norms(images, **params):
    """Two steps on these images; the statistics before and after."""
    theta = make_tiny_problem("batch-norm").theta_o
    before = copy_statistics(theta)
    trainable = params.pop("trainable", None)
    loop = UnlearningLoop(theta, config(**params), trainable=trainable)
    loop.run(theta(images).square().mean() for _ in range(2))
    after = copy_statistics(theta)
    return {name for name in before if not torch.equal(before[name], after[name])}


def images(n):
    return make_tiny_problem("batch-norm").retain.take(torch.arange(n))


def test_running_statistics_follow_the_policy():
    norms = {f"body.{n}.{value}" for n in (1, 6) for value in ("running_mean", "running_var", "num_batches_tracked")}
    assert run_with_norms(images(8)) == norms
    assert run_with_norms(images(8), batch_norm="frozen") == set()
    assert run_with_norms(images(8), trainable={"body.6.weight", "head.weight"}) == {n for n in norms if "6" in n}


def test_frozen_norms_normalise_by_theta_o_s_statistics():
    theta, logits = make_tiny_problem("batch-norm").theta_o, []
    expected = theta(images(8)).detach()

    def losses():
        logits.append(theta(images(8)))
        yield logits[0].sum()

    UnlearningLoop(theta, config(batch_norm="frozen")).run(losses())
    assert torch.allclose(logits[0], expected, atol=1e-5)


def test_one_value_a_channel_is_normalised_by_running_statistics():
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        make_tiny_problem("batch-norm").theta_o.train()(images(1))
    changed = run_with_norms(images(1))
    assert {name.split(".")[1] for name in changed} == {"1"}  # 64 pixels a channel there, one value in the other


def test_a_loss_that_is_no_number_ends_the_run_by_name_before_its_step():
    theta, reference = linear(), linear()

    def losses(count, last):
        yield from squared_losses(theta, count)
        yield theta.weight.sum() * last
        raise AssertionError("a loss after the bad one was drawn")

    for last in (math.inf, math.nan):
        theta = linear()
        with pytest.raises(
            TrainingDiverged, match=f"the loss of step 3 is {'-?inf' if last == math.inf else 'nan'}"
        ) as caught:
            UnlearningLoop(theta, config()).run(losses(2, last))
        assert caught.value.step == 3
        reference = linear()
        assert have_same_weights(theta, UnlearningLoop(reference, config()).run(squared_losses(reference, 2)))


def test_a_last_step_that_leaves_no_numbers_ends_the_run_by_name():
    theta = linear()

    def losses():
        yield from squared_losses(theta, 1)
        yield (theta.weight - theta.weight.detach()).abs().sqrt().sum()  # the loss is 0, its slope is not a number

    with pytest.raises(TrainingDiverged) as caught:
        UnlearningLoop(theta, config()).run(losses())
    assert caught.value.step == 2


def test_the_callback_ends_the_run_and_the_losses():
    theta, closed = linear(), []

    def losses():
        try:
            yield from squared_losses(theta, 9)
        finally:
            closed.append(theta.training)

    UnlearningLoop(theta, config(), step_callback=lambda step, _: step == 4).run(losses())
    reference = linear()
    assert have_same_weights(theta, UnlearningLoop(reference, config()).run(squared_losses(reference, 4)))
    assert closed == [True]
    assert not theta.training


@BOTH
def test_an_adversary_learns_at_a_separate_learning_rate(optimizer):
    theta, other = linear(), linear(seed=1)
    before, earlier = copy_state(theta), copy_state(other)

    def losses():
        yield sum(parameter.sum() for network in (theta, other) for parameter in network.parameters())

    params = {"optimizer": optimizer, "momentum": 0.0, "weight_decay": 0.0}
    UnlearningLoop(theta, config(**params), adversary=(other, 0.02)).run(losses())
    assert all(
        torch.allclose(before[name] - value, torch.tensor(0.1), atol=1e-5) for name, value in copy_state(theta).items()
    )
    assert all(
        torch.allclose(earlier[name] - v, torch.tensor(0.02), atol=1e-5) for name, v in copy_state(other).items()
    )


def test_the_rate_can_change_between_two_losses():
    theta, reference = linear(), linear()
    loop = UnlearningLoop(theta, config(momentum=0.0, weight_decay=0.0))

    def losses():
        for lr in (0.1, 0.01):
            loop.lr = lr
            yield from squared_losses(theta, 1)

    loop.run(losses())
    for lr in (0.1, 0.01):
        take_plain_step(reference, next(squared_losses(reference, 1)), lr=lr)
    assert all(torch.allclose(a, b) for a, b in zip(theta.parameters(), reference.parameters(), strict=True))


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("epochs", 0, "1 or more"),
        ("lr", 0.0, "above 0 and finite"),
        ("lr", math.nan, "above 0 and finite"),
        ("batch", 0, "1 or more"),
        ("optimizer", "lbfgs", "sgd or adam"),
        ("momentum", 1.0, r"in \[0, 1\)"),
        ("weight_decay", -1.0, "0 or more and finite"),
        ("batch_norm", "eval", "train or frozen"),
    ],
)
def test_a_config_refuses_what_breaks_its_rule(field, value, rule):
    with pytest.raises(ValueError, match=f"{field} of UnlearningLoopConfig must be {rule}, got {value}"):
        UnlearningLoopConfig(**{field: value})


def test_copies_share_nothing():
    theta = make_tiny_problem("batch-norm").theta_o
    for other in (copy_model(theta), copy_frozen(theta)):
        assert have_same_weights(other, theta)
        pointers = [{value.data_ptr() for value in network.state_dict().values()} for network in (theta, other)]
        assert not pointers[0] & pointers[1]
    assert not any(p.requires_grad for p in copy_frozen(theta).parameters())
