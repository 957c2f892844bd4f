"""Logistic regression on one feature against scikit-learn's, and its known optimum."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from unlearn.measures.logistic_regression import fit_logistic_regression, predict_logistic_regression

KINDS = {
    "losses": lambda rng, n: (rng.gamma(0.6, 1.2, n), rng.gamma(0.5, 1, n)),
    "tiny": lambda rng, n: (rng.gamma(0.6, 1.2, n) * 1e-5, rng.gamma(0.5, 1, n) * 1e-5),
    "clipped": lambda rng, n: np.clip((rng.gamma(0.6, 60, n), rng.gamma(0.5, 50, n)), 0, 100),
    "ties": lambda rng, n: rng.integers(0, 3, (2, n)).astype(float),
    "constant": lambda rng, n: np.full((2, n), 0.3),
    "separable": lambda rng, n: (rng.random(n), 2 + rng.random(n)),
    "two points": lambda rng, n: (np.zeros(n), np.full(n, 100.0)),
    "lognormal": lambda rng, n: np.clip((rng.lognormal(-3, 3, n), rng.lognormal(-2, 3, n)), 0, 100),
    "probabilities": lambda rng, n: (rng.beta(40, 1.2, n), rng.beta(3, 3, n)),
    "large": lambda rng, n: rng.normal(0, 40, (2, n)) + 50,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_decision_is_scikit_learn_s(kind):
    rng = np.random.default_rng(0)
    for n in [9, 10, 27, 90, 300] * 5 + [1800]:
        x, y = np.concatenate(KINDS[kind](rng, n)), np.arange(2 * n) < n
        order = rng.permutation(2 * n)
        x, y = x[order], y[order]
        # What was fitted, with its ties, and values drawn anew.
        queries = np.concatenate([x, *KINDS[kind](rng, 1000)])
        theirs = LogisticRegression().fit(x[:, None], y).predict(queries[:, None])
        assert np.array_equal(predict_logistic_regression(x, y, queries), theirs)


def test_the_minimum_is_where_the_gradient_vanishes():
    rng = np.random.default_rng(1)
    x, y = rng.normal(0, 1, 400), rng.random(400) < 0.4
    slope, intercept = fit_logistic_regression(x, y)
    residuals = expit(slope * x + intercept) - y
    # The gradient of the mean loss is at most the tolerance of the minimization.
    assert abs(residuals.mean()) < 1e-4
    assert abs((x @ residuals + slope) / 400) < 1e-4
    assert slope != 0
