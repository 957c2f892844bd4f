"""The functions for shadow models that all attacks share, each against a count by hand or SciPy."""

import numpy as np
import pytest
from scipy import stats

from memscore.estimators.lira import (
    CHUNK_CELLS,
    find_in_surplus,
    find_next_on_side,
    iterate_column_chunks,
    student_t_log_density,
    student_t_to_normal,
)
from memscore.estimators.lira_prior import compute_moments
from memscore.estimators.shadow_models import (
    ShadowModels,
    find_blocks_of_shadows,
    find_outlying,
    find_scattered,
    sum_other_blocks,
    winsorize,
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


def test_sums_over_other_blocks_are_those_of_their_models():
    rng = np.random.default_rng(0)
    blocks, values = np.array([0, 0, 0, 2, 5, 5]), rng.normal(size=(6, 7))
    for given in (values, values > 0):
        expected = [given[blocks != block].sum(0) for block in blocks]
        np.testing.assert_allclose(sum_other_blocks(given, blocks), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("indices", "usable"),
    [
        (range(64), False),
        (range(128), True),
        ([*range(64), *range(64, 90)], False),  # targets of the first block would have 26 shadows
        ([*range(64), *range(64, 96)], True),
        ([i for i in range(256) if i % 64 != 5], True),  # no block is whole, one model of each failed
        ([*range(40), *range(192, 240)], True),
    ],
)
def test_shadows_are_of_other_blocks_where_two_blocks_have_half_of_their_models(indices, usable):
    blocks = find_blocks_of_shadows(list(indices), 64)
    assert (blocks is not None) == usable
    assert blocks is None or blocks.tolist() == [index // 64 for index in indices]


WILD = {
    "x30": lambda phi, rng: 30 * phi,
    "x1000": lambda phi, rng: 1000 * phi,
    "shifted": lambda phi, rng: phi + 1e6,
    "equal": lambda phi, rng: np.full_like(phi, -40.0),
    "noise": lambda phi, rng: rng.normal(0, 50, len(phi)),
    "float32": lambda phi, rng: np.where(phi > 0, 1e30, -1e30),
}


@pytest.mark.parametrize("kind", WILD)
@pytest.mark.parametrize("models", [4, 9, 32])
def test_a_model_far_from_all_others_is_found_and_no_other(kind, models):
    for seed in range(5):
        rng = np.random.default_rng(seed)
        phi = rng.normal(3, 3, 400) + rng.normal(size=(models, 400)) + 2 * (rng.random((models, 400)) < 0.5)
        assert not find_outlying(phi).any()
        phi[1] = WILD[kind](phi[1], rng)
        phi[2, 7] = np.nan  # an example with a NaN is passed over
        assert np.flatnonzero(find_outlying(phi)).tolist() == [1]


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.75, 0.9])
def test_memorized_examples_make_no_model_outlying_and_are_not_limited(keep):
    """Every example is certain in models that were trained on it and wrong in the others: two narrow groups."""
    rng = np.random.default_rng(0)
    member = rng.random((32, 500)) < keep
    phi = np.where(member, 9.0, -9.0) + 0.1 * rng.normal(size=member.shape)
    shadows = ShadowModels.from_sample(phi, keep)
    assert not shadows.outlying.any()
    np.testing.assert_array_equal(winsorize(phi, shadows), phi)
    assert not find_scattered(phi, shadows).any()


def test_numbers_and_examples_far_from_all_others_are_limited_and_scattered():
    rng = np.random.default_rng(0)
    phi = rng.normal(size=(32, 300))
    shadows = ShadowModels.from_sample(phi, 0.5)
    phi[3, 7], phi[5, 9] = 1e30, -1e6
    phi[:, 11] *= 1e6
    limited = winsorize(phi, shadows)
    assert (limited == phi).sum() == phi.size - 2
    assert 20 < limited[3, 7] < 60 < 120 < -limited[5, 9] + 100 < 160
    assert np.flatnonzero(find_scattered(phi, shadows)).tolist() == [11]
