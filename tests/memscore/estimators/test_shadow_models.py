"""The functions for shadow models that all attacks share, each against a count by hand or SciPy."""

import numpy as np
import pytest
from scipy import stats

from memscore.estimators.lira import (
    CHUNK_CELLS,
    compute_moments,
    find_in_surplus,
    find_next_on_side,
    iterate_column_chunks,
    student_t_log_density,
    student_t_to_normal,
)

HELD = np.array([[1, 0, 1], [1, 0, 0], [0, 0, 1], [1, 0, 1]], dtype=bool)


def test_following_goes_round_and_is_0_where_there_is_nobody():
    values = np.array([[1.0, 5, 1], [2, 6, 2], [3, 7, 3], [4, 8, 4]])
    assert find_next_on_side(values, HELD).tolist() == [[2, 0, 3], [4, 0, 3], [4, 0, 4], [1, 0, 1]]


def test_surplus_counts_the_shadows_of_each_target_without_itself():
    """At keep .5 a target has 3 shadows and their share is 1.5: more than that means 2."""
    assert find_in_surplus(HELD, 0.5).tolist() == [
        [True, False, True],
        [True, False, True],
        [True, False, True],
        [True, False, True],
    ]
    assert find_in_surplus(HELD[:3], 0.5).tolist() == [
        [False, False, False],
        [False, False, True],
        [True, False, False],
    ]


def test_moments_are_of_one_side_and_nobody_has_a_mean_of_0():
    phi = np.array([[1.0, 9, 9], [2, 9, 9], [9, 9, 9], [6, 9, 9]])
    count, mean, squares = compute_moments(phi, HELD)
    assert (count.tolist(), mean.tolist(), squares.tolist()) == ([3, 0, 3], [3, 0, 9], [14, 0, 0])


def test_pieces_are_all_columns_in_order():
    member = np.zeros((CHUNK_CELLS // 4, 9), bool)
    chunks = [phi for phi, _ in iterate_column_chunks(np.tile(np.arange(9.0), (len(member), 1)), member)]
    assert [phi.shape[1] for phi in chunks] == [4, 4, 1]
    assert np.concatenate(chunks, axis=1)[0].tolist() == list(range(9))


def test_log_density_is_students():
    t, scale, df = np.array([[0.0, -2], [7, 0.3]]), np.array([[1.0, 0.1], [3, 2]]), np.array([[8.0, 9], [12, 40]])
    np.testing.assert_allclose(
        student_t_log_density(t, scale, df), stats.t.logpdf(t * scale, df, scale=scale), rtol=1e-10
    )


@pytest.mark.parametrize("df", [9.0, 12.0, 40.0])
def test_normal_deviate_has_the_tail_of_students_t(df):
    """One shadow makes 9 degrees of freedom, from where Wallace's formula is within .03 of the exact z up to 5."""
    z = np.linspace(-5, 5, 41)
    t = stats.t.ppf(stats.norm.cdf(z), df)
    np.testing.assert_allclose(student_t_to_normal(t, np.full(41, df)), z, atol=0.03)
