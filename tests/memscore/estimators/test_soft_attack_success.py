"""Soft attack success against its definition, closed forms, and the coverage of its interval."""

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import norm

from memscore.estimators.soft_attack_success import soft_attack_success, widen_by_halves
from memscore.subsets.designs import Arm, draw_membership
from tests.fixtures.whole_banks import fit_shadow_prior, lira_online


def test_certain_attacks_score_1_and_0_and_an_infinite_ratio_is_certain():
    member = draw_membership(Arm(design="exact", block=8), range(8), 30)
    for size in (1e4, np.inf):
        assert (soft_attack_success(np.where(member, size, -size), member, 0.5)["value"] == 1).all()
        assert (soft_attack_success(np.where(member, -size, size), member, 0.5)["value"] == 0).all()


def test_what_is_undefined_is_not_counted():
    scores = np.array([[2.0, np.nan], [np.nan, np.nan], [-1.0, 1.0]])
    member = np.array([[True, True], [True, True], [False, False]])
    table = soft_attack_success(scores, member, 0.5)
    np.testing.assert_allclose(table["value"], [(expit(2) + expit(1)) / 2, expit(-1)])
    assert table["n"].tolist() == [2, 1]
    assert np.isnan(table["se"]).tolist() == [False, True]


@pytest.mark.parametrize("keep", [0.25, 0.5, 0.75])
def test_without_information_it_is_the_prior_of_the_truth(keep):
    member = draw_membership(Arm(design="exact", keep=keep, block=8), range(8), 20)
    value = soft_attack_success(np.zeros(member.shape), member, keep)["value"]
    np.testing.assert_allclose(value, keep**2 + (1 - keep) ** 2)


def test_of_gaussians_it_is_the_mean_of_their_true_posterior():
    """Known densities d = 1.5 apart, keep 0.7: an integral against 400 models x 200 examples."""
    distance, keep, rng = 1.5, 0.7, np.random.default_rng(0)
    member = rng.random((400, 200)) < keep
    phi = rng.normal(size=member.shape) + distance * member
    scores = norm.logpdf(phi, distance) - norm.logpdf(phi)
    x = np.linspace(-8, 10, 4001)
    inside, outside = keep * norm.pdf(x, distance), (1 - keep) * norm.pdf(x)
    expected = np.trapezoid((inside**2 + outside**2) / (inside + outside), x)
    value = soft_attack_success(scores, member, keep)["value"]
    assert abs(value.mean() - expected) < 4 * value.std() / np.sqrt(200)
    assert value.std() / np.sqrt(200) < 0.002


def simulate(arm, models, replications, n=100):
    """Interval, value of every replication, and their values if targets were independent; examples stay the same."""
    rng = np.random.default_rng(5)
    centre, own, spread = rng.normal(1, 2, n), rng.exponential(1.0, n), 0.6 + 0.8 * rng.random(n)
    found = []
    for seed in range(replications):
        rng = np.random.default_rng(seed)
        member = draw_membership(arm, range(models), n, seed=seed)
        phi = centre + own * member + spread * rng.normal(size=member.shape) + 0.3 * rng.normal(size=(models, 1))

        def score(chosen, phi=phi, member=member):
            phi, member = phi[chosen], member[chosen]
            scores = lira_online(phi, member, fit_shadow_prior([(phi, member)]))
            return soft_attack_success(scores, member, arm.keep)

        halves = [score(np.arange(models) // arm.models_per_block % 2 == part)["value"] for part in (0, 1)]
        plain = score(np.arange(models))
        table = widen_by_halves(plain, abs(halves[0] - halves[1]))
        found.append([table["value"], table["lo"], table["hi"], plain["se"]])
    return np.array(found).transpose(1, 0, 2)


@pytest.mark.parametrize(
    ("arm", "models"),
    [
        (Arm(design="exact", block=8), 16),
        (Arm(design="iid", keep=0.7), 32),
        pytest.param(Arm(design="iid", keep=0.7), 64, marks=pytest.mark.slow),
        pytest.param(Arm(design="exact", block=16), 64, marks=pytest.mark.slow),
        pytest.param(Arm(design="iid"), 128, marks=pytest.mark.slow),
    ],
)
def test_the_interval_covers_the_mean_over_banks(arm, models):
    """200 replications x 100 examples; targets taken for independent cover some .73 at keep 0.5."""
    value, lo, hi, plain = simulate(arm, models, 200)
    mean = value.mean(0)
    coverage = ((lo <= mean) & (mean <= hi)).mean()
    assert 0.92 <= coverage <= 0.99
    central = np.quantile(value, 0.975, axis=0) - np.quantile(value, 0.025, axis=0)
    assert (hi - lo).mean() <= 1.5 * central.mean()
    if arm.keep == 0.5:
        assert (abs(value - mean) <= 1.96 * plain).mean() < 0.85


def test_an_interval_stays_within_0_and_1_and_holds_its_value():
    table = soft_attack_success(np.array([[40.0, 0.1, -40.0], [35.0, 0.3, -50.0]]), np.ones((2, 3), bool), 0.5)
    widened = widen_by_halves(table, np.full(3, 0.1))
    assert (widened["lo"] <= table["value"]).all()
    assert (table["value"] <= widened["hi"]).all()
    assert (widened["lo"] >= 0).all()
    assert (widened["hi"] <= 1).all()
    unknown = widen_by_halves(table, np.full(3, np.nan))
    assert all(np.isnan(unknown[end]).all() for end in ("se", "lo", "hi"))
    assert (unknown["value"] == table["value"]).all()
