"""LiRA against loops with SciPy, under noise and on Gaussians with a known ROC curve."""

import numpy as np
import pytest
from scipy import stats

from memscore.estimators.lira import (
    MEAN_STRENGTH,
    OFFLINE_MEAN_STRENGTH,
    average_by_membership,
    combine_prior_sums,
    compute_prior_sums,
    external_lira_scores,
    fit_external_prior,
)
from memscore.estimators.student_t import VARIANCE_STRENGTH
from memscore.statistics.roc import auc, compute_target_means
from memscore.subsets.designs import Arm, draw_membership
from tests.fixtures.whole_banks import compare_models, fit_shadow_prior, lira_offline, lira_online
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


def shadows(member, target, n, keep, blocks):
    """In- and out-models that judge one target on example n, by the definition of the rule."""
    models = len(member)
    if blocks is not None:
        others = [m for m in range(models) if blocks[m] != blocks[target]]
        return [m for m in others if member[m, n]], [m for m in others if not member[m, n]]
    order = [(target + step) % models for step in range(1, models)]
    held = [m for m in order if member[m, n]]
    not_held = [m for m in order if not member[m, n]]
    return (held[1:], not_held) if len(held) > keep * (models - 1) else (held, not_held[1:])


def predictive(sample, prior_mean, prior_variance, strength):
    """scipy's Student t with the normal-inverse-gamma posterior's numbers."""
    n, mean = len(sample), np.mean(sample)
    a = (VARIANCE_STRENGTH + n) / 2
    b = VARIANCE_STRENGTH * prior_variance / 2 + ((sample - mean) ** 2).sum() / 2
    b += strength * n * (mean - prior_mean) ** 2 / (2 * (strength + n))
    location = (strength * prior_mean + n * mean) / (strength + n)
    return stats.t(2 * a, location, np.sqrt(b * (strength + n + 1) / (a * (strength + n))))


def compare(phi, held, rest, gain, mean_out, variances):
    """Online and offline of one cell from the confidences of its shadows."""
    online, offline = np.nan, np.nan
    if len(rest):
        offline = stats.norm.ppf(predictive(rest, mean_out, variances[1], OFFLINE_MEAN_STRENGTH).cdf(phi))
    if len(rest) and len(held):
        strengths = [MEAN_STRENGTH * len(other) / (MEAN_STRENGTH + len(other)) for other in (rest, held)]
        inside = predictive(held, rest.mean() + gain, variances[0], strengths[0])
        online = inside.logpdf(phi) - predictive(rest, held.mean() - gain, variances[1], strengths[1]).logpdf(phi)
    return online, offline


def naive(confidence, member, blocks, prior, targets):
    """Both attacks by loops over targets and examples; only the median variances are the prior's."""
    models, n = member.shape
    scores = np.full((2, models, n), np.nan)
    number = np.searchsorted(compare_models([(confidence, member)]).level_edges, confidence.mean(0), side="right")
    for target in targets:
        sides = [shadows(member, target, j, member.mean(), blocks) for j in range(n)]
        samples = [(confidence[held, j], confidence[rest, j]) for j, (held, rest) in enumerate(sides)]
        mean_out = np.mean([rest.mean() for _, rest in samples if len(rest)])
        variances = prior.variance_in[target], prior.variance_out[target]
        for j, (held, rest) in enumerate(samples):
            similar = [s for s, b in zip(samples, number, strict=True) if b == number[j] and len(s[0]) and len(s[1])]
            gain = np.mean([inside.mean() - outside.mean() for inside, outside in similar])
            scores[:, target, j] = compare(confidence[target, j], held, rest, gain, mean_out, variances)
    return scores[:, targets]


def median_variances(confidence, member, target, blocks):
    """The median over examples of each side's variances, by the definition: in and out, without target or block."""
    others = np.arange(len(member)) != target if blocks is None else blocks != blocks[target]
    for side in (member, ~member):
        samples = [confidence[others & side[:, j], j] for j in range(member.shape[1])]
        yield np.median([s.var(ddof=1) / (1 - 2 / (9 * (len(s) - 1))) ** 3 for s in samples if len(s) > 1])


BANKS = {
    "iid": (Arm(design="iid", keep=0.7), 8, None),
    "exact": (Arm(design="exact", block=8), 8, None),
    "orthogonal": (Arm(block=8), 16, np.arange(16) // 8),
    "blocks of two sizes": (Arm(block=8), 14, np.arange(14) // 8),
}


@pytest.mark.parametrize(("arm", "models", "blocks"), BANKS.values(), ids=BANKS)
def test_both_attacks_are_what_loops_and_scipy_say(arm, models, blocks):
    rng = np.random.default_rng(0)
    member = draw_membership(arm, range(models), 60, np.arange(60) // 5)
    confidence = 4 * rng.normal(size=60) + rng.normal(size=(models, 60)) * rng.gamma(2, size=60) + 2 * member
    prior = fit_shadow_prior([(confidence, member)], blocks)
    targets = [0, 5, models - 1]
    online, offline = naive(confidence, member, blocks, prior, targets)
    np.testing.assert_allclose(lira_online(confidence, member, prior)[targets], online, rtol=1e-8, atol=1e-9)
    # Wallace's formula is within .03 of the exact deviate up to 5, .05 up to 6
    ours = lira_offline(confidence, member, prior)[targets]
    assert (np.isnan(ours) == np.isnan(offline)).all()
    assert np.nanmax(abs(ours - offline)[abs(offline) < 5]) < 0.03
    # medians are read from histograms with four bins an octave, of 60 examples
    for target in targets:
        expected = list(median_variances(confidence, member, target, blocks))
        np.testing.assert_allclose([prior.variance_in[target], prior.variance_out[target]], expected, rtol=0.2)


def test_an_external_target_is_compared_with_all_models():
    rng = np.random.default_rng(9)
    member = rng.random((12, 60)) < 0.7
    member[:, 0], member[:, 1] = True, False
    confidence = 4 * rng.normal(size=60) + rng.normal(size=(12, 60)) + 2 * member
    target, models = rng.normal(size=60) * 3, compare_models([(confidence, member)])
    prior = fit_external_prior(zip(np.split(confidence, [20], 1), np.split(member, [20], 1), strict=True), models)
    online, offline = external_lira_scores(target, confidence, member, prior)
    number = np.searchsorted(models.level_edges, confidence.mean(0), side="right")
    samples = [(confidence[member[:, j], j], confidence[~member[:, j], j]) for j in range(60)]
    mean_out = np.mean([rest.mean() for _, rest in samples if len(rest)])
    for j, (held, rest) in enumerate(samples):
        similar = [s for s, b in zip(samples, number, strict=True) if b == number[j] and len(s[0]) and len(s[1])]
        gain = np.mean([inside.mean() - outside.mean() for inside, outside in similar])
        expected = compare(target[j], held, rest, gain, mean_out, (prior.variance_in[0], prior.variance_out[0]))
        assert online[j] == pytest.approx(expected[0], rel=1e-8, abs=1e-9, nan_ok=True)
        assert offline[j] == pytest.approx(expected[1], abs=0.03, nan_ok=True)
    assert np.isnan(online).nonzero()[0].tolist() == [0, 1]
    assert np.isnan(offline).nonzero()[0].tolist() == [0]


def test_scores_do_not_depend_on_how_examples_are_cut():
    rng = np.random.default_rng(1)
    member = draw_membership(Arm(block=16), range(32), 300, np.arange(300) // 10)
    confidence = (rng.normal(size=member.shape) * 5 + 30 * member).astype(np.float32)
    for attack in (lira_online, lira_offline):
        at_once = attack(confidence, member, whole(confidence, member))
        for cuts in ([1], [7, 100, 250], range(1, 300)):
            blocks = list(zip(np.split(confidence, cuts, 1), np.split(member, cuts, 1), strict=True))
            models = compare_models([(confidence, member)])
            parts = (compute_prior_sums(*block, models) for block in blocks)
            pool = combine_prior_sums(parts, models)
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


def test_equal_confidences_are_no_evidence():
    member = draw_membership(Arm(design="exact", block=8), range(8), 20)
    flat, rng = np.full(member.shape, 2.5), np.random.default_rng(0)
    assert (lira_online(flat, member, whole(flat, member)) == 0).all()
    assert (lira_offline(flat, member, whole(flat, member)) == 0).all()
    flat[:, 10:] = rng.normal(size=(8, 10))
    assert (lira_online(flat, member, whole(flat, member)) == 0).all(0).tolist() == [True] * 10 + [False] * 10


@pytest.mark.parametrize("arm", [Arm(design="iid", keep=0.5), Arm(design="exact", keep=0.75, block=8)], ids=str)
@pytest.mark.parametrize("certain", [100, 40], ids=["every example", "40 of 100"])
def test_constant_sides_that_differ_are_perfect_leakage(arm, certain):
    rng, models = np.random.default_rng(0), 16
    member = draw_membership(arm, range(models), 100)
    confidence = rng.normal(size=member.shape)
    confidence[:, :certain] = np.where(member[:, :certain], 5.0, -5.0)
    online, offline = (f(confidence, member, whole(confidence, member)) for f in (lira_online, lira_offline))
    assert np.isfinite(online).all()
    assert ((online > 0) == member)[:, :certain].all()
    for scores in (online, offline):
        assert all(auc(scores[t, :certain], member[t, :certain]) == 1 for t in range(models))


def assert_alike(scores, others):
    """Equal but for the few examples that another one more or less moves to the next bin of levels."""
    assert np.corrcoef(scores.ravel(), others.ravel())[0, 1] > 0.99
    assert scores.std() == pytest.approx(others.std(), rel=0.02)


def test_a_nan_spoils_its_own_example_only():
    rng = np.random.default_rng(0)
    member = draw_membership(Arm(design="exact", block=8), range(8), 200)
    confidence = rng.normal(size=member.shape) + member
    before = lira_online(confidence, member, whole(confidence, member))
    confidence[3, 7] = np.nan
    after = lira_online(confidence, member, whole(confidence, member))
    assert np.isnan(after).all(0).nonzero()[0].tolist() == [7]
    assert np.isfinite(np.delete(after, 7, axis=1)).all()
    assert_alike(np.delete(after, 7, axis=1), np.delete(before, 7, axis=1))


WILD = {
    "one number": lambda phi: np.where(np.arange(phi.size) == 7, 1e6, phi),
    "a large number": lambda phi: np.where(np.arange(phi.size) == 7, -1e30, phi),
    "x30": lambda phi: 30 * phi,
    "x1000": lambda phi: 1000 * phi,
    "shifted": lambda phi: phi + 1e6,
    "equal": lambda phi: np.full_like(phi, -40.0),
    "noise": lambda phi: np.random.default_rng(1).normal(0, 40, phi.size),
}


@pytest.mark.parametrize("kind", WILD)
@pytest.mark.parametrize(
    ("arm", "models", "blocks"),
    [(Arm(design="iid"), 32, None), (Arm(design="iid"), 6, None), (Arm(block=16), 32, np.arange(32) // 16)],
    ids=["iid, 32", "iid, 6", "orthogonal, 32"],
)
def test_one_model_or_number_moves_no_area(kind, arm, models, blocks):
    """Mean area over the other targets within .02, of 32 models; also of a target outside the bank."""
    rng = np.random.default_rng(0)
    member = draw_membership(arm, range(models), 400, np.arange(400) // 10)
    confidence = rng.normal(2, 2, 400) + rng.normal(size=member.shape) + member
    truth, wild = rng.random(400) < 0.5, confidence.copy()
    target = rng.normal(2, 2, 400) + rng.normal(size=400) + truth
    wild[3] = WILD[kind](wild[3])
    areas = []
    for phi in (confidence, wild):
        online, offline = (
            f(phi, member, fit_shadow_prior([(phi, member)], blocks)) for f in (lira_online, lira_offline)
        )
        prior = fit_external_prior([(phi, member)], compare_models([(phi, member)]))
        external = external_lira_scores(target, phi, member, prior)
        others = np.delete(np.arange(models), 3)
        areas.append([
            *(np.mean([auc(scores[t], member[t]) for t in others]) for scores in (online, offline) if models > 6),
            *(np.mean([auc(s[~np.isnan(s)], truth[~np.isnan(s)])]) for s in external),
        ])
    assert np.abs(np.subtract(*areas)).max() < (0.02 if models > 6 else 0.05)


def test_one_scattered_example_changes_no_other():
    """Spread 1e6 in one example of 400: the evidence of all others keeps its size."""
    rng = np.random.default_rng(0)
    member = draw_membership(Arm(design="exact", block=32), range(32), 400)
    confidence = rng.normal(size=member.shape) + member
    before = lira_online(confidence, member, whole(confidence, member))
    confidence[:, 7] *= 1e6
    after = lira_online(confidence, member, whole(confidence, member))
    assert_alike(np.delete(after, 7, axis=1), np.delete(before, 7, axis=1))


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
