"""The C-score: which models count, its interval and error, and the mean over fractions."""

import numpy as np
import pytest

from memscore.estimators.cscore import average_fractions, cscore
from memscore.estimators.memorization import memorization
from memscore.statistics.intervals import wilson
from memscore.subsets.designs import Arm, draw_membership


def count_right(k, n):
    """The C-score of examples that n models were trained without, k of which are right."""
    place = np.arange(max(n) + 1)[:, None]
    return cscore(place < np.array(k), place >= np.array(n))


def test_only_models_without_the_example_count():
    member = draw_membership(Arm(design="exact"), range(64), 100)
    assert (cscore(member, member)["value"] == 0).all()
    assert (cscore(~member, member)["value"] == 1).all()
    rng = np.random.default_rng(0)
    correct = rng.random(member.shape) < 0.7
    held_in = np.array([correct[member[:, n], n].mean() for n in range(100)])
    np.testing.assert_allclose(cscore(correct, member)["value"], held_in - memorization(correct, member), rtol=1e-10)


def test_the_interval_is_wilsons_and_the_error_is_never_zero():
    table = count_right([0, 3, 8, 0], [8, 8, 8, 0])
    np.testing.assert_array_equal([table["lo"], table["hi"]], wilson(np.array([0, 3, 8, 0]), np.array([8, 8, 8, 0])))
    assert (table["se"][:3] > 0).all()
    assert np.isnan([table[c][3] for c in ("value", "se", "lo", "hi")]).all()
    assert table["n_out"].tolist() == [8, 8, 8, 0]


def test_fractions_weigh_the_same_whatever_their_counts():
    few, many = count_right([1], [2]), count_right([900], [1000])
    mean = average_fractions([few, many])
    np.testing.assert_allclose(mean["value"], 0.7, rtol=1e-10)
    np.testing.assert_allclose(mean["se"], np.hypot(few["se"], many["se"]) / 2, rtol=1e-10)


def test_one_fraction_is_its_own_mean_and_an_undefined_one_leaves_no_mean():
    whole, hole = count_right([1, 2], [4, 4]), count_right([1, 0], [4, 0])
    np.testing.assert_allclose(average_fractions([whole])["se"], whole["se"], rtol=1e-10)
    mean = average_fractions([whole, hole])
    assert np.isnan(mean["value"]).tolist() == [False, True]
    assert np.isnan(mean["se"]).tolist() == [False, True]
    with pytest.raises(ValueError, match="got none"):
        average_fractions([])


def test_z_scores_against_the_true_probability_have_mean_0_and_sd_1():
    rng = np.random.default_rng(5)
    member = draw_membership(Arm(design="exact"), range(512), 4000)
    table = cscore(rng.random(member.shape) < 0.5, member)
    z = (table["value"] - 0.5) / table["se"]
    assert abs(z.mean()) < 4 / np.sqrt(4000)
    assert abs(z.std() - 1.002) < 4 / np.sqrt(2 * 4000)  # the smoothed error is low by 1 / (2 n), n = 256
