"""The entanglement score against its closed form."""

import numpy as np
import pytest

from tests.fixtures.cases import FORGET, RETAIN, make_inputs, make_outputs
from unlearn.measures.entanglement import entanglement, entanglement_score


def draw_two_gaussians(n_retain, n_forget, distance, spread, dims=5, seed=0):
    """Two sets whose means and variances are exactly these in every dimension but the first, where means differ."""
    rng, parts = np.random.default_rng(seed), []
    for count, at in ((n_retain, 0.0), (n_forget, distance)):
        part = rng.normal(size=(count, dims))
        part = (part - part.mean(0)) / part.std(0) * spread
        part[:, 0] += at
        parts.append(part)
    return parts


def closed_form_score(n_retain, n_forget, distance, spread, dims=5):
    """2 E s^2 over half of the squared distances of both means from the common one."""
    n = n_retain + n_forget
    between = (distance * n_forget / n) ** 2 + (distance * n_retain / n) ** 2
    return 2 * dims * spread**2 / (between / 2)


def score_as_released(retain, forget):
    """The bug: the common mean is the unweighted mean of the two means."""
    mean_retain, mean_forget = retain.mean(0), forget.mean(0)
    mean_all = (mean_retain + mean_forget) / 2
    within = ((retain - mean_retain) ** 2).sum(1).mean() + ((forget - mean_forget) ** 2).sum(1).mean()
    return within / (((mean_retain - mean_all) ** 2).sum() + ((mean_forget - mean_all) ** 2).sum()) * 2


@pytest.mark.parametrize(("n_retain", "n_forget", "distance", "spread"), [(700, 50, 2.0, 0.5), (30, 30, 1.0, 1.0)])
def test_two_gaussians_have_the_score_of_the_closed_form(n_retain, n_forget, distance, spread):
    parts = draw_two_gaussians(n_retain, n_forget, distance, spread)
    assert entanglement_score(*parts) == pytest.approx(
        closed_form_score(n_retain, n_forget, distance, spread), rel=1e-9
    )


def test_bug_18_the_common_mean_is_of_all_examples():
    parts = draw_two_gaussians(4200, 300, 2.0, 0.5)  # RUM's 42,000 and 3,000, a tenth of each
    truth = closed_form_score(4200, 300, 2.0, 0.5)
    assert entanglement_score(*parts) == pytest.approx(truth, rel=1e-9)
    assert score_as_released(*parts) / truth == pytest.approx(1.751, abs=1e-3)


def test_nearer_sets_are_more_entangled_and_one_point_is_a_set():
    near, far = (entanglement_score(*draw_two_gaussians(100, 20, distance, 1.0)) for distance in (0.5, 3.0))
    assert near > far
    assert entanglement_score(np.eye(4), np.ones((1, 4))) > 0


def test_sets_of_one_mean_or_no_points_have_no_score():
    both = np.array([[-1.0, 0], [1, 0]])
    assert np.isnan(entanglement_score(both, 2 * both))
    assert np.isnan(entanglement_score(both, both[:0]))


def test_it_is_taken_on_the_judged_models_embeddings_and_on_theta_os():
    embeddings = np.zeros((120, 3))
    embeddings[RETAIN], embeddings[FORGET] = draw_two_gaussians(60, 20, 4.0, 1.0, dims=3)
    right = np.ones(120, dtype=bool)
    values = entanglement(make_inputs(make_outputs(right, embeddings=embeddings)))
    assert values["entanglement"] == pytest.approx(closed_form_score(60, 20, 4.0, 1.0, dims=3), rel=1e-5)
    assert values["entanglement_original"] == entanglement(make_inputs())["entanglement"] != values["entanglement"]
