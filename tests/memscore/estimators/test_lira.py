"""LiRA against loops with SciPy, under noise and on Gaussians with a known ROC curve."""

import numpy as np
import pytest
from scipy import stats

from memscore.estimators.lira import MEAN_STRENGTH, VARIANCE_STRENGTH, average_by_membership
from memscore.statistics.roc import compute_target_means
from memscore.subsets.designs import Arm, draw_membership
from tests.fixtures.whole_banks import fit_shadow_prior, lira_offline, lira_online
from tests.oracles import gaussian_auc, gaussian_tpr

NULL_ARMS = [
    Arm(design="iid", keep=0.5),
    Arm(design="iid", keep=0.7),
    Arm(design="exact", block=8),
    Arm(design="exact", keep=0.75, block=8),
    Arm(design="exact", block=2),
    Arm(block=8),
    Arm(keep=0.75, block=16),
]


def whole(confidence, member):
    return fit_shadow_prior([(confidence, member)])


def shadows(member, target, n, keep):
    """In- and out-models that judge one target on example n, by the definition of the rule."""
    sides = []
    models = len(member)
    order = [(target + step) % models for step in range(1, models)]
    held = [m for m in order if member[m, n]]
    not_held = [m for m in order if not member[m, n]]
    if len(held) > keep * (models - 1):
        held = held[1:]
    else:
        not_held = not_held[1:]
    sides.extend((held, not_held))
    return sides


def predictive(sample, prior_mean, prior_variance):
    """scipy's Student t with the normal-inverse-gamma posterior's numbers."""
    n, mean = len(sample), np.mean(sample)
    strength = MEAN_STRENGTH + n
    a = (VARIANCE_STRENGTH + n) / 2
    b = VARIANCE_STRENGTH * prior_variance / 2 + ((sample - mean) ** 2).sum() / 2
    b += MEAN_STRENGTH * n * (mean - prior_mean) ** 2 / (2 * strength)
    location = (MEAN_STRENGTH * prior_mean + n * mean) / strength
    return stats.t(2 * a, location, np.sqrt(b * (strength + 1) / (a * strength)))


def naive(confidence, member):
    """Both attacks by loops over targets and examples."""
    models, n = member.shape
    online, offline = np.full((models, n), np.nan), np.full((models, n), np.nan)
    for target in range(models):
        others = np.arange(models) != target
        samples = [[confidence[others & (member[:, j] == side), j] for j in range(n)] for side in (True, False)]
        priors = [
            (np.mean([s.mean() for s in side if len(s)]), np.mean([s.var(ddof=1) for s in side if len(s) > 1]))
            for side in samples
        ]
        for j in range(n):
            held, not_held = shadows(member, target, j, member.mean())
            phi = confidence[target, j]
            if not_held:
                out = predictive(confidence[not_held, j], *priors[1])
                offline[target, j] = stats.norm.ppf(out.cdf(phi))
                if held:
                    online[target, j] = predictive(confidence[held, j], *priors[0]).logpdf(phi) - out.logpdf(phi)
    return online, offline


@pytest.mark.parametrize("arm", [Arm(design="iid", keep=0.7), Arm(design="exact", block=8)], ids=lambda arm: arm.name)
def test_both_attacks_are_what_loops_and_scipy_say(arm):
    rng = np.random.default_rng(0)
    member = draw_membership(arm, range(8), 40)
    confidence = 4 * rng.normal(size=40) + rng.normal(size=(8, 40)) * rng.gamma(2, size=40) + 2 * member
    online, offline = naive(confidence, member)
    pool = whole(confidence, member)
    np.testing.assert_allclose(lira_online(confidence, member, pool), online, rtol=1e-9, atol=1e-10)
    # Wallace's formula is within .03 of the exact deviate up to 5, .05 up to 6
    ours = lira_offline(confidence, member, pool)
    assert (np.isnan(ours) == np.isnan(offline)).all()
    assert np.nanmax(abs(ours - offline)[abs(offline) < 5]) < 0.03


def test_scores_do_not_depend_on_how_examples_are_cut():
    rng = np.random.default_rng(1)
    member = draw_membership(Arm(block=16), range(32), 300, np.arange(300) // 10)
    confidence = (rng.normal(size=member.shape) * 5 + 30 * member).astype(np.float32)
    for attack in (lira_online, lira_offline):
        at_once = attack(confidence, member, whole(confidence, member))
        for cuts in ([1], [7, 100, 250], range(1, 300)):
            blocks = list(zip(np.split(confidence, cuts, 1), np.split(member, cuts, 1), strict=True))
            pool = fit_shadow_prior(blocks)
            np.testing.assert_allclose(np.concatenate([attack(*b, pool) for b in blocks], 1), at_once, rtol=1e-10)


@pytest.mark.parametrize(
    ("arm", "models"),
    [(arm, models) for arm in NULL_ARMS for models in (8, 16) if models % arm.models_per_block == 0],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_noise_has_an_area_of_one_half(arm, models):
    """Confidences that ignore membership, of examples with levels and spreads of their own: within 4 s.e. of 1/2

    over 24 banks. 800 examples a bank: an error of .01 would be seen.
    """
    areas = []
    for seed in range(24):
        rng = np.random.default_rng(seed)
        member = draw_membership(arm, range(models), 800, np.arange(800) // 5, seed=seed)
        confidence = rng.normal(size=800) + rng.normal(size=member.shape) * rng.gamma(2, size=800)
        pool = whole(confidence, member)
        attacks = (lira_online, lira_offline)
        areas.append([
            compute_target_means(attack(confidence, member, pool), member)["auc"].value for attack in attacks
        ])
    error = np.std(areas, axis=0, ddof=1) / np.sqrt(24)
    assert (error < 0.0025).all()
    assert (abs(np.mean(areas, axis=0) - 0.5) < 4 * error).all()


@pytest.mark.parametrize("arm", NULL_ARMS[2:], ids=lambda arm: arm.name)
def test_where_a_score_is_missing_says_nothing_about_membership(arm):
    """In an exact design an example has a score for all targets or for none."""
    models = arm.models_per_block
    member = draw_membership(arm, range(models), 100, np.arange(100) // 5)
    confidence = np.random.default_rng(0).normal(size=member.shape)
    for attack in (lira_online, lira_offline):
        missing = np.isnan(attack(confidence, member, whole(confidence, member)))
        assert (missing == missing[0]).all()
        assert missing.all() == (models == 2)


@pytest.mark.parametrize("distance", [0.5, 1.5])
def test_gaussians_d_apart_give_the_best_tests_curve(distance):
    """Equal variances, levels that differ between examples. Learned from 400 shadows: area and rates lose under .01."""
    rng = np.random.default_rng(2)
    member = draw_membership(Arm(design="exact", block=400), range(400), 1500)
    confidence = rng.normal(size=member.shape) + distance * member + 3 * rng.normal(size=1500)
    online = compute_target_means(lira_online(confidence, member, whole(confidence, member)), member)
    offline = compute_target_means(lira_offline(confidence, member, whole(confidence, member)), member)
    for curve in (online, offline):  # with equal variances both have the same order
        for key, best in (("auc", gaussian_auc(distance)), ("tpr_at_0.01", gaussian_tpr(distance, 0.01))):
            mean = curve[key]
            error = 4 * np.std(mean.per_target, ddof=1) / np.sqrt(400)
            assert best - error - 0.01 < mean.value < best + error + 0.01 * (key != "auc")


def test_offline_is_one_sided():
    """A target far below the models that never saw the example is the least likely member of all."""
    rng = np.random.default_rng(3)
    member = draw_membership(Arm(design="exact", block=16), range(16), 50)
    confidence = rng.normal(size=member.shape)
    confidence[3] = np.linspace(-60, 60, 50)
    scores = lira_offline(confidence, member, whole(confidence, member))[3]
    assert scores[:10].max() < -3
    assert scores[-10:].min() > 3
    assert np.isfinite(scores).all()


def test_a_large_common_level_costs_no_precision():
    rng = np.random.default_rng(4)
    member = draw_membership(Arm(design="exact", block=16), range(16), 50)
    confidence = rng.normal(size=member.shape)
    for attack in (lira_online, lira_offline):
        unshifted = attack(confidence, member, whole(confidence, member))
        shifted = attack(confidence + 1e6, member, whole(confidence + 1e6, member))
        np.testing.assert_allclose(shifted, unshifted, rtol=1e-7, atol=1e-7)  # 1e6 leaves ten digits of the input


def test_an_example_nobody_or_everybody_held_has_no_ratio():
    rng = np.random.default_rng(5)
    member = rng.random((10, 40)) < 0.5
    member[:, 0], member[:, 1], member[:, 2] = True, False, np.arange(10) == 0
    confidence = rng.normal(size=member.shape)
    online = lira_online(confidence, member, whole(confidence, member))
    offline = lira_offline(confidence, member, whole(confidence, member))
    assert np.isnan(online[:, :2]).all()
    assert np.isnan(online[:, 2]).tolist() == [True] + [False] * 9  # its only holder cannot judge itself
    assert np.isnan(offline[:, 0]).all()
    assert np.isfinite(offline[:, 1:]).all()


def test_equal_confidences_have_no_score():
    member = draw_membership(Arm(design="exact", block=8), range(8), 20)
    flat = np.full(member.shape, 2.5)
    assert np.isnan(lira_online(flat, member, whole(flat, member))).all()
    assert np.isnan(lira_offline(flat, member, whole(flat, member))).all()


def test_inputs_are_left_as_they_were():
    rng = np.random.default_rng(6)
    member = draw_membership(Arm(design="exact", block=8), range(8), 20)
    confidence = rng.normal(size=member.shape)
    before = confidence.copy(), member.copy()
    lira_online(confidence, member, whole(confidence, member))
    assert (confidence == before[0]).all()
    assert (member == before[1]).all()


def test_means_are_over_targets_of_one_kind_that_have_a_score():
    scores = np.array([[1.0, np.nan, np.nan], [3.0, 5.0, np.nan], [-2.0, -4.0, np.nan]])
    member = np.array([[True, True, True], [True, True, True], [False, False, False]])
    means = average_by_membership(scores, member)
    np.testing.assert_array_equal(means["mean_in"], [2, 5, np.nan])
    np.testing.assert_array_equal(means["mean_out"], [-2, -4, np.nan])
