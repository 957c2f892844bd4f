"""The functions for shadow models that all attacks share, each against a count by hand or SciPy."""

import numpy as np
import pytest

from memscore.estimators.lira import CHUNK_CELLS, MIN_WIDTH, iterate_column_chunks
from memscore.estimators.shadow_models import (
    ShadowModels,
    compute_median_model,
    find_blocks_of_shadows,
    find_outlying,
    find_scattered,
    sum_other_blocks,
    winsorize,
)


@pytest.mark.parametrize(("models", "widths"), [(CHUNK_CELLS // 40, [40, 40, 20]), (2**14, [MIN_WIDTH] * 6 + [4])])
def test_pieces_are_all_columns_in_order(models, widths):
    member = np.zeros((models, 100), bool)
    chunks = [phi for phi, _ in iterate_column_chunks(np.tile(np.arange(100.0), (models, 1)), member)]
    assert [phi.shape[1] for phi in chunks] == widths
    assert np.concatenate(chunks, axis=1)[0].tolist() == list(range(100))


@pytest.mark.parametrize("models", [1, 2, 5, 6])
def test_the_median_model_is_numpys_median(models):
    values = np.random.default_rng(0).integers(0, 4, (models, 50)).astype(np.float64)
    values[0, :3] = np.nan, np.inf, -np.inf
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(compute_median_model(values), np.median(values, axis=0))


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
