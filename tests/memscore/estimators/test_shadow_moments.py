"""Moments of each target's shadow models against loops over targets and examples."""

import numpy as np
import pytest
from scipy import stats

from memscore.estimators.masks import keep_where, make_mask, select_rows
from memscore.estimators.shadow_models import ShadowModels
from memscore.estimators.shadow_moments import (
    SideMoments,
    TargetGroups,
    compute_moments,
    find_in_surplus,
    find_next_on_side,
    summarize_sides,
    summarize_whole_side,
)
from memscore.estimators.student_t import VARIANCE_STRENGTH, Predictive, predict
from memscore.subsets.designs import Arm, draw_membership

HELD = np.array([[1, 0, 1], [1, 0, 0], [0, 0, 1], [1, 0, 1]], dtype=bool)


def test_following_goes_round_and_is_0_where_there_is_nobody():
    values = np.array([[1.0, 5, 1], [2, 6, 2], [3, 7, 3], [4, 8, 4]])
    for given in (values, values.astype(np.int64)):
        following = find_next_on_side(given, HELD)
        assert following.dtype == given.dtype
        assert following.tolist() == [[2, 0, 3], [4, 0, 3], [4, 0, 4], [1, 0, 1]]


def test_surplus_counts_the_shadows_of_each_target_without_itself():
    """At keep .5 a target has 3 shadows and their share is 1.5: more than that means 2."""
    assert find_in_surplus(HELD, 0.5).tolist() == [[True, False, True]] * 4
    assert find_in_surplus(HELD[:3], 0.5).tolist() == [
        [False, False, False],
        [False, False, True],
        [True, False, False],
    ]


def test_masks_select_every_bit():
    condition = np.array([[True, False, True], [False, True, False]])
    values = np.array([[np.nan, np.inf, -0.0], [1.5, -np.inf, np.nan]])
    mask = make_mask(condition)
    kept = keep_where(mask, values)
    np.testing.assert_array_equal(kept, np.where(condition, values, 0))
    assert np.signbit(kept[0, 2])
    np.testing.assert_array_equal(select_rows(mask, values[0], values[1]), np.where(condition, values[0], values[1]))


def test_moments_are_of_one_side_and_nobody_has_a_mean_of_0():
    phi = np.array([[1.0, 9, 9], [2, 9, 9], [9, 9, np.nan], [6, 9, 9]])
    held = HELD & ~np.isnan(phi)
    count, mean, squares, deviation = compute_moments(phi, make_mask(held))
    assert (count.tolist(), mean.tolist(), squares.tolist()) == ([3, 0, 2], [3, 0, 9], [14, 0, 0])
    assert deviation[:, 0].tolist() == [-2, -1, 0, 3]
    assert not deviation[:, 1:].any()


def list_shadows(member, target, n, keep, blocks):
    """In- and out-models of one target on example n, before and after one is dropped, by the definition of the rule."""
    models = len(member)
    if blocks is not None:
        others = [m for m in range(models) if blocks[m] != blocks[target]]
        sides = [m for m in others if member[m, n]], [m for m in others if not member[m, n]]
        return sides, sides
    order = [(target + step) % models for step in range(1, models)]
    held, rest = [m for m in order if member[m, n]], [m for m in order if not member[m, n]]
    return (held, rest), ((held[1:], rest) if len(held) > keep * (models - 1) else (held, rest[1:]))


DESIGNS = {
    "iid": (Arm(design="iid", keep=0.7), 9, None),
    "exact": (Arm(design="exact", block=8), 16, None),
    "exact keep .75": (Arm(design="exact", keep=0.75, block=4), 8, None),
    "two models": (Arm(design="exact", block=2), 2, None),
    "one model": (Arm(design="iid"), 1, None),
    "blocks": (Arm(block=8), 20, np.arange(20) // 8),
}


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("arm", "models", "blocks"), DESIGNS.values(), ids=DESIGNS)
def test_sides_are_what_loops_over_targets_and_examples_say(arm, models, blocks, ties):
    rng = np.random.default_rng(1)
    n = 40
    member = draw_membership(arm, range(models), n, np.arange(n) // 5)
    phi = 50 + rng.normal(size=(models, n)) * rng.gamma(2, size=n) + 3 * member
    phi = np.round(phi) if ties else phi
    phi[0, 3] = np.nan
    shadows = ShadowModels(keep=arm.keep, outlying=np.zeros(models, bool), blocks=blocks)
    kept, others = summarize_sides(phi, member, arm.keep, shadows)
    for target in range(models):
        for j in range(n):
            before, after = list_shadows(member, target, j, arm.keep, blocks)
            for sides, expected in ((others, before), (kept, after)):
                for side, chosen in zip(sides, expected, strict=True):
                    sample = phi[chosen, j]
                    assert side.groups.expand(side.n)[target, j] == len(sample)
                    if not len(sample):
                        assert np.isnan(side.compute_mean()[target, j])
                        continue
                    if j == 3:  # the example with a NaN, which only has to stay its own
                        continue
                    assert side.compute_mean()[target, j] == pytest.approx(sample.mean(), rel=1e-12)
                    squares = ((sample - sample.mean()) ** 2).sum()
                    assert side.spread[target, j] == pytest.approx(squares, rel=1e-10, abs=1e-12)


def test_a_whole_side_has_one_target():
    phi = np.random.default_rng(2).normal(size=(4, 3))
    side = summarize_whole_side(phi, HELD)
    assert side.n.tolist() == [[3, 0, 3]]
    mean = side.compute_mean()
    np.testing.assert_allclose(mean[0, [0, 2]], [phi[[0, 1, 3], 0].mean(), phi[[0, 2, 3], 2].mean()], rtol=1e-12)
    assert np.isnan(mean[0, 1])


def test_log_ratio_is_that_of_two_densities_of_student():
    t, scale, df = np.array([[0.0, -2], [7, 0.3]]), np.array([[1.0, 0.1], [3, 2]]), np.array([[8.0, 9]])
    t_other, scale_other, df_other = t[::-1] + 1, scale[:, ::-1], np.array([[12.0, 40]])
    one = Predictive(t * scale, df * scale**2, df, TargetGroups())
    other = Predictive(t_other * scale_other, df_other * scale_other**2, df_other, TargetGroups())
    expected = stats.t.logpdf(t * scale, df, scale=scale)
    expected -= stats.t.logpdf(t_other * scale_other, df_other, scale=scale_other)
    np.testing.assert_allclose(one.compute_log_ratio(other), expected, rtol=1e-10)


@pytest.mark.parametrize("df", [9.0, 12.0, 40.0])
def test_normal_deviate_has_the_tail_of_students_t(df):
    """One shadow makes 9 degrees of freedom, from where Wallace's formula is within .03 of the exact z up to 5."""
    z = np.linspace(-5, 5, 41)
    t = stats.t.ppf(stats.norm.cdf(z), df)
    predictive = Predictive(3 * t[None], np.full((1, 41), df * 3**2), np.full((1, 41), df), TargetGroups())
    np.testing.assert_allclose(predictive.compute_normal_deviate()[0], z, atol=0.03)


def test_nothing_is_predicted_without_a_shadow_or_a_width():
    zeros = np.zeros((1, 3))
    side = SideMoments(np.array([[0.0, 2, 2]]), zeros, np.array([[0.0, 0, 1]]), np.zeros(3), TargetGroups())
    predictive = predict(np.ones((1, 3)), side, zeros, 0.05, np.zeros(1))
    assert np.isnan(predictive.width).tolist() == [[True, True, False]]
    assert predictive.df.tolist() == [[VARIANCE_STRENGTH, VARIANCE_STRENGTH + 2, VARIANCE_STRENGTH + 2]]
