"""The entanglement score against its closed form."""

import numpy as np
import pytest

from tests.fixtures.cases import FORGET, RETAIN, make_inputs, make_outputs
from unlearn.measures.entanglement import entanglement, entanglement_score


def two_gaussians(kept, dropped, apart, spread, dims=5, seed=0):
    """Two sets whose means and variances are exactly these in every dimension but the first, where means differ."""
    rng, parts = np.random.default_rng(seed), []
    for count, at in ((kept, 0.0), (dropped, apart)):
        part = rng.normal(size=(count, dims))
        part = (part - part.mean(0)) / part.std(0) * spread
        part[:, 0] += at
        parts.append(part)
    return parts


def closed_form(kept, dropped, apart, spread, dims=5):
    """2 E s^2 over half of the squared distances of both means from the common one."""
    n = kept + dropped
    between = (apart * dropped / n) ** 2 + (apart * kept / n) ** 2
    return 2 * dims * spread**2 / (between / 2)


def as_released(retain, forget):
    """The bug: the common mean is the unweighted mean of the two means."""
    kept, dropped = retain.mean(0), forget.mean(0)
    middle = (kept + dropped) / 2
    within = ((retain - kept) ** 2).sum(1).mean() + ((forget - dropped) ** 2).sum(1).mean()
    return within / (((kept - middle) ** 2).sum() + ((dropped - middle) ** 2).sum()) * 2


@pytest.mark.parametrize(("kept", "dropped", "apart", "spread"), [(700, 50, 2.0, 0.5), (30, 30, 1.0, 1.0)])
def test_two_gaussians_have_the_score_of_the_closed_form(kept, dropped, apart, spread):
    parts = two_gaussians(kept, dropped, apart, spread)
    assert entanglement_score(*parts) == pytest.approx(closed_form(kept, dropped, apart, spread), rel=1e-9)


def test_bug_18_the_common_mean_is_of_all_examples():
    parts = two_gaussians(4200, 300, 2.0, 0.5)  # RUM's 42,000 and 3,000, a tenth of each
    truth = closed_form(4200, 300, 2.0, 0.5)
    assert entanglement_score(*parts) == pytest.approx(truth, rel=1e-9)
    assert as_released(*parts) / truth == pytest.approx(1.751, abs=1e-3)


def test_nearer_sets_are_more_entangled_and_one_point_is_a_set():
    near, far = (entanglement_score(*two_gaussians(100, 20, apart, 1.0)) for apart in (0.5, 3.0))
    assert near > far
    assert entanglement_score(np.eye(4), np.ones((1, 4))) > 0


def test_sets_of_one_mean_or_no_points_have_no_score():
    both = np.array([[-1.0, 0], [1, 0]])
    assert np.isnan(entanglement_score(both, 2 * both))
    assert np.isnan(entanglement_score(both, both[:0]))


def test_it_is_taken_on_the_judged_models_embeddings_and_on_theta_os():
    embeddings = np.zeros((120, 3))
    embeddings[RETAIN], embeddings[FORGET] = two_gaussians(60, 20, 4.0, 1.0, dims=3)
    right = np.ones(120, dtype=bool)
    found = entanglement(make_inputs(make_outputs(right, embeddings=embeddings)))
    assert found["entanglement"] == pytest.approx(closed_form(60, 20, 4.0, 1.0, dims=3), rel=1e-5)
    assert found["entanglement_original"] == entanglement(make_inputs())["entanglement"] != found["entanglement"]
