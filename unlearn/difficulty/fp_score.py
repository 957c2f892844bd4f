"""FP-score: how well one example was unlearned, INST's ground truth (its eq. 1 to 3); the lower, the harder.

    F = max(0, p_theta_o(y_f | x_f) - p_theta_u(y_f | x_f))                what was forgotten
    U = 1 - mean over the test set of max(0, p_theta_o(y | x) - p_theta_u(y | x))          what was kept
    GT = 2 lambda U F / (lambda U + F),  lambda = mean F / mean U over the instances of an algorithm and an original

The paper prints F = p_theta_u - p_theta_o, which is at most 0 where something is forgotten, and lambda = |F| / |U| of
the instance itself, with which GT is F / 2 wherever F is above 0 and is undefined elsewhere: U cancels. Here F has the
other sign, only losses count in U, lambda is one number for all instances, and the factor 2 makes it a harmonic mean.
The printed form stands beside it, NaN where it divides by zero.

U is made of the test set's probabilities, so a rank correlation of GT with a drop on the test set is built in.
"""

import numpy as np

SOURCE = "INST eq. 1 to 3, with the sign of F and lambda repaired"
PRINTED_SOURCE = "INST eq. 1 to 3 as printed: F / 2 where the probability rises, else undefined"


def compute_kept(test_before: np.ndarray, test_after: np.ndarray) -> float:
    """Compute U.

    Args:
        test_before: [N], p(y | x) of each test example by theta_o.
        test_after: [N], the same by theta_u.

    Returns:
        In [0, 1]; 1 where no probability fell.
    """
    return 1 - float(np.maximum(0, test_before - test_after).mean())


def compute_fp_score(forget_before: np.ndarray, forget_after: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Compute GT of the instances of one algorithm and one original.

    Args:
        forget_before: [n], p(y_f | x_f) of each instance by theta_o.
        forget_after: [n], by the network that unlearned it; NaN where the run diverged.
        kept: [n], U of each.

    Returns:
        [n], 0 where nothing was forgotten, at most 1 for lambda 1; NaN where the run diverged.
    """
    forgotten = np.maximum(0, forget_before - forget_after)
    defined = ~np.isnan(forgotten + kept)
    # nothing forgotten by any instance: every score is 0, whatever lambda is
    if not defined.any() or not forgotten[defined].any():
        return np.where(defined, 0.0, np.nan)
    weighted = kept * (forgotten[defined].mean() / kept[defined].mean())
    total = weighted + forgotten
    return np.where(defined, 2 * weighted * forgotten / np.where(total > 0, total, 1), np.nan)


def compute_printed_fp_score(
    forget_before: np.ndarray, forget_after: np.ndarray, test_before: np.ndarray, test_after: np.ndarray
) -> np.ndarray:
    """Compute GT as it is printed.

    Args:
        forget_before: [n], p(y_f | x_f) by theta_o.
        forget_after: [n], by theta_u.
        test_before: [n], mean p(y | x) of the test set by theta_o.
        test_after: [n], by theta_u.

    Returns:
        [n]; NaN where lambda U + F is 0.
    """
    change, kept = forget_after - forget_before, 1 - (test_after - test_before)
    with np.errstate(divide="ignore", invalid="ignore"):
        weight = np.abs(change) / np.abs(kept)
        printed = weight * kept * change / (weight * kept + change)
    return np.where(np.isfinite(printed), printed, np.nan)
