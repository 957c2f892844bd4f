"""Logistic regression on one feature, with the decisions of scikit-learn's LogisticRegression at its defaults.

    min_{a, b}  1/n sum_i [log(1 + exp(a x_i + b)) - y_i (a x_i + b)] + a^2 / (2 n),   call "True" where a x + b > 0

An attack fits hundreds of these on some hundred numbers, and nine tenths of their time went into scikit-learn's checks
of its arguments. This is its minimization without them: L-BFGS from 0 with its tolerances. They are loose: it stops at
a gradient of 1e-4, so that an exact minimum would decide otherwise on a few examples of a forget set, and on most where
the feature is of the order of 1e-5. So its steps are repeated here, not its problem solved better.
"""

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

SKLEARN_OPTIONS = {"maxiter": 100, "maxls": 50, "gtol": 1e-4, "ftol": 64 * np.finfo(float).eps}


def fit_logistic_regression(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Return slope a and intercept b for a finite feature, float64 [n], and bool [n] of both values."""
    n, targets = len(x), y.astype(np.float64)

    def compute_loss_and_gradient(weights: np.ndarray) -> tuple[float, np.ndarray]:
        slope, intercept = weights
        z = slope * x + intercept
        # Summed and divided as scikit-learn does: with a gap between the classes, rounding alone moves the steps.
        residuals = (expit(z) - targets) / n
        # L2 on the slope alone; scikit-learn's C = 1 weighs it by 1 / n beside the mean loss.
        loss = (np.logaddexp(0, z) - targets * z).sum() / n + slope * slope / (2 * n)
        return loss, np.array((x @ residuals + slope / n, residuals.sum()))

    fit = minimize(compute_loss_and_gradient, np.zeros(2), jac=True, method="L-BFGS-B", options=SKLEARN_OPTIONS)
    return float(fit.x[0]), float(fit.x[1])


def predict_logistic_regression(x: np.ndarray, y: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Fit to x [n] and y bool [n], and predict y of the queries, bool [q]."""
    slope, intercept = fit_logistic_regression(x, y)
    is_true: np.ndarray = slope * queries + intercept > 0
    return is_true
