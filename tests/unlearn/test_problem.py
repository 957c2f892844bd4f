"""Forget sets that are none, and sets of examples."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.fixtures.problems import SIZES, make_tiny_problem
from unlearn.problem import validate_forget_rows


@pytest.mark.parametrize(
    ("forget", "message"),
    [
        ([], "the forget set is empty; name at least one training example"),
        ([3, 1, 3], "names row 3 more than once"),
        ([0, 64], "names row 64, but the training set has rows 0 to 63"),
        ([-1], "names row -1, but the training set has rows 0 to 63"),
        (range(64), "is all 64 training examples"),
    ],
)
def test_what_is_no_forget_set_is_refused_by_name(forget, message):
    with pytest.raises(ValueError, match=message):
        make_tiny_problem(forget=forget)


def test_a_forget_set_rises():
    assert validate_forget_rows([9, 2], 64).tolist() == [2, 9]


def test_the_four_sets_are_the_whole_data_set_and_disjoint():
    problem = make_tiny_problem(forget=[7, 3])
    assert problem.forget.rows.tolist() == [3, 7]
    sets = (problem.retain, problem.forget, problem.validation, problem.test)
    assert torch.cat([part.rows for part in sets]).unique().tolist() == list(range(sum(SIZES)))
    assert [len(part) for part in sets] == [62, 2, 24, 24]


def test_other_labels_are_nobody_elses():
    problem = make_tiny_problem()
    other = replace(problem.forget, labels=1 - problem.forget.labels.clamp(max=1))
    assert not torch.equal(other.labels, problem.forget.labels)
    assert torch.equal(problem.forget.labels, make_tiny_problem().forget.labels)
    both = other.concatenate(problem.retain)
    assert torch.equal(both.labels[:10], other.labels)
    assert torch.equal(both.rows[10:], problem.retain.rows)


def test_what_is_taken_is_counted_for_all_sets_of_a_problem():
    problem = make_tiny_problem()
    shown = problem.forget.select(torch.tensor([2, 1])).take(torch.tensor([0]))
    assert torch.equal(shown, problem.forget.images.take(torch.tensor([2])))
    problem.retain.take(torch.arange(5))
    assert problem.test.read_counter.examples == 6


def test_pixels_are_not_copied():
    problem = make_tiny_problem()
    assert problem.retain.images is problem.forget.images
    assert np.shares_memory(problem.retain.images.pixels.numpy(), problem.test.images.pixels.numpy())
