"""Cuts: the parts that each kind makes of a forget set, and what is refused."""

import numpy as np
import pytest

from unlearn.meta.partition import Partition, align_scores, merge_parts

FORGET = (3, 10, 11, 25, 40, 41)
SCORES = np.full(50, np.nan)
SCORES[list(FORGET)] = [0.9, 0.1, 0.5, 0.2, 0.8, 0.4]


def none_asked_for():
    raise AssertionError("only a cut by the centroid has a use for embeddings")


def parts(cut, *, embeddings=none_asked_for, seed=0, forget=FORGET):
    return cut.split(forget, lambda name: {"mine": SCORES}[name], embeddings, seed)


def test_the_whole_is_one_part():
    assert parts(Partition()) == (FORGET,)


def test_a_score_cuts_from_low_to_high_or_down():
    up = parts(Partition(kind="score", score="mine", k=3))
    assert up == ((10, 25), (11, 41), (3, 40))
    assert parts(Partition(kind="score", score="mine", k=3, order="descending")) == up[::-1]


def test_equal_ranges_may_differ_in_size():
    assert parts(Partition(kind="score", score="mine", k=2, rule="spaced")) == ((10, 25, 41), (3, 11, 40))


def test_a_shuffle_is_the_same_for_the_same_seed():
    one, again, other = (parts(Partition(kind="shuffle", k=3), seed=seed) for seed in (0, 0, 1))
    assert one == again != other
    assert sorted(map(len, one)) == [2, 2, 2]
    assert merge_parts(one) == FORGET


def test_the_centroid_is_that_of_all_training_examples_and_the_nearest_come_first():
    embeddings = np.zeros((50, 2))
    embeddings[list(FORGET), 0] = [5, -1, 2, -3, 4, 6]
    embeddings[0, 0] = -embeddings.sum()  # so that the centroid is 0
    found = parts(Partition(kind="centroid", k=3), embeddings=lambda: embeddings)
    assert found == ((10, 11), (25, 40), (3, 41))


@pytest.mark.parametrize(
    ("cut", "said"),
    [
        (Partition(kind="score", score="mine", k=7), "7 parts of 6 examples to forget"),
        (Partition(kind="shuffle", k=7), "7 parts of 6 examples to forget"),
        (Partition(kind="score", score="mine", k=0), "0 parts of 6 examples to forget"),
    ],
)
def test_parts_of_nothing_are_refused(cut, said):
    with pytest.raises(ValueError, match=said):
        parts(cut)


def test_an_empty_range_is_refused_with_both_ways_out():
    cut = Partition(kind="score", score="mine", k=3, rule="spaced")
    with pytest.raises(ValueError, match=r"3 equal ranges of mine hold .* in 2 only; use --parts 2 or --rule equal"):
        parts(cut, forget=(3, 10, 25, 40))


def test_an_undefined_score_is_refused():
    with pytest.raises(ValueError, match="undefined for 1 of the 3 examples"):
        parts(Partition(kind="score", score="mine", k=2), forget=(0, 3, 10))


def test_a_score_goes_to_the_rows_of_its_ids():
    ids = np.array(["a", "b", "c", "d"])
    found = align_scores("mine", lambda name: (np.array(["c", "a", "x"]), np.array([3.0, 1.0, 9.0])), ids)
    np.testing.assert_array_equal(found, [1.0, np.nan, 3.0, np.nan])
