"""Nearest neighbours in blocks are those of the whole matrix of similarities."""

import numpy as np
import pytest

from memscore.statistics.nearest_neighbours import find_nearest_neighbours, normalize_rows


@pytest.mark.parametrize("block_rows", [1, 7, 50, 64])
def test_blocks_give_what_the_whole_matrix_gives(block_rows):
    unit = normalize_rows(np.random.default_rng(0).normal(size=(50, 6)))
    similarity, neighbour = find_nearest_neighbours(unit, block_rows)
    whole = unit @ unit.T
    np.fill_diagonal(whole, -np.inf)
    np.testing.assert_array_equal(neighbour, whole.argmax(1))
    np.testing.assert_allclose(similarity, whole.max(1), rtol=1e-6)


def test_a_vector_of_zeros_is_similar_to_none_and_a_single_vector_has_no_neighbour():
    similarity, _ = find_nearest_neighbours(normalize_rows(np.array([[0, 0], [1, 0], [2, 0]])))
    np.testing.assert_allclose(similarity, [0, 1, 1])
    similarity, neighbour = find_nearest_neighbours(normalize_rows(np.ones((1, 3))))
    assert (similarity[0], neighbour[0]) == (-np.inf, -1)
