"""SCRUB and its rewinding: the order of passes, a fixed teacher, and the selected epoch."""

import copy
import importlib

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax

from tests.fixtures.problems import (
    KINDS,
    copy_state,
    have_same_weights,
    make_tiny_problem,
    make_unsure_problem,
    run_algorithm,
)
from tests.fixtures.spies import classify_batches, have_close_weights, record_batches_read, take_plain_step
from unlearn.algorithms.scrub import ScrubConfig
from unlearn.algorithms.scrub_rewind import class_matched_error, find_nearest, select_classes
from unlearn.optimization.loop import UnlearningLoop, copy_frozen, copy_model
from unlearn.optimization.losses import kl_divergence
from unlearn.problem import BatchSampler

ORDER = {"epochs": 4, "msteps": 2, "batch": 27, "forget_batch": 5, "lr": 1e-3}


def read_all(examples):
    return examples.take(torch.arange(len(examples)))


def run_plan(problem, plan):
    """Train a network with one pass for each letter of the plan."""
    theta, teacher, rng = copy_model(problem.theta_o), copy_frozen(problem.theta_o), np.random.default_rng(0)
    retain_batches, forget_batches = BatchSampler(problem.retain, 27, rng), BatchSampler(problem.forget, 5, rng)

    def losses():
        for letter in plan:
            for images, _ in {"F": forget_batches, "R": retain_batches}[letter]:
                distance = kl_divergence(teacher(images), theta(images)).mean()
                yield -distance if letter == "F" else distance

    return UnlearningLoop(theta, ScrubConfig(lr=1e-3)).run(losses())


def run_one_ascent_too_many(problem):
    """A small copy of bug 4 as in RUM: epochs counted from 0, and compared with `<=`."""
    return run_plan(problem, "".join("FR" if epoch <= 2 else "R" for epoch in range(4)))


def run_all_ascents_first(problem):
    """Bug 4 as in the worst-case code."""
    return run_plan(problem, "FF" + "RRRR")


def test_bug_4_epochs_that_climb_are_one_too_many_or_all_at_first(monkeypatch):
    problem = make_tiny_problem()

    def order(run):
        return classify_batches(record_batches_read(monkeypatch, lambda: run(problem)), problem.forget)

    right = "FFRR" * 2 + "RR" * 2
    assert order(run_one_ascent_too_many) == "FFRR" * 3 + "RR"
    assert order(run_all_ascents_first) == "FFFF" + "RR" * 4
    assert order(lambda problem: run_algorithm("scrub", problem, **ORDER)) == right
    assert order(lambda problem: run_algorithm("scrub-rewind", problem, **ORDER)).startswith(right)


def share_weights_with_teacher(problem, distances):
    """A small copy of bug 5."""
    theta, rng = copy_model(problem.theta_o), np.random.default_rng(0)
    teacher = copy.copy(theta)

    def losses():
        for images, labels in BatchSampler(problem.retain, 27, rng):
            logits = theta(images)
            distances.append(kl_divergence(teacher(images), logits).mean().item())
            yield cross_entropy(logits, labels) + kl_divergence(teacher(images), logits).mean()

    before = copy_state(teacher)
    UnlearningLoop(theta, ScrubConfig(lr=0.01)).run(losses())
    return have_same_weights(teacher, theta) and not all(
        torch.equal(before[name], v) for name, v in teacher.state_dict().items()
    )


def test_bug_5_the_teacher_shares_its_weights_with_the_student(monkeypatch):
    distances, seen = [], []
    assert share_weights_with_teacher(make_unsure_problem("mlp"), distances)
    assert max(distances) == 0
    scrub, teachers = importlib.import_module("unlearn.algorithms.scrub"), []

    def record_divergence(*given):
        values = kl_divergence(*given)
        seen.append(values.mean().item())
        return values

    def record_teacher(theta_o):
        teachers.append(copy_frozen(theta_o))
        return teachers[0]

    monkeypatch.setattr(scrub, "kl_divergence", record_divergence)
    monkeypatch.setattr(scrub, "copy_frozen", record_teacher)
    problem = make_unsure_problem("mlp")
    theta_u = run_algorithm("scrub", problem, **ORDER | {"lr": 0.01})
    assert max(seen) > 1e-4
    assert have_same_weights(teachers[0], problem.theta_o)
    assert not have_same_weights(teachers[0], theta_u)
    pointers = [{value.data_ptr() for value in network.state_dict().values()} for network in (teachers[0], theta_u)]
    assert not pointers[0] & pointers[1]


@pytest.mark.parametrize("kind", KINDS)
def test_three_steps_by_hand(kind):
    problem = make_unsure_problem(kind)
    config = {"gamma": 0.9, "alpha": 0.3, "temperature": 2.0, "weight_decay": 0.1, "momentum": 0.0}
    theta = copy_model(problem.theta_o).train()

    def compute_outputs(examples):
        teacher, student = problem.theta_o(read_all(examples)).detach(), theta(read_all(examples))
        return student, 4 * kl_div(log_softmax(student / 2, 1), softmax(teacher / 2, 1), reduction="batchmean")

    def descend(lr):
        logits, distance = compute_outputs(problem.retain)
        take_plain_step(
            theta, 0.9 * cross_entropy(logits, problem.retain.labels) + 0.3 * distance, lr=lr, weight_decay=0.1
        )

    take_plain_step(theta, -compute_outputs(problem.forget)[1], lr=1e-3, weight_decay=0.1)
    descend(1e-3)
    descend(1e-4)
    theta_u = run_algorithm("scrub", problem, epochs=2, batch=64, lr=1e-3, msteps=1, decay_after=(1,), **config)
    assert have_close_weights(theta_u, theta)


def test_without_steps_up_it_is_distillation_and_no_more(monkeypatch):
    problem = make_unsure_problem()
    params = {"epochs": 2, "batch": 16, "msteps": 0, "lr": 1e-3}
    theta, teacher = copy_model(problem.theta_o), copy_frozen(problem.theta_o)
    retain_batches = BatchSampler(problem.retain, 16, np.random.default_rng(0))

    def losses():
        for images, labels in [batch for _ in range(2) for batch in retain_batches]:
            logits = theta(images)
            yield cross_entropy(logits, labels) + 0.5 * (4.0**2 * kl_divergence(teacher(images), logits, 4.0).mean())

    expected = UnlearningLoop(theta, ScrubConfig(**params)).run(losses())
    assert have_same_weights(run_algorithm("scrub", problem, **params), expected)
    assert set(
        classify_batches(
            record_batches_read(monkeypatch, lambda: run_algorithm("scrub", problem, **params)), problem.forget
        )
    ) == {"R"}
    alone = run_algorithm("scrub", problem, **params, gamma=0.0, weight_decay=0.0)
    assert have_close_weights(
        alone, problem.theta_o, atol=1e-4
    )  # what agrees with its teacher has nothing to learn from it


def test_steps_up_disobey_the_teacher():
    problem = make_unsure_problem("batch-norm")
    logits = problem.theta_o(read_all(problem.forget))
    params = {"epochs": 3, "lr": 1e-3, "batch": 54, "forget_batch": 5}
    distances = [
        kl_divergence(logits, run_algorithm("scrub", problem, msteps=msteps, **params)(read_all(problem.forget)))
        .mean()
        .item()
        for msteps in (0, 2)
    ]
    assert distances[1] > distances[0]


def test_the_rate_falls_after_the_epochs_that_are_named():
    config = ScrubConfig(epochs=6, lr=1.0, decay_after=(3, 5), decay=0.1)
    assert [config.lr_at(epoch) for epoch in range(1, 7)] == pytest.approx([1, 1, 1, 0.1, 0.1, 0.01])


def test_epochs_end_where_they_are_said_to():
    assert ScrubConfig(**ORDER).epoch_end_steps(54, 10) == [4, 8, 10, 12]
    assert ScrubConfig(**ORDER, start="descent").epoch_end_steps(54, 10) == [2, 6, 10, 12]


def test_it_may_start_with_a_descent(monkeypatch):
    problem = make_tiny_problem()
    batches = record_batches_read(monkeypatch, lambda: run_algorithm("scrub", problem, **ORDER, start="descent"))
    assert classify_batches(batches, problem.forget) == "RR" + "FFRR" * 2 + "RR"


def test_a_network_without_batch_norm_moves_in_the_first_climb_only_after_a_descent():
    """The climb's batches are of one example; 30 of them would destroy a network that they moved."""
    params = {"epochs": 2, "msteps": 1, "batch": 27, "forget_batch": 1, "lr": 0.02, "weight_decay": 0.0, "gamma": 1.0}

    def measure_distance(**more):
        problem, ends = make_unsure_problem("mlp"), []

        def note(step, theta):
            ends.append((theta(read_all(problem.forget)) - problem.theta_o(read_all(problem.forget))).norm().item())

        run_algorithm("scrub", problem, step_callback=note, **params, **more)
        return ends

    climb, descent = measure_distance(), measure_distance(start="descent")
    assert climb[9] < 1e-3  # ten steps up
    assert descent[1 + 10] > 10 * max(climb[9], descent[1] / 20)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"epochs": 5, "msteps": 5}, "msteps of ScrubConfig must be under epochs, 5: SCRUB ends with descent, got 5"),
        ({"msteps": -1}, "msteps of ScrubConfig must be 0 or more, got -1"),
        ({"temperature": 0.0}, "temperature of ScrubConfig must be above 0, got 0"),
        ({"forget_batch": 0}, "forget_batch of ScrubConfig must be 1 or more, got 0"),
    ],
)
def test_a_config_that_is_none_is_refused(params, message):
    with pytest.raises(ValueError, match=message):
        ScrubConfig(**params)


def record_epochs(problem, **params):
    """theta_o and the networks after each epoch of SCRUB."""
    ends = ScrubConfig(**params).epoch_end_steps(len(problem.retain), len(problem.forget))
    networks = [copy_model(problem.theta_o)]

    def save_epoch(step, theta):
        if step in ends:
            networks.append(copy_frozen(problem.theta_o))
            networks[-1].load_state_dict(theta.state_dict())

    run_algorithm("scrub", problem, step_callback=save_epoch, **params)
    return networks


@pytest.mark.parametrize("kind", KINDS)
def test_bug_16_there_is_no_file_for_epoch_0(kind, monkeypatch):
    problem = make_unsure_problem(kind)
    params = {"epochs": 3, "msteps": 2, "batch": 27, "forget_batch": 5, "lr": 1e-3}
    networks = record_epochs(problem, **params)
    assert len(networks) == 4
    assert find_nearest([0.02, 0.4, 0.5, 0.6], 0.1) == 0
    with pytest.raises(KeyError):
        dict(enumerate(networks[1:], start=1))[0]  # a small copy of the bug: files are named from 1
    calls = []
    for epoch in range(4):

        def select_epoch(errors, reference, k=epoch):
            calls.append((errors, reference))
            return k

        monkeypatch.setattr(importlib.import_module("unlearn.algorithms.scrub_rewind"), "find_nearest", select_epoch)
        assert have_same_weights(run_algorithm("scrub-rewind", problem, **params), networks[epoch])

    def error(network, examples):
        return float((network(read_all(examples)).argmax(1) != examples.labels).double().mean())

    by_class = [
        error(networks[3], problem.validation.select((problem.validation.labels == label).nonzero()[:, 0]))
        for label in range(4)
    ]
    reference = sum(by_class[label] for label in problem.forget.labels.tolist()) / 10
    assert calls[0][0] == pytest.approx([error(network, problem.forget) for network in networks])
    assert calls[0][1] == pytest.approx(reference)


def test_of_equal_distances_the_latest_is_taken():
    assert find_nearest([0.25, 0.75, 0.25], 0.5) == 2
    assert find_nearest([0.0, 0.0, 0.5], 0.0) == 1


def test_each_class_counts_as_much_as_the_forget_set_has_of_it():
    problem = make_tiny_problem(forget=[0, 4, 8, 1])  # three of class 0, one of class 1
    matched = select_classes(problem.validation, problem.forget, 5)
    assert sorted(matched.labels.tolist()) == [0] * 6 + [1] * 6
    wrong = (matched.labels == 0) & (torch.arange(12) < 4)
    share = wrong.sum().item() / 6
    assert class_matched_error(problem.forget, matched, wrong) == pytest.approx(0.75 * share)


def test_a_validation_set_that_is_too_small_is_refused_by_name():
    problem = make_tiny_problem()
    message = "too small for scrub-rewind: of class 0, one of the forget set's, it holds 6 examples, and least is 7"
    with pytest.raises(ValueError, match=message):
        run_algorithm("scrub-rewind", problem, least=7)


def test_a_run_that_the_callback_ends_is_rewound_over_what_there_is():
    problem = make_tiny_problem()
    theta_u = run_algorithm("scrub-rewind", problem, step_callback=lambda step, _: step == 1)
    assert not theta_u.training
    assert problem.forget.read_counter.examples == 10 + 2 * 10 + 24
