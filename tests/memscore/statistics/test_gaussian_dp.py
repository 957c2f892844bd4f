"""Conversions of Gaussian differential privacy, against integrals of the two densities."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from memscore.statistics.epsilon_bound import bound_by_rates, clopper_pearson, draw_halves
from memscore.statistics.gaussian_dp import bound_mu, delta_from_mu, epsilon_from_mu


@pytest.mark.parametrize("mu", [0.1, 1.0, 3.0])
@pytest.mark.parametrize("epsilon", [0.0, 0.5, 2.0])
def test_delta_is_the_mass_by_which_one_density_exceeds_the_other(mu, epsilon):
    above, _ = quad(
        lambda x: max(0.0, norm.pdf(x, mu) - np.exp(epsilon) * norm.pdf(x)), -10, 15, points=[mu, epsilon / mu]
    )
    assert delta_from_mu(mu, epsilon) == pytest.approx(above, abs=1e-7)


@pytest.mark.parametrize("mu", [1e-3, 0.2, 1.0, 5.0, 30.0])
@pytest.mark.parametrize("delta", [1e-15, 1e-5, 1e-4])
def test_epsilon_and_delta_are_inverse(mu, delta):
    assert delta_from_mu(mu, epsilon_from_mu(mu, delta)) == pytest.approx(delta, rel=1e-4)


def test_a_delta_that_covers_all_needs_no_epsilon_and_0_none_at_all():
    assert epsilon_from_mu(0.1, 0.05) == 0.0
    assert delta_from_mu(0.1, 0.0) < 0.05
    assert epsilon_from_mu(0.0, 0.0) == 0.0
    assert epsilon_from_mu(0.1, 0.0) == np.inf


def test_any_threshold_on_two_normals_gives_their_distance():
    cuts = np.linspace(-2, 4, 7)
    np.testing.assert_allclose(bound_mu(norm.sf(cuts, 1.5), norm.sf(cuts)), 1.5)


def test_trap_the_amount_of_a_negative_mu_is_no_evidence():
    """Bug (google-deepmind/jax_privacy pull request 270): |mu| from the ends of null scores, far above 0.

    Of 200 nulls at most 10 may have a mu above 0; 19 or more are bad luck with probability .005.
    """
    rng = np.random.default_rng(0)
    member, n, bug, ours = np.arange(200) < 100, np.array(100), [], []
    for _ in range(200):
        scores = rng.normal(size=200)
        cut = np.median(scores)
        tp, fp = ((scores[side] > cut).sum() for side in (member, ~member))
        bug.append(abs(bound_mu(clopper_pearson(tp, n, 0.025)[0], clopper_pearson(fp, n, 0.025)[1])) > 0.1)
        ours.append(bound_by_rates(scores, member, draw_halves(member, rng), 0.95, bound_mu).value > 0)
    assert np.mean(bug) > 0.9
    assert np.sum(ours) < 19
