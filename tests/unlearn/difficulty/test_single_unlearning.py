"""One example is unlearned until the decision on it flips: steps, batches, streams, and what stays as it was."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.fixtures.problems import KINDS, make_unsure_problem
from unlearn.difficulty import single_unlearning
from unlearn.difficulty.single_unlearning import MAX_STEPS, METHODS, decide, draw_batch, unlearn_single

ROW = 3


def make_parts(kind="cnn"):
    problem = make_unsure_problem(kind, forget=[ROW])
    return problem.theta_o, problem.retain, problem.forget


def same_weights(a, b):
    ours, theirs = a.state_dict(), b.state_dict()
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("algorithm", METHODS)
def test_a_large_rate_flips_and_a_tiny_one_does_not(algorithm, kind):
    theta_o, retain, instance = make_parts(kind)
    before = copy.deepcopy(theta_o)
    tiny = unlearn_single(theta_o, retain, instance, algorithm, 1e-9, 0, "a", ROW)
    assert (tiny.steps, tiny.flipped) == (MAX_STEPS, False)
    assert same_weights(theta_o, before)
    if algorithm == "gradient-ascent":
        runs = [unlearn_single(theta_o, retain, instance, algorithm, lr, 0, "a", ROW) for lr in (0.1, 0.5, 2.0)]
        large = next(run for run in runs if run.flipped)
        assert large.steps < MAX_STEPS
        assert decide(large.theta_u, instance) != decide(theta_o, instance)


@pytest.mark.parametrize("algorithm", METHODS)
def test_a_step_is_as_many_optimizer_steps_as_the_algorithm_has_in_one(algorithm, monkeypatch):
    theta_o, retain, instance = make_parts()
    loop_steps, entry = [], single_unlearning.ALGORITHMS[algorithm]

    def watched(*arguments, step_callback):
        def look(step, theta):
            loop_steps.append(step)
            return step_callback(step, theta)

        return entry.fn(*arguments, step_callback=look)

    monkeypatch.setitem(single_unlearning.ALGORITHMS, algorithm, replace(entry, fn=watched))
    unlearn_single(theta_o, retain, instance, algorithm, 1e-9, 0, "a", ROW)
    assert len(loop_steps) == MAX_STEPS * METHODS[algorithm].loop_steps


def test_each_step_reads_another_batch_of_the_retain_set_and_never_the_example(monkeypatch):
    theta_o, retain, instance = make_parts()
    batches = []

    def note(retain, batch, rng):
        draw_batch(retain, batch, rng)
        batches.append(batch.rows.tolist())

    monkeypatch.setattr(single_unlearning, "draw_batch", note)
    before = retain.rows.clone()
    unlearn_single(theta_o, retain, instance, "neggrad-plus", 1e-9, 0, "a", ROW)
    assert len({tuple(batch) for batch in batches}) > MAX_STEPS / 2
    assert all(ROW not in batch and len(set(batch)) == len(batch) for batch in batches)
    assert torch.equal(retain.rows, before)


def test_the_stream_names_the_run():
    theta_o, retain, instance = make_parts()

    def run(name, row=ROW):
        return unlearn_single(theta_o, retain, instance, "finetune", 0.1, 0, name, row).theta_u

    assert same_weights(run("a"), run("a"))
    assert not same_weights(run("a"), run("b"))
    assert not same_weights(run("a"), run("a", 4))


def test_statistics_of_batch_norm_are_those_of_theta_o():
    theta_o, retain, instance = make_parts("batch-norm")
    found = unlearn_single(theta_o, retain, instance, "neggrad-plus", 0.05, 0, "a", ROW).theta_u
    statistics = [name for name in theta_o.state_dict() if "running" in name]
    assert statistics
    assert all(torch.equal(found.state_dict()[name], theta_o.state_dict()[name]) for name in statistics)


def test_a_run_that_diverges_has_no_network_and_did_not_flip():
    theta_o, retain, instance = make_parts()
    found = unlearn_single(theta_o, retain, instance, "neggrad-plus", 1e30, 0, "a", ROW)
    assert found.theta_u is None
    assert not found.flipped
    assert np.isnan(found.seconds)
