"""Partitions: the parts of a forget set by each kind, and the refused settings."""

import numpy as np
import pytest

from unlearn.meta.partition import Partition, align_scores, merge_parts

FORGET = (3, 10, 11, 25, 40, 41)
SCORES = np.full(50, np.nan)
SCORES[list(FORGET)] = [0.9, 0.1, 0.5, 0.2, 0.8, 0.4]


def fail_on_embeddings():
    raise AssertionError("only a partition by the centroid may read embeddings")


def split(partition, *, embeddings=fail_on_embeddings, seed=0, forget=FORGET):
    return partition.split(forget, lambda name: {"mine": SCORES}[name], embeddings, seed)


def test_the_whole_is_one_part():
    assert split(Partition()) == (FORGET,)


def test_a_score_cuts_from_low_to_high_or_down():
    up = split(Partition(kind="score", score="mine", k=3))
    assert up == ((10, 25), (11, 41), (3, 40))
    assert split(Partition(kind="score", score="mine", k=3, order="descending")) == up[::-1]


def test_equal_ranges_may_differ_in_size():
    assert split(Partition(kind="score", score="mine", k=2, rule="spaced")) == ((10, 25, 41), (3, 11, 40))


def test_a_shuffle_is_the_same_for_the_same_seed():
    first, repeated, second = (split(Partition(kind="shuffle", k=3), seed=seed) for seed in (0, 0, 1))
    assert first == repeated != second
    assert sorted(map(len, first)) == [2, 2, 2]
    assert merge_parts(first) == FORGET


def test_the_centroid_is_that_of_all_training_examples_and_the_nearest_come_first():
    embeddings = np.zeros((50, 2))
    embeddings[list(FORGET), 0] = [5, -1, 2, -3, 4, 6]
    embeddings[0, 0] = -embeddings.sum()  # so that the centroid is 0
    actual = split(Partition(kind="centroid", k=3), embeddings=lambda: embeddings)
    assert actual == ((10, 11), (25, 40), (3, 41))


@pytest.mark.parametrize(
    ("partition", "message"),
    [
        (Partition(kind="score", score="mine", k=7), "7 parts of 6 examples to forget"),
        (Partition(kind="shuffle", k=7), "7 parts of 6 examples to forget"),
        (Partition(kind="score", score="mine", k=0), "0 parts of 6 examples to forget"),
    ],
)
def test_parts_of_nothing_are_refused(partition, message):
    with pytest.raises(ValueError, match=message):
        split(partition)


def test_an_empty_range_is_refused_with_both_ways_out():
    partition = Partition(kind="score", score="mine", k=3, rule="spaced")
    with pytest.raises(ValueError, match=r"3 equal ranges of mine hold .* in 2 only; use --parts 2 or --rule equal"):
        split(partition, forget=(3, 10, 25, 40))


def test_an_undefined_score_is_refused():
    with pytest.raises(ValueError, match="undefined for 1 of the 3 examples"):
        split(Partition(kind="score", score="mine", k=2), forget=(0, 3, 10))


def test_a_score_goes_to_the_rows_of_its_ids():
    ids = np.array(["a", "b", "c", "d"])
    actual = align_scores("mine", lambda name: (np.array(["c", "a", "x"]), np.array([3.0, 1.0, 9.0])), ids)
    np.testing.assert_array_equal(actual, [1.0, np.nan, 3.0, np.nan])
