"""RSU: what is admitted in each round, in which order, and that one round is the algorithm itself."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.fixtures.problems import make_tiny_problem
from unlearn.algorithms import get_algorithm
from unlearn.meta.rsu import RsuSchedule, compute_losses, rsu, select_admitted


@given(st.lists(st.floats(0, 9), min_size=1, max_size=30), st.integers(1, 30))
def test_the_admitted_grow_to_all_and_are_the_lowest_risks(risk, n):
    risk, labels = np.array(risk), np.zeros(len(risk), int)
    if n > len(risk):
        with pytest.raises(ValueError, match="rounds over"):
            select_admitted(risk, labels, 1, RsuSchedule(n=n))
        return
    admitted = [set(select_admitted(risk, labels, t, RsuSchedule(n=n)).tolist()) for t in range(1, n + 1)]
    assert all(a < b for a, b in itertools.pairwise(admitted))
    assert admitted[-1] == set(range(len(risk)))
    for inside in admitted:
        outside = set(range(len(risk))) - inside
        assert not outside or max(risk[list(inside)]) <= min(risk[list(outside)])


def test_descending_risk_admits_the_most_exposed_first():
    risk, labels = np.array([0.2, 0.9, 0.1, 0.5]), np.zeros(4, int)
    assert select_admitted(risk, labels, 1, RsuSchedule(n=2)).tolist() == [0, 2]
    assert select_admitted(risk, labels, 1, RsuSchedule(n=2, order="descending")).tolist() == [1, 3]


def test_classes_are_admitted_whole_by_their_mean_risk():
    risk, labels = np.array([0.9, 0.1, 0.0, 0.3, 0.4]), np.array([7, 7, 2, 2, 5])
    turns = [select_admitted(risk, labels, t, RsuSchedule(n=3, unit="class")).tolist() for t in (1, 2, 3)]
    assert turns == [[2, 3], [2, 3, 4], [0, 1, 2, 3, 4]]
    with pytest.raises(ValueError, match="4 rounds over 3 classes"):
        select_admitted(risk, labels, 1, RsuSchedule(n=4, unit="class"))


def rounds_seen(problem, rounds, change=None):
    seen = []

    def unlearn(theta, retain, forget, number):
        seen.append((number, retain.rows.tolist(), forget.rows.tolist()))
        return change(theta, number) if change else theta

    rsu(problem.theta_o, problem.retain, problem.forget, unlearn, rounds)
    return seen


def test_nested_rounds_repeat_what_came_before_and_a_partition_does_not():
    problem = make_tiny_problem(forget=range(9))
    risk = tuple(float(i) for i in range(9))
    nested = rounds_seen(problem, RsuSchedule(n=3, risk=risk))
    assert [rows for _, _, rows in nested] == [[0, 1, 2], [0, 1, 2, 3, 4, 5], list(range(9))]
    partition = rounds_seen(problem, RsuSchedule(n=3, risk=risk, schedule="partition"))
    assert [rows for _, _, rows in partition] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert all(retained == problem.retain.rows.tolist() for _, retained, _ in (*nested, *partition))


def test_the_loss_of_theta_o_is_the_risk():
    problem = make_tiny_problem(forget=range(10))
    losses = compute_losses(problem.theta_o, problem.forget)
    by_hand = -problem.theta_o(problem.forget.take(torch.arange(10))).log_softmax(-1)
    assert torch.allclose(losses, by_hand[torch.arange(10), problem.forget.labels], atol=1e-6)
    first = rounds_seen(problem, RsuSchedule(n=2))[0][2]
    assert first == sorted(losses.argsort(stable=True)[:5].tolist())


def test_risk_that_is_read_again_follows_the_network_and_keeps_what_was_admitted():
    problem = make_tiny_problem(forget=range(8))

    def upside_down(theta, number):
        turned = get_algorithm("original").fn(
            theta, problem.retain, problem.forget, get_algorithm("original").config(), None
        )
        with torch.no_grad():
            for parameter in turned.parameters():
                parameter.neg_()
        return turned

    once, again = (
        rounds_seen(problem, RsuSchedule(n=4, again=again, schedule="partition"), upside_down)
        for again in (False, True)
    )
    assert once[0][2] == again[0][2]
    assert [rows for _, _, rows in once] != [rows for _, _, rows in again]
    for seen in (once, again):
        assert sorted(row for _, _, rows in seen for row in rows) == list(range(8))


def test_one_round_is_the_algorithm_bit_for_bit_and_reads_no_loss():
    problem, entry = make_tiny_problem(forget=range(10)), get_algorithm("gradient-ascent")
    config = entry.config(epochs=2, batch=4, lr=0.01)

    def unlearn(theta, retain, forget, number):
        return entry.fn(theta, retain, forget, config, np.random.default_rng(3))

    plain = unlearn(problem.theta_o, problem.retain, problem.forget, 0)
    read = problem.forget.read_counter.examples
    ours = rsu(problem.theta_o, problem.retain, problem.forget, unlearn, RsuSchedule(n=1))
    assert problem.forget.read_counter.examples == 2 * read
    assert all(torch.equal(a, b) for a, b in zip(plain.state_dict().values(), ours.state_dict().values(), strict=True))


def test_wrong_rounds_are_refused():
    with pytest.raises(ValueError, match="n of RsuSchedule must be 1 or more, got 0"):
        RsuSchedule(n=0)
    with pytest.raises(ValueError, match="schedule of RsuSchedule must be nested or partition, got spiral"):
        RsuSchedule(schedule="spiral")
    with pytest.raises(ValueError, match="it is not read again"):
        RsuSchedule(again=True, risk=(1.0,))
    problem = make_tiny_problem(forget=range(4))
    with pytest.raises(ValueError, match="3 risks for 4 examples"):
        rounds_seen(problem, RsuSchedule(n=2, risk=(1.0, 2.0, 3.0)))
    with pytest.raises(ValueError, match="1 example to forget is undefined"):
        rounds_seen(problem, replace(RsuSchedule(n=2), risk=(1.0, 2.0, 3.0, float("nan"))))
