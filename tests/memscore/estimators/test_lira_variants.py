"""Every LiRA variant against loops over its definition, and known bugs against a small copy of each."""

import numpy as np
import pytest
import torch
from scipy import stats

from memscore.estimators.lira_variants import LIRA_VARIANTS, LiraVariant, get_lira_variant, lira_variant_scores
from memscore.statistics.roc import auc, compute_target_means
from memscore.subsets.designs import Arm, draw_membership
from memscore.training.evaluation import logit_confidence
from tests.fixtures.whole_banks import fit_shared_std
from tests.oracles import gaussian_auc

ARMS = [Arm(design="iid", keep=0.7), Arm(design="exact", block=8)]
ALL_VARIANTS = [
    LiraVariant(centre=centre, variance=variance, offline=offline)
    for centre in ("mean", "median")
    for variance in ("per-example", "shared-a", "shared-b")
    for offline in ("one-sided", "two-sided")
]


def both(statistic, member, variant, keep=None):
    keep = member.mean() if keep is None else keep
    return lira_variant_scores(statistic, member, variant, fit_shared_std([(statistic, member)], keep, variant))


def shadows(member, target, n, keep):
    """In- and out-models that judge one target on example n, by the definition of the rule."""
    models = len(member)
    order = [(target + step) % models for step in range(1, models)]
    held = [m for m in order if member[m, n]]
    not_held = [m for m in order if not member[m, n]]
    return (held[1:], not_held) if len(held) > keep * (models - 1) else (held, not_held[1:])


def defined(statistic, member, variant, keep):
    """Compute both scores as the released code writes them, target by target; statistic [Q, M, N]."""
    _, models, n = statistic.shape
    online, offline = np.full((models, n), np.nan), np.full((models, n), np.nan)
    middle = {"mean": np.mean, "median": np.median}[variant.centre]
    for target in range(models):
        shadow_sides = [shadows(member, target, j, keep) for j in range(n)]
        dat_in = [statistic[:, held, j] for j, (held, _) in enumerate(shadow_sides)]
        dat_out = [statistic[:, rest, j] for j, (_, rest) in enumerate(shadow_sides)]
        raw_in, raw_out = (np.concatenate([d.ravel() for d in dat]) for dat in (dat_in, dat_out))
        left_in, left_out = (
            np.concatenate([(d - middle(d, 1)[:, None]).ravel() for d in dat if d.shape[1]])
            for dat in (dat_in, dat_out)
        )
        for j in range(n):
            phi, d_in, d_out = statistic[:, target, j], dat_in[j], dat_out[j]
            if d_in.shape[1] < 2 or d_out.shape[1] < 2:
                continue
            std_in, std_out, std_offline = {
                "per-example": (np.std(d_in, 1), np.std(d_out, 1), np.std(d_out, 1)),
                "shared-a": (np.std(raw_in), np.std(raw_in), np.std(raw_out)),
                "shared-b": (np.std(left_in), np.std(left_out), np.std(left_out)),
            }[variant.variance]
            pr_in = stats.norm.logpdf(phi, middle(d_in, 1), std_in + 1e-30)
            pr_out = stats.norm.logpdf(phi, middle(d_out, 1), std_out + 1e-30)
            online[target, j] = (pr_in - pr_out).mean()
            alone = stats.norm.logpdf(phi, middle(d_out, 1), std_offline + 1e-30)
            z = (phi - middle(d_out, 1)) / std_offline
            offline[target, j] = z.mean() if variant.offline == "one-sided" else -alone.mean()
    return online, offline


@pytest.fixture(scope="module", params=ARMS, ids=lambda arm: arm.name)
def fixture(request):
    """Three queries; levels and spreads that differ between examples; members a little surer."""
    rng = np.random.default_rng(0)
    member = draw_membership(request.param, range(8), 20)
    level = 4 * rng.normal(size=20) + 2 * member
    return level + rng.normal(size=(3, 8, 20)) * rng.gamma(2, size=20), member, request.param.keep


@pytest.mark.parametrize(
    "variant", ALL_VARIANTS, ids=lambda variant: f"{variant.centre}-{variant.variance}-{variant.offline}"
)
def test_every_variant_is_its_definition(fixture, variant):
    statistic, member, keep = fixture
    for queries in (statistic, statistic[:1]):
        expected = defined(queries, member, variant, keep)
        ours = both(queries, member, variant, keep)
        for mine, theirs in zip(ours, expected, strict=True):
            defined_scores = ~np.isnan(theirs)
            assert defined_scores.mean() > 0.5
            # a variance from two of eight shadows comes from sums around another one: nine digits of float64 are left
            np.testing.assert_allclose(mine[defined_scores], theirs[defined_scores], rtol=1e-8, atol=1e-9)
            if variant.variance == "per-example":
                assert np.isnan(mine[:, np.isnan(theirs).all(0)]).all()


def test_the_named_variants_are_those_of_paper_and_code(fixture):
    statistic, member, keep = fixture
    assert get_lira_variant("paper") == LiraVariant(centre="mean", variance="per-example", offline="one-sided")
    assert get_lira_variant("released-fixed") == LiraVariant(centre="median", variance="shared-a", offline="two-sided")
    assert get_lira_variant("advanced-mia-fixed").variance == "shared-b"
    assert set(LIRA_VARIANTS.values()) <= set(ALL_VARIANTS)
    with pytest.raises(ValueError, match="did you mean 'released'"):
        get_lira_variant("relased")
    with pytest.raises(ValueError, match="unknown variance of LiRA 'shared-c'"):
        LiraVariant(variance="shared-c")
    shared = fit_shared_std([(statistic, member)], keep, LiraVariant())
    two = lira_variant_scores(statistic[0], member, LiraVariant(), shared)
    np.testing.assert_array_equal(two, lira_variant_scores(statistic[:1], member, LiraVariant(), shared))


def test_a_statistic_of_another_shape_is_refused():
    member = draw_membership(Arm(design="exact", block=8), range(8), 20)
    with pytest.raises(ValueError, match=r"got \(8, 19\) and \(8, 20\)"):
        both(np.zeros((8, 19)), member, LiraVariant())


@pytest.mark.parametrize("variance", ["shared-a", "shared-b"])
def test_scores_do_not_depend_on_how_examples_are_cut(variance):
    rng = np.random.default_rng(1)
    member = draw_membership(Arm(design="exact", block=8), range(16), 200)
    statistic = rng.normal(size=(2, 16, 200)) * 3 + member
    variant = LiraVariant(centre="median", variance=variance)
    at_once = both(statistic, member, variant, 0.5)
    blocks = list(zip(np.split(statistic, [7, 100], 2), np.split(member, [7, 100], 1), strict=True))
    shared = fit_shared_std(blocks, 0.5, variant)
    cut = np.concatenate([lira_variant_scores(*block, variant, shared) for block in blocks], -1)
    np.testing.assert_allclose(cut, at_once, rtol=1e-10)  # sums in another order


@pytest.mark.parametrize("variant", ALL_VARIANTS[::2], ids=lambda variant: f"{variant.centre}-{variant.variance}")
@pytest.mark.parametrize(
    "arm", [Arm(design="exact", block=8), Arm(design="exact", keep=0.75, block=16)], ids=lambda a: a.name
)
def test_noise_has_an_area_of_one_half(arm, variant):
    """Within 4 s.e. of 1/2 over 16 banks of 800 examples; the s.e. is asserted to be small enough to see .015."""
    areas = []
    for seed in range(16):
        rng = np.random.default_rng(seed)
        member = draw_membership(arm, range(arm.models_per_block), 800, seed=seed)
        noise = rng.normal(size=800) + rng.normal(size=member.shape) * rng.gamma(2, size=800)
        areas.append([
            compute_target_means(scores, member)["auc"].value for scores in both(noise, member, variant, arm.keep)
        ])
    error = np.std(areas, axis=0, ddof=1) / 4
    assert (error < 0.004).all()
    assert (abs(np.mean(areas, axis=0) - 0.5) < 4 * error).all()


def test_trap_without_equal_counts_an_exact_design_gives_membership_away():
    """Bug: all other models judge. Then a target that held the example leaves one in-shadow fewer: noise is 'found'."""
    rng = np.random.default_rng(0)
    arm = Arm(design="exact", block=8)
    member = draw_membership(arm, range(8), 4000)
    noise = rng.normal(size=member.shape)
    bug = np.empty(member.shape)
    for target in range(8):
        rest = np.delete(np.arange(8), target)
        sides = [np.where(member[rest] == side, noise[rest], np.nan) for side in (True, False)]
        densities = [stats.norm.logpdf(noise[target], np.nanmean(s, 0), np.nanstd(s, 0)) for s in sides]
        bug[target] = densities[0] - densities[1]
    ours, _ = both(noise, member, LiraVariant(), 0.5)
    # 8 targets x 4,000 examples: one standard error of the mean area is about .003
    assert abs(compute_target_means(bug, member)["auc"].value - 0.5) > 0.05
    assert abs(compute_target_means(ours, member)["auc"].value - 0.5) < 0.015


def test_trap_two_sided_offline_calls_an_example_far_below_its_models_a_member():
    """Bug (as released): rank by -logpdf. With d between the sides its area is P(d)^2 + (1 - P(d))^2, P the one-sided

    area, since |x| > |y| where (x - y) and (x + y), independent normals of mean d, have one sign.
    """
    rng = np.random.default_rng(2)
    member = draw_membership(Arm(design="exact", block=64), range(64), 2000)
    statistic = rng.normal(size=member.shape) + 1.0 * member
    one = both(statistic, member, LiraVariant(variance="shared-b"), 0.5)[1]
    two = both(statistic, member, LiraVariant(variance="shared-b", offline="two-sided"), 0.5)[1]
    p = gaussian_auc(1.0)
    # the centre is learned from 31 shadows (loses about .004), 128,000 scores
    assert compute_target_means(one, member)["auc"].value == pytest.approx(p, abs=0.01)
    assert compute_target_means(two, member)["auc"].value == pytest.approx(p**2 + (1 - p) ** 2, abs=0.01)
    statistic[3, :50] = -40
    low_one, low_two = (
        both(statistic, member, LiraVariant(offline=offline), 0.5)[1] for offline in ("one-sided", "two-sided")
    )
    assert (low_one[3, :50] < low_one[3, 50:].min()).all()
    assert (low_two[3, :50] > low_two[3, 50:].max()).all()


def test_trap_shared_a_holds_the_spread_between_examples():
    """Levels 10 apart, noise 1: A is sqrt(100 + 1) = 10.05, B is 1 (less one degree of freedom of 31)."""
    rng = np.random.default_rng(3)
    member = draw_membership(Arm(design="exact", block=64), range(64), 3000)
    statistic = 10 * rng.normal(size=3000) + rng.normal(size=member.shape)
    a, b = (
        fit_shared_std([(statistic, member)], 0.5, LiraVariant(variance=variance))
        for variance in ("shared-a", "shared-b")
    )
    np.testing.assert_allclose(a.inside, np.sqrt(101), rtol=0.05)  # a standard deviation of 3,000 levels: 1.3 %
    np.testing.assert_allclose(b.inside, np.sqrt(30 / 31), rtol=0.01)  # of 93,000 residuals: .23 %
    np.testing.assert_allclose(b.outside, np.sqrt(30 / 31), rtol=0.01)


def test_trap_cutting_every_example_to_the_smallest_side_leaves_no_variance():
    """Bug (generate_ours): the example with one in-model sets the size for all; std 0 + 1e-30 makes any score."""
    rng = np.random.default_rng(4)
    member = draw_membership(Arm(design="exact", block=8), range(8), 20)
    member[:, 0] = np.arange(8) == 0
    statistic = rng.normal(size=member.shape)
    dat_in = [statistic[1:][member[1:, j], j] for j in range(1, 20)]
    size = min(1, *map(len, dat_in))
    bug = np.array([stats.norm.logpdf(0.0, np.median(d[:size]), np.std(d[:size]) + 1e-30) for d in dat_in])
    assert (abs(bug) > 1e50).all()
    online, offline = both(statistic, member, LIRA_VARIANTS["released"], 0.5)
    assert np.isnan(online[:, 0]).all()
    assert np.isfinite(online[:, 1:]).all()
    assert abs(online[:, 1:]).max() < 1e4
    assert np.isfinite(offline).all()


@pytest.mark.parametrize("name", LIRA_VARIANTS)
def test_equal_shadows_are_certain_and_an_equal_example_is_no_evidence(name):
    """In-models at 5, out-models at -5: area 1, every member above 0; one value in all models: exactly 0."""
    variant, member = LIRA_VARIANTS[name], draw_membership(Arm(design="exact", block=16), range(16), 60)
    certain = np.where(member, 5.0, -5.0)
    certain[:, 40:] = 0.1
    for phi in (certain, np.where(np.arange(60) < 40, certain, np.random.default_rng(0).normal(size=member.shape))):
        online, offline = both(phi, member, variant, 0.5)
        assert np.isfinite(online).all()
        assert np.isfinite(offline).all()
        assert ((online > 0) == member)[:, :40].all()
        assert all(auc(online[t, :40], member[t, :40]) == 1 for t in range(16))
        assert all(auc(offline[t, :40], member[t, :40]) == 1 for t in range(16))
        assert phi is not certain or (online[:, 40:] == 0).all()


def test_a_side_with_one_shadow_has_no_score():
    """Of an example that two of eight models were trained on, one is left on that side after a drop."""
    rng = np.random.default_rng(0)
    member = draw_membership(Arm(design="exact", block=8), range(8), 20)
    member[:, 0] = np.arange(8) < 2
    online, offline = both(rng.normal(size=member.shape), member, LiraVariant(), 0.5)
    assert np.isnan(online[:2, 0]).all()  # a target of these two leaves the other one
    assert np.isfinite(online[:, 1:]).all()
    assert np.isfinite(offline).all()


@pytest.mark.parametrize("name", LIRA_VARIANTS)
@pytest.mark.parametrize("kind", ["x30", "x1000", "shifted", "equal", "number"])
def test_one_model_or_number_moves_no_area(name, kind):
    rng, variant = np.random.default_rng(0), LIRA_VARIANTS[name]
    member = draw_membership(Arm(design="iid"), range(32), 400)
    phi = rng.normal(2, 2, 400) + rng.normal(size=member.shape) + member
    wild = phi.copy()
    wild[3] = {
        "x30": 30 * wild[3],
        "x1000": 1000 * wild[3],
        "shifted": wild[3] + 1e6,
        "equal": np.full(400, -40.0),
        "number": np.where(np.arange(400) == 7, 1e30, wild[3]),
    }[kind]
    others = np.delete(np.arange(32), 3)
    areas = [
        [np.mean([auc(scores[t], member[t]) for t in others]) for scores in both(statistic, member, variant, 0.5)]
        for statistic in (phi, wild)
    ]
    assert np.abs(np.subtract(*areas)).max() < 0.02


@pytest.mark.parametrize("name", LIRA_VARIANTS)
def test_shadows_of_other_blocks_are_the_only_ones(name):
    """Each block's targets have the scores that they have with the other block alone as a target's shadows."""
    rng, variant = np.random.default_rng(0), LIRA_VARIANTS[name]
    blocks = np.array([0] * 8 + [1] * 7 + [2] * 8)
    member = draw_membership(Arm(block=8), [*range(15), *range(16, 24)], 60, np.arange(60) // 5)
    phi = rng.normal(2, 2, 60) + rng.normal(size=member.shape) + member
    shared = fit_shared_std([(phi, member)], 0.5, variant, blocks)
    online, offline = lira_variant_scores(phi, member, variant, shared)
    middle = {"mean": np.mean, "median": np.median}[variant.centre]
    for t in (0, 9, 22):
        rest = blocks != blocks[t]
        sides = [[phi[rest & (member[:, j] == side), j] for j in range(60)] for side in (True, False)]
        raw_in, raw_out = (np.std(np.concatenate(side)) for side in sides)
        left_in, left_out = (np.std(np.concatenate([d - middle(d) for d in side])) for side in sides)
        for j in range(60):
            d_in, d_out = sides[0][j], sides[1][j]
            std_in, std_out, std_offline = {
                "per-example": (np.std(d_in), np.std(d_out), np.std(d_out)),
                "shared-a": (raw_in, raw_in, raw_out),
                "shared-b": (left_in, left_out, left_out),
            }[variant.variance]
            densities = [stats.norm.logpdf(phi[t, j], middle(d), s) for d, s in ((d_in, std_in), (d_out, std_out))]
            assert online[t, j] == pytest.approx(densities[0] - densities[1], rel=1e-8)
            alone = -stats.norm.logpdf(phi[t, j], middle(d_out), std_offline)
            z = (phi[t, j] - middle(d_out)) / std_offline
            assert offline[t, j] == pytest.approx(z if variant.offline == "one-sided" else alone, rel=1e-8)


def test_trap_confidence_by_way_of_probabilities_saturates():
    """Bug: log p - log (1 - p) of a float32 softmax, 1e-45 added. 200 above nine others is 200 - log 9."""
    logits = torch.zeros(1, 10)
    logits[0, 3] = 200.0
    p = torch.softmax(logits, 1)[0].numpy()
    bug = np.log(p[3] + np.float32(1e-45)) - np.log(np.delete(p, 3).sum() + np.float32(1e-45))
    ours = logit_confidence(logits, torch.tensor([3])).item()
    assert ours == pytest.approx(200 - np.log(9), rel=1e-6)  # float32
    assert bug < 104


def test_any_statistic_is_read_top_gap_too():
    """A statistic that is the other one squared in order gives the same one-sided order only if it is really used."""
    rng = np.random.default_rng(5)
    member = draw_membership(Arm(design="exact", block=16), range(16), 400)
    confidence = rng.normal(size=member.shape)
    top_gap = np.abs(rng.normal(size=member.shape) + 3 * member)
    areas = [
        compute_target_means(both(s, member, LiraVariant(), 0.5)[0], member)["auc"].value for s in (confidence, top_gap)
    ]
    assert abs(areas[0] - 0.5) < 0.03  # 6,400 scores: a standard error of .007
    assert areas[1] > 0.9


def test_queries_are_averaged_not_pooled():
    """Two copies of one query say what one says; independent queries say more."""
    rng = np.random.default_rng(6)
    member = draw_membership(Arm(design="exact", block=32), range(32), 500)
    noisy = [rng.normal(size=member.shape) + member for _ in range(4)]
    one = both(np.stack(noisy[:1]), member, LiraVariant(), 0.5)
    np.testing.assert_allclose(both(np.stack(noisy[:1] * 2), member, LiraVariant(), 0.5), one, rtol=1e-12)
    areas = [
        compute_target_means(both(np.stack(noisy[:q]), member, LiraVariant(), 0.5)[0], member)["auc"].value
        for q in (1, 4)
    ]
    assert areas[1] > areas[0] + 0.1


def test_every_target_is_judged_not_only_the_last():
    rng = np.random.default_rng(7)
    member = draw_membership(Arm(design="exact", block=16), range(16), 100)
    online, offline = both(rng.normal(size=member.shape) + 3 * member, member, LIRA_VARIANTS["released"], 0.5)
    for scores in (online, offline):
        assert np.isfinite(scores).all()
    assert all(auc(scores, held) > 0.8 for scores, held in zip(online, member, strict=True))


def test_inputs_are_left_as_they_were():
    rng = np.random.default_rng(9)
    member = draw_membership(Arm(design="exact", block=8), range(8), 20)
    statistic = rng.normal(size=(2, 8, 20))
    before = statistic.copy(), member.copy()
    both(statistic, member, LIRA_VARIANTS["released-fixed"], 0.5)
    assert (statistic == before[0]).all()
    assert (member == before[1]).all()
