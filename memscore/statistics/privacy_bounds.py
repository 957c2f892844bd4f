"""Lower bounds on the privacy loss of one model by several methods, from scores and true membership.

Each method chooses its attack on one half of the examples and computes its bound on the other:

    clopper-pearson    epsilon at delta, from two rates                   examples independent of one another
    one-run            epsilon at delta, from right guesses (Steinke)     examples may depend on one another
    one-run-fdp        the same, from its trade-off function              examples may depend on one another
    gdp                mu of Gaussian trade-off functions, from two rates         examples independent
    one-run-gdp        the same, from right guesses (Mahloujifar)                 examples may depend on one another

All assume that membership was drawn at random. The paper's theorem on one run is for members drawn by fair coins, one
for each example. Here members and others are brought to equal numbers first (memscore/statistics/guesses.py), so any
probability of membership, and any number fixed in advance, will do: given the numbers, it is the theorem for training
in which one example is replaced by another. Such an epsilon is at most twice that of adding or removing one.

Which examples are in which half changes a bound. The one of the first halves is the bound: it was fixed before it was
seen. The largest over many halves has as many chances to err; the median would hold with errors of half the size only.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np

from memscore.statistics.epsilon_bound import (
    Bound,
    bound_by_rates,
    compute_log_ratio,
    compute_rate_ceiling,
    draw_halves,
)
from memscore.statistics.gaussian_dp import bound_mu, epsilon_from_mu
from memscore.statistics.guesses import balance_members, choose_guesses, count_guesses
from memscore.statistics.one_run import fdp_epsilon, fdp_mu, one_run_epsilon

PARAMETERS = {
    "clopper-pearson": "epsilon",
    "one-run": "epsilon",
    "one-run-fdp": "epsilon",
    "gdp": "mu",
    "one-run-gdp": "mu",
}
"""Methods, with the parameter that each bounds."""


@dataclass(frozen=True, kw_only=True)
class PrivacyBound:
    """A lower bound by one method.

    Attributes:
        method: one of PARAMETERS.
        parameter: "epsilon" or "mu".
        value: the parameter is at least this, 0 or more; NaN where a half lacks members or others.
        epsilon: the epsilon at delta that this means; NaN at delta 0 for a mu above 0, which no epsilon covers.
        ceiling: the largest value that these numbers of examples allow, that of an attack which is right for all.
        median: of the values of all halves, these among them; NaN where they are undefined.
        lowest: see median.
        highest: see median.
        splits: how often the halves were drawn.
        level: confidence of the bound.
        delta: of epsilon.
        members: "higher" or "lower", the scores that were taken for members'.
        counts: what the value was computed from: hits, of_hits, false, of_false; or correct, guesses, examples.
    """

    method: str
    parameter: str
    value: float
    epsilon: float
    ceiling: float
    median: float
    lowest: float
    highest: float
    splits: int
    level: float
    delta: float
    members: str
    counts: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class _Evaluated:
    """One method on one pair of halves."""

    value: float
    members: str
    counts: dict[str, int]


def bound_privacy(
    scores: np.ndarray,
    member: np.ndarray,
    rngs: Sequence[np.random.Generator],
    level: float = 0.95,
    delta: float = 0.0,
) -> tuple[PrivacyBound, ...]:
    """Compute a lower bound on the privacy loss by each method.

    Args:
        scores: [n], no NaN; members may score higher or lower.
        member: bool [n], true membership.
        rngs: each draws one pair of halves; the first one's bounds are the bounds.
        level: confidence of each bound by itself.
        delta: in [0, 1).

    Returns:
        A bound for each of PARAMETERS.

    Raises:
        ValueError: a delta outside [0, 1).
    """
    validate_delta(delta)
    ceilings = _compute_ceilings(int(member.sum()), int((~member).sum()), level, delta)
    splits = [_evaluate_halves(scores, member, rng, level, delta) for rng in rngs]
    bounds = []
    for method, parameter in PARAMETERS.items():
        # halves have the same numbers of members and others however they are drawn, so all values are defined or none
        first, values = splits[0][method], np.array([split[method].value for split in splits])
        epsilon = first.value
        if parameter == "mu" and not np.isnan(first.value):
            epsilon = epsilon_from_mu(first.value, delta)
        bounds.append(PrivacyBound(
            method=method, parameter=parameter, value=first.value, epsilon=epsilon if np.isfinite(epsilon) else np.nan,
            ceiling=ceilings[method], median=float(np.median(values)), lowest=float(values.min()),
            highest=float(values.max()), splits=len(splits), level=level, delta=delta, members=first.members,
            counts=first.counts,
        ))  # fmt: skip
    return tuple(bounds)


def validate_delta(delta: float) -> None:
    """Check a delta before anything is computed.

    Args:
        delta: of (epsilon, delta)-differential privacy.

    Raises:
        ValueError: it lies outside [0, 1).
    """
    if not 0 <= delta < 1:
        raise ValueError(f"delta must lie in [0, 1), got {delta:g}; take 0, or far less than 1 over the examples")


def _build_rate_bounds(delta: float) -> dict[str, Bound]:
    """Build the methods that bound a parameter by two rates."""
    return {"clopper-pearson": partial(compute_log_ratio, delta=delta), "gdp": bound_mu}


def _build_guess_bounds(level: float, delta: float) -> dict[str, Callable[[int, int, int], float]]:
    """Build the methods that bound a parameter by examples, guesses and right guesses."""
    return {
        "one-run": partial(one_run_epsilon, level=level, delta=delta),
        "one-run-fdp": partial(fdp_epsilon, level=level, delta=delta),
        "one-run-gdp": partial(fdp_mu, level=level),
    }


def _evaluate_halves(
    scores: np.ndarray, member: np.ndarray, rng: np.random.Generator, level: float, delta: float
) -> dict[str, _Evaluated]:
    """Compute the value of each method on one pair of halves."""
    selection = draw_halves(member, rng)
    evaluated = {}
    for method, bound in _build_rate_bounds(delta).items():
        found = bound_by_rates(scores, member, selection, level, bound)
        counts = {"hits": found.hits, "of_hits": found.of_hits, "false": found.false, "of_false": found.of_false}
        evaluated[method] = _Evaluated(value=found.value, members=found.members, counts=counts)
    methods = _build_guess_bounds(level, delta)
    chosen_on, counted_on = (
        np.flatnonzero(half)[balance_members(member[half], rng)] for half in (selection, ~selection)
    )
    if not len(chosen_on) or not len(counted_on):
        nothing = {"correct": 0, "guesses": 0, "examples": 0}
        return evaluated | dict.fromkeys(methods, _Evaluated(value=np.nan, members="higher", counts=nothing))
    rule = choose_guesses(scores[chosen_on], member[chosen_on], rng, delta)
    guesses, correct = count_guesses(scores[counted_on], member[counted_on], rng, rule)
    m = len(counted_on)
    counts = {"correct": correct, "guesses": guesses, "examples": m}
    for method, bound_guesses in methods.items():
        # Steinke's theorem counts all examples; a trade-off function, guesses of one kind over their targets
        targets = m if method == "one-run" or rule.says == "both" else m // 2
        value = bound_guesses(targets, guesses, correct)
        evaluated[method] = _Evaluated(value=value, members=rule.members, counts=counts)
    return evaluated


@lru_cache(maxsize=8)
def _compute_ceilings(n_in: int, n_out: int, level: float, delta: float) -> dict[str, float]:
    """Compute the value of each method for an attack that is right for every example of the second half."""
    if min(n_in, n_out) < 2:
        return dict.fromkeys(PARAMETERS, np.nan)
    n_in, n_out = n_in - n_in // 2, n_out - n_out // 2
    m = 2 * min(n_in, n_out)
    rates = {key: compute_rate_ceiling(n_in, n_out, level, bound) for key, bound in _build_rate_bounds(delta).items()}
    return rates | {key: bound(m, m, m) for key, bound in _build_guess_bounds(level, delta).items()}
