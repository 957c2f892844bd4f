"""RMIA against the dense pairwise matrix and loops, known bugs, and external targets of RMIA and LiRA."""

import numpy as np
import pytest
from scipy.special import expit

from memscore.estimators.attack_success import attack_success
from memscore.estimators.lira import external_lira_scores, fit_external_prior
from memscore.estimators.rmia import (
    RmiaConfig,
    compute_share_below,
    external_rmia,
    external_rmia_population,
    external_rmia_ratio,
    rmia,
    rmia_population,
    rmia_ratio,
)
from memscore.statistics.roc import auc, compute_target_means
from memscore.subsets.designs import Arm, draw_membership
from tests.fixtures.whole_banks import compare_models
from tests.memscore.estimators.test_lira_variants import shadows

ARMS = [Arm(design="iid", keep=0.7), Arm(design="exact", block=8)]
CONFIGS = [
    RmiaConfig(),
    RmiaConfig(gamma=2.0),
    RmiaConfig(kind="offline"),
    RmiaConfig(kind="offline", gamma=2.0, offline_a=0.0),
    RmiaConfig(kind="offline", offline_a=1.0),
]


def attack(confidence, member, population, keep, config):
    return rmia(confidence, member, rmia_population(population, config), keep, config)


def typical(p_in, p_out, config):
    if config.kind == "online":
        return (p_in + p_out) / 2
    return ((1 + config.offline_a) * p_out + (1 - config.offline_a)) / 2


def dense(confidence, member, population, keep, config):
    """Every pair of every target, by loops over targets and examples; nan where a side that is needed is empty."""
    p, q = expit(confidence.astype(float)), expit(population.astype(float))
    models, n = member.shape
    scores = np.full((models, n), np.nan)
    for t in range(models):
        others = np.arange(models) != t
        q_out = q[others].mean(0)
        z = q[t] / typical(q_out, q_out, config)
        for j in range(n):
            held, rest = shadows(member, t, j, keep)
            if rest and (held or config.kind == "offline"):
                x = p[t, j] / typical(p[held, j].mean() if held else None, p[rest, j].mean(), config)
                scores[t, j] = (x / z > config.gamma).mean()
    return scores


def noisy(arm, n, z, models=8, seed=0, lift=2.0):
    rng = np.random.default_rng(seed)
    member = draw_membership(arm, range(models), n, seed=seed)
    confidence = rng.normal(size=n) * 2 + rng.normal(size=member.shape) + lift * member
    return (
        confidence.astype(np.float32),
        member,
        (rng.normal(size=z) * 2 + rng.normal(size=(models, z))).astype(np.float32),
    )


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.kind}-{c.gamma:g}-{c.offline_a:g}")
@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: arm.name)
def test_sort_and_search_is_the_dense_pairwise_definition(arm, config):
    confidence, member, population = noisy(arm, 60, 80)
    ours = attack(confidence, member, population, arm.keep, config)
    # counts of 80: equal unless a pair stands within rounding of gamma, and no random pair does
    np.testing.assert_array_equal(ours, dense(confidence, member, population, arm.keep, config))


def test_one_sort_counts_what_the_matrix_counts_ties_included():
    """Quotients of powers of two are exact, so pairs exactly at gamma are many: none of them counts."""
    rng = np.random.default_rng(0)
    x, z = 2.0 ** rng.integers(-4, 5, 500), np.sort(2.0 ** rng.integers(-4, 5, 300))
    for gamma in (0.5, 1.0, 2.0):
        pairs = x[:, None] / z[None]
        assert (pairs == gamma).any()
        np.testing.assert_array_equal(compute_share_below(z, x / gamma), (pairs > gamma).mean(1))
        assert (compute_share_below(z, x / gamma) < (pairs >= gamma).mean(1)).any()  # the bug: ties counted


@pytest.mark.parametrize("config", CONFIGS[::2], ids=lambda c: f"{c.kind}-{c.offline_a:g}")
def test_trap_a_probability_of_zero_is_a_number_not_a_missing_model(config):
    """Bug (ml_privacy_meter): in-probabilities are set to 0, and the largest K, "those that are not 0", are averaged.

    A real 0 is lost where zeros are left out, and without pairs K is not the number of out-models.
    """
    arm = Arm(design="iid", keep=0.5)
    confidence, member, population = noisy(arm, 200, 80, models=16)
    confidence[::2, :100] = -800  # expit(-800) is 0
    p = expit(confidence.astype(float))
    out = [shadows(member, 0, j, 0.5)[1] for j in range(200)]
    truth = np.array([p[rest, j].mean() for j, rest in enumerate(out)])
    zeroed = np.zeros(p.shape)
    for j, rest in enumerate(out):
        zeroed[rest, j] = p[rest, j]
    not_zero = zeroed.sum(0) / np.maximum((zeroed > 0).sum(0), 1)
    largest = np.sort(zeroed, axis=0)[-7:].mean(0)
    assert (not_zero[:100] > 1.2 * truth[:100]).mean() > 0.9  # half of the models are lost
    assert (abs(largest - truth)[100:] > 0.01).mean() > 0.5
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = dense(confidence, member, population, 0.5, config)
    assert not np.isnan(expected).any()
    np.testing.assert_array_equal(attack(confidence, member, population, 0.5, config), expected)


def test_where_everybody_says_zero_the_ratio_is_one_which_is_no_evidence():
    confidence, member, population = noisy(Arm(design="exact", block=8), 20, 30)
    confidence[:, 4], population[:, 7] = -800, -800
    ratio = rmia_ratio(confidence, member, 0.5, RmiaConfig())
    assert (ratio[:, 4] == 1).all()
    assert (np.isfinite(np.log(ratio))).all()
    scores, others = attack(confidence, member, population, 0.5, RmiaConfig()), np.delete(np.arange(20), 4)
    without = attack(confidence[:, others], member[:, others], np.delete(population, 7, 1), 0.5, RmiaConfig())
    # z's ratio 1 is one more of 30 that those above 1 exceed
    np.testing.assert_allclose(scores[:, others], (without * 29 + (ratio[:, others] > 1)) / 30)
    assert (attack(confidence, member, population, 0.5, RmiaConfig(kind="offline"))[:, 4] == 0).all()


@pytest.mark.parametrize("config", [CONFIGS[0], CONFIGS[2], CONFIGS[4]], ids=lambda c: f"{c.kind}-{c.offline_a:g}")
def test_perfect_leakage_has_a_score_for_every_target(config):
    """Models without an example give its label probability 0, exactly."""
    arm = Arm(design="exact", block=8)
    member = draw_membership(arm, range(8), 50)
    ratio = rmia_ratio(np.where(member, 1e6, -1e6).astype(np.float32), member, 0.5, config)
    assert compute_target_means(np.log(ratio), member)["auc"].value == 1
    assert (attack_success(np.log(ratio), member)["value"] == 1).all()


def test_a_number_that_is_missing_spoils_its_example_and_no_other():
    confidence, member, population = noisy(ARMS[1], 30, 20)
    expected = attack(confidence, member, population, 0.5, RmiaConfig())
    confidence[3, 5] = np.nan
    scores = attack(confidence, member, population, 0.5, RmiaConfig())
    assert np.isnan(scores[:, 5]).all()
    others = np.delete(np.arange(30), 5)
    np.testing.assert_array_equal(scores[:, others], expected[:, others])
    population[2, 7] = np.nan
    assert not np.isnan(attack(confidence, member, population, 0.5, RmiaConfig())[:, others]).any()


@pytest.mark.parametrize("kind", ["online", "offline"])
def test_the_ratio_orders_as_the_share_does_and_breaks_its_ties(kind):
    """With ten validation examples the share has 11 values; TPR at FPR 1 % is then that of the tie at the top."""
    config = RmiaConfig(kind=kind)
    confidence, member, population = noisy(Arm(design="exact", block=16), 800, 10, models=16)
    share, ratio = attack(confidence, member, population, 0.5, config), rmia_ratio(confidence, member, 0.5, config)
    for t in range(16):
        assert (np.diff(share[t][np.argsort(ratio[t])]) >= 0).all()
        assert len(np.unique(share[t])) <= 11
        assert len(np.unique(ratio[t])) > 700
    coarse, fine = (compute_target_means(scores, member) for scores in (share, np.log(ratio)))
    assert fine["tpr_at_0.01"].value > coarse["tpr_at_0.01"].value + 0.02
    assert fine["auc"].value == pytest.approx(coarse["auc"].value, abs=0.03)


WILD = {
    "times 30": lambda phi, rng: 30 * phi,
    "times 1000": lambda phi, rng: 1000 * phi,
    "up": lambda phi, rng: phi + 1e6,
    "down": lambda phi, rng: phi - 1e6,
    "constant": lambda phi, rng: np.zeros_like(phi),
    "noise": lambda phi, rng: 30 * rng.normal(size=phi.shape),
}


@pytest.mark.parametrize("models", [8, 32])
@pytest.mark.parametrize("wild", WILD)
@pytest.mark.parametrize("kind", ["online", "offline"])
def test_one_wild_model_moves_the_area_of_the_others_by_little(wild, models, kind):
    """Probabilities are bounded, so one model moves p(x) by at most 1 / its side's number of models."""
    rng, config = np.random.default_rng(1), RmiaConfig(kind=kind)
    confidence, member, _ = noisy(Arm(design="exact", block=8), 600, 1, models=models)
    areas = []
    for changed in (False, True):
        if changed:
            confidence[3] = WILD[wild](confidence[3], rng)
        log_ratio = np.log(rmia_ratio(confidence, member, 0.5, config))
        assert np.isfinite(log_ratio).all()
        rest = np.arange(models) != 3
        areas.append(compute_target_means(log_ratio[rest], member[rest])["auc"].value)
    assert areas[0] > 0.75
    assert areas[1] > areas[0] - 0.05


@pytest.mark.parametrize("number", [-1e30, -1e6, 1e6, 1e30])
def test_outlying_numbers_move_nothing_but_their_examples(number):
    confidence, member, population = noisy(Arm(design="exact", block=8), 600, 40, models=32)
    expected = attack(confidence, member, population, 0.5, RmiaConfig())
    confidence[5, 17], confidence[9, 400] = number, -number
    scores, others = attack(confidence, member, population, 0.5, RmiaConfig()), np.delete(np.arange(600), [17, 400])
    np.testing.assert_array_equal(scores[:, others], expected[:, others])
    assert not np.isnan(scores).any()


def test_scores_do_not_depend_on_how_examples_are_cut():
    confidence, member, population = noisy(Arm(design="exact", block=8), 100, 50)
    ready = rmia_population(population, RmiaConfig())
    at_once = rmia(confidence, member, ready, 0.5, RmiaConfig())
    cut = [
        rmia(confidence[:, part], member[:, part], ready, 0.5, RmiaConfig())
        for part in (slice(0, 7), slice(7, 60), slice(60, 100))
    ]
    np.testing.assert_array_equal(np.concatenate(cut, 1), at_once)


@pytest.mark.parametrize("kind", ["online", "offline"])
@pytest.mark.parametrize("arm", [Arm(design="iid", keep=0.7), Arm(design="exact", block=4)], ids=lambda arm: arm.name)
def test_noise_has_an_area_of_one_half(arm, kind):
    """Within 4 s.e. of 1/2 over 16 banks of 800 examples; the s.e. is small enough to see .02."""
    config, areas = RmiaConfig(kind=kind), []
    for seed in range(16):
        confidence, member, population = noisy(arm, 800, 300, seed=seed, lift=0.0)
        areas.append(
            compute_target_means(attack(confidence, member, population, arm.keep, config), member)["auc"].value
        )
    error = np.std(areas, ddof=1) / 4
    assert error < 0.005
    assert abs(np.mean(areas) - 0.5) < 4 * error


def test_trap_without_equal_counts_an_exact_design_gives_membership_away():
    """Bug: all other models judge. A member's p_in then rests on one model fewer, its p_out on one more."""
    arm = Arm(design="exact", block=4)
    rng = np.random.default_rng(0)
    member = draw_membership(arm, range(4), 8000)
    p = expit(rng.normal(size=member.shape) * 3)
    bug = np.empty(p.shape)
    for t in range(4):
        rest = np.arange(4) != t
        # one in- and two out-models, or two and one: offline p_out is the mean of two for members, of one for others
        bug[t] = p[t] / (np.where(member[rest], 0, p[rest]).sum(0) / (~member[rest]).sum(0))
    population = (rng.normal(size=(4, 500)) * 3).astype(np.float32)
    config = RmiaConfig(kind="offline", offline_a=1.0)  # p(x) = p_out, as in the bug
    ours = attack(np.log(p / (1 - p)), member, population, 0.5, config)
    # 4 targets x 8,000 examples: one standard error of the mean area is about .003
    assert abs(compute_target_means(bug, member)["auc"].value - 0.5) > 0.015
    assert abs(compute_target_means(ours, member)["auc"].value - 0.5) < 0.012


def test_members_are_separated_from_others():
    confidence, member, population = noisy(Arm(design="exact", block=64), 400, 300, models=64, lift=3.0)
    for kind in ("online", "offline"):
        scores = attack(confidence, member, population, 0.5, RmiaConfig(kind=kind))
        assert compute_target_means(scores, member)["auc"].value > 0.8


def test_modes_that_need_all_logits_are_refused_by_name():
    with pytest.raises(ValueError, match="'sm-taylor-softmax' at temperature 2 needs all logits"):
        RmiaConfig(signal="sm-taylor-softmax", temperature=2.0)
    with pytest.raises(ValueError, match="'softmax' at temperature 2 needs all logits"):
        RmiaConfig(temperature=2.0)
    with pytest.raises(ValueError, match="did you mean 'taylor-softmax'"):
        RmiaConfig(signal="tailor-softmax")
    with pytest.raises(ValueError, match="gamma is a ratio above 0, got 0"):
        RmiaConfig(gamma=0.0)
    with pytest.raises(ValueError, match="offline_a lies between 0 and 1, got 2"):
        RmiaConfig(offline_a=2.0)


def test_a_bank_without_validation_is_refused():
    with pytest.raises(ValueError, match="got 0 examples and 8 models"):
        rmia_population(np.empty((8, 0)), RmiaConfig())


def test_inputs_are_left_as_they_were():
    confidence, member, population = noisy(ARMS[1], 30, 20)
    before = confidence.copy(), member.copy(), population.copy()
    attack(confidence, member, population, 0.5, RmiaConfig())
    assert all((a == b).all() for a, b in zip(before, (confidence, member, population), strict=True))


@pytest.mark.parametrize("config", CONFIGS[:3], ids=lambda c: f"{c.kind}-{c.gamma:g}")
def test_an_external_target_is_compared_with_all_models_of_the_bank(config):
    confidence, member, population = noisy(ARMS[0], 60, 40)
    rng = np.random.default_rng(9)
    target, target_z = rng.normal(size=60) * 2, rng.normal(size=40) * 2
    p, q = expit(confidence.astype(float)), expit(population.astype(float))
    z = expit(target_z) / typical(q.mean(0), q.mean(0), config)
    expected = np.full(60, np.nan)
    for j in range(60):
        held, rest = member[:, j], ~member[:, j]
        if rest.any() and (held.any() or config.kind == "offline"):
            p_in = p[held, j].mean() if held.any() else None
            expected[j] = (expit(target[j]) / typical(p_in, p[rest, j].mean(), config) / z > config.gamma).mean()
    ready = external_rmia_population(target_z, population, config)
    np.testing.assert_array_equal(external_rmia(target, confidence, member, ready, config), expected)
    ratio, some = external_rmia_ratio(target, confidence, member, config), ~np.isnan(expected)
    assert some.sum() > 40
    assert (np.diff(expected[some][np.argsort(ratio[some])]) >= 0).all()
    assert len(np.unique(ratio[some])) == some.sum() > len(np.unique(expected[some]))


def test_noise_from_an_external_target_has_an_area_of_one_half_without_dropping_a_shadow():
    """The counts of a bank do not know what the target held; of 16 targets' areas the mean is within 4 s.e. of 1/2."""
    areas = []
    for seed in range(16):
        confidence, member, population = noisy(Arm(design="exact", block=8), 800, 200, seed=seed, lift=1.0)
        rng = np.random.default_rng(100 + seed)
        target, held = confidence.mean(0) + rng.normal(size=800), rng.random(800) < 0.5
        ready = external_rmia_population(rng.normal(size=200), population, RmiaConfig())
        prior = fit_external_prior([(confidence, member)], compare_models([(confidence, member)]))
        scores = [*external_lira_scores(target, confidence, member, prior)]
        scores.append(external_rmia(target, confidence, member, ready, RmiaConfig()))
        areas.append([auc(s, held) for s in scores])
    error = np.std(areas, axis=0, ddof=1) / 4
    assert (error < 0.01).all()
    assert (abs(np.mean(areas, axis=0) - 0.5) < 4 * error).all()
