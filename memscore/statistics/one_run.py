"""Lower bounds on privacy loss from the memberships of one model: counts of right guesses in, bounds out.

Half of m examples, drawn at random, are members. An attack that sees the model, and not who is a member, guesses r of
them and v are right. How many can be right is limited although all guesses are about one model:

    (epsilon, delta)-DP     P[V >= v] <= beta + 2 m delta alpha,    W ~ Binomial(r, e^epsilon / (1 + e^epsilon)),
                            beta = P[W >= v],  alpha = max over i = 1..v of P[v > W >= v - i] / i
    f-DP                    r_j <= 1 - f(h_(j-1)),  r_j = sum over i >= j of i/m P[V = i],  h_j = the same of (r - i)/m

The first is corollary 5.4 of Steinke, Nasr & Jagielski 2023 (NeurIPS, arXiv 2305.08846), the second theorem 3.2 and the
recursion of Mahloujifar, Melis & Chaudhuri 2024 (ICML 2025, arXiv 2410.22235). Examples need not be independent, which
Clopper & Pearson's interval assumes. A bound is the largest parameter below which all are rejected.

Differs from the paper: if all guesses are "member", or all "non-member", r and h of f-DP are of m / 2 examples. A guess
is then right for members only, whose rate satisfies f by itself; over m it would be averaged with a guess never made.
"""

from collections.abc import Callable

import numpy as np
from scipy.special import betainc, expit, ndtr, ndtri

STEPS = 32  # halvings of a bracket: to 1e-9 of its width
Invert = Callable[[float], float]


def one_run_p_value(epsilon: float, delta: float, examples: int, guesses: int, correct: int) -> float:
    """Compute the largest probability of so many right guesses under (epsilon, delta)-differential privacy.

    Args:
        epsilon: 0 or more.
        delta: in [0, 1).
        examples: m, members and others, half each.
        guesses: r, made of these; the others are abstained from.
        correct: v, right guesses.

    Returns:
        A p-value in [0, 1].

    >>> round(one_run_p_value(0.0, 0.0, 10, 3, 3), 12)
    0.125
    """
    # P[W >= k] for k = v, v - 1, ..., 0
    k = np.arange(correct, -1, -1)
    above = np.where(k > 0, betainc(np.maximum(k, 1), guesses - k + 1, expit(epsilon)), 1.0)
    alpha = ((above[1:] - above[0]) / np.arange(1, correct + 1)).max(initial=0.0)
    return float(min(1.0, above[0] + 2 * examples * delta * alpha))


def one_run_epsilon(examples: int, guesses: int, correct: int, level: float, delta: float = 0.0) -> float:
    """Compute Steinke, Nasr & Jagielski's lower bound on epsilon.

    Args:
        examples: see one_run_p_value.
        guesses: see there.
        correct: see there.
        level: confidence of the bound.
        delta: in [0, 1).

    Returns:
        Epsilon is at least this, 0 or more.

    >>> round(one_run_epsilon(1000, 100, 75, 0.95, 1e-4), 3)
    0.673
    """
    return _find_last_rejected(lambda e: one_run_p_value(e, delta, examples, guesses, correct) < 1 - level)


def fdp_epsilon(examples: float, guesses: int, correct: int, level: float, delta: float = 0.0) -> float:
    """Compute Mahloujifar, Melis & Chaudhuri's lower bound on epsilon, of the trade-off function of (epsilon, delta).

    Args:
        examples: m; half of it if all guesses are of one kind.
        guesses: see one_run_p_value.
        correct: see there.
        level: confidence of the bound.
        delta: in [0, 1).

    Returns:
        Epsilon is at least this, 0 or more.
    """

    def rejects(epsilon: float) -> bool:
        grow = float(np.exp(epsilon))
        return _is_rejected(
            lambda y: max(0.0, (y - delta) / grow, 1 - delta - grow * (1 - y)), examples, guesses, correct, 1 - level
        )

    return _find_last_rejected(rejects)


def fdp_mu(examples: float, guesses: int, correct: int, level: float) -> float:
    """Compute Mahloujifar, Melis & Chaudhuri's lower bound on mu, of Gaussian trade-off functions.

    Args:
        examples: see fdp_epsilon.
        guesses: see there.
        correct: see there.
        level: confidence of the bound.

    Returns:
        If the training is mu-GDP (memscore/statistics/gaussian_dp.py), mu is at least this, 0 or more.
    """
    return _find_last_rejected(
        lambda mu: _is_rejected(lambda y: float(ndtr(ndtri(y) - mu)), examples, guesses, correct, 1 - level)
    )


def _is_rejected(invert: Invert, examples: float, guesses: int, correct: int, tail: float) -> bool:
    """Return whether so many right guesses have probability below `tail` under a trade-off function.

    `invert` is the inverse of x -> 1 - f(x): the least false rate that a true rate allows.
    """
    # Suppose P[V >= v] = tail. Least favourable is all of it at v itself, so r_v and h_v are known, and going down each
    # constraint forces h_i, and with it P[V = i]. r_0 + h_0 = r / m in any distribution: more is a contradiction.
    hit, miss = tail * correct / examples, tail * (guesses - correct) / examples
    for i in range(correct - 1, -1, -1):
        forced = max(miss, invert(hit))
        if forced == miss:
            return False  # from here on nothing more is forced
        hit += i / (guesses - i) * (forced - miss)
        miss = forced
        if hit + miss > guesses / examples:
            return True
    return False


def _find_last_rejected(rejects: Callable[[float], bool]) -> float:
    """Find the parameter up to which all are rejected, from below; 0 if none is."""
    if not rejects(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while rejects(high):
        low, high = high, 2 * high
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if rejects(middle) else (low, middle)
    return low
