"""RUM: its parts, what is retained at each step, and that one part is the algorithm itself."""

import copy
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.fixtures.problems import RECIPE, make_tiny_problem
from unlearn.algorithms import get_algorithm
from unlearn.meta.rum import distance_to_centroid, refine, rum, split_randomly
from unlearn.optimization.steps import resolve_steps


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.integers(1, 40), st.sampled_from(["equal", "spaced"]))
def test_parts_are_a_partition_whose_scores_rise(values, k, rule):
    values = np.array(values)
    if k > len(values):
        with pytest.raises(ValueError, match="parts of"):
            refine(values, k, rule)
        return
    parts = refine(values, k, rule)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(values)))
    assert all(len(part) for part in parts)
    assert all(values[a].max() <= values[b].min() for a, b in itertools.pairwise(parts))
    down = refine(values, k, rule, "descending")
    assert [part.tolist() for part in down] == [part.tolist() for part in parts[::-1]]
    if rule == "equal":
        assert len(parts) == k
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_rums_union_falls_apart_into_its_three_levels():
    low, middle, high = np.full(5, 0.01), np.full(5, 0.5), np.full(5, 0.98)
    values = np.random.default_rng(0).permutation(np.concatenate([high, low, middle]))
    assert [set(values[part]) for part in refine(values, 3)] == [{0.01}, {0.5}, {0.98}]


def test_equal_ranges_leave_out_the_empty_ones():
    parts = refine(np.array([0.0, 0.05, 1.0]), 3, "spaced")
    assert [part.tolist() for part in parts] == [[0, 1], [2]]


def test_an_undefined_score_is_refused_with_a_way_out():
    with pytest.raises(ValueError, match=r"undefined for 1 of the 3 .* a proxy"):
        refine(np.array([0.1, np.nan, 0.2]), 2)


def test_shuffled_parts_are_equal_and_random():
    one, two = (split_randomly(10, 3, np.random.default_rng(seed)) for seed in (0, 1))
    assert sorted(map(len, one)) == [3, 3, 4]
    assert sorted(np.concatenate(one).tolist()) == list(range(10))
    assert any(a.tolist() != b.tolist() for a, b in zip(one, two, strict=True))


def test_each_step_starts_where_the_last_ended_and_retains_what_is_not_yet_forgotten():
    problem, seen = make_tiny_problem(forget=range(9)), []

    def unlearn(theta, retain, forget, number):
        seen.append((number, theta, set(retain.rows.tolist()), forget.rows.tolist()))
        return copy.deepcopy(theta)

    parts = [[0, 1, 2], [6, 7, 8], [3, 4, 5]]
    rum(problem.theta_o, problem.train, parts, unlearn)
    assert [(number, rows) for number, _, _, rows in seen] == list(enumerate(parts))
    assert seen[0][1] is problem.theta_o
    assert seen[1][1] is not problem.theta_o
    everything = set(range(64))
    assert seen[0][2] == everything - {0, 1, 2}
    assert seen[1][2] == everything - {0, 1, 2, 6, 7, 8}
    assert seen[2][2] == set(problem.retain.rows.tolist())


def test_a_sequence_that_goes_on_where_it_was_is_the_whole_sequence():
    problem, entry = make_tiny_problem(forget=range(9)), get_algorithm("neggrad-plus")
    config = entry.config(epochs=1, batch=16)

    def unlearn(theta, retain, forget, number):
        return entry.fn(theta, retain, forget, config, np.random.default_rng(number))

    parts = [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    whole = rum(problem.theta_o, problem.train, parts, unlearn)
    begun = rum(problem.theta_o, problem.train, parts[:2], unlearn)
    ended = rum(begun, problem.train, parts, unlearn, done=2)
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), ended.state_dict().values(), strict=True))


@pytest.mark.parametrize("name", ["finetune", "neggrad-plus", "random-label", "scrub"])
def test_one_part_is_the_algorithm_bit_for_bit(name):
    problem, entry = make_tiny_problem(forget=range(10)), get_algorithm(name)
    config = entry.config(epochs=2, batch=16, **({"msteps": 1} if name == "scrub" else {}))
    config = resolve_steps(config, len(problem.retain), len(problem.forget), RECIPE)

    def unlearn(theta, retain, forget, number):
        return entry.fn(theta, retain, forget, config, np.random.default_rng(5))

    torch.random.manual_seed(0)
    plain = entry.fn(problem.theta_o, problem.retain, problem.forget, config, np.random.default_rng(5))
    torch.random.manual_seed(0)
    refined = rum(problem.theta_o, problem.train, [list(range(10))], unlearn)
    assert all(
        torch.equal(a, b) for a, b in zip(plain.state_dict().values(), refined.state_dict().values(), strict=True)
    )


def test_distance_to_the_centroid_is_of_the_whole_training_set():
    embeddings = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0], [4.0, 4.0]])
    assert distance_to_centroid(embeddings, np.array([3, 0])) == pytest.approx([8**0.5, 8**0.5])
