"""Claim: the lower bounds on privacy loss are above the truth in at most 5 % of audits, and this is how high they are.

    python -m benchmarks.epsilon_bounds [--runs 400] [--quick]

Mechanisms whose privacy loss is known are audited: scores of n examples, half of them members. "before" is the bound
of one threshold at delta 0, which the audit had alone; the others are those of memscore/statistics/privacy_bounds.py,
each with the halves drawn once. Epsilon is compared at the run's delta, mu with the least one that covers the
mechanism. The membership of `fixed` is a fixed number of members, of `few` it is 20 %; else each is a fair coin.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tyro
from scipy.special import expit, ndtri

from benchmarks.results_file import save
from memscore.statistics.epsilon_bound import epsilon_lower_bound
from memscore.statistics.gaussian_dp import epsilon_from_mu
from memscore.statistics.privacy_bounds import PARAMETERS, bound_privacy

SIZES = (100, 400, 1200, 2500)
DELTAS = (0.0, 1e-3)
Draw = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Mechanism:
    """Scores whose privacy loss is known.

    Attributes:
        draw: scores [n] from membership [n].
        epsilon: truth at a delta; infinite where none covers it.
        mu: of the least Gaussian trade-off function that covers it.
        share: of members; None for fair coins, else their number is fixed.
        independent: examples are, which bounds by two rates assume.
    """

    draw: Draw
    epsilon: Callable[[float], float]
    mu: float
    share: float | None = None
    independent: bool = True


def respond(epsilon: float) -> Draw:
    """Randomized response: the truth with odds e^epsilon."""
    return lambda y, rng: np.where(rng.random(len(y)) < expit(epsilon), y, ~y) * 1.0


def respond_in_fixed_numbers(epsilon: float) -> Draw:
    """Randomized response, of which exactly half are turned into "member": answers depend on all examples."""

    def draw(y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        answers = respond(epsilon)(y, rng) + 1e-6 * rng.random(len(y))
        return (answers >= np.median(answers)) * 1.0

    return draw


def respond_or_not(epsilon: float) -> Draw:
    """Randomized response for all examples with probability 1/2, else nothing: all depend on one coin."""
    return lambda y, rng: respond(epsilon)(y, rng) if rng.random() < 0.5 else rng.normal(size=len(y))


def pure(epsilon: float) -> Callable[[float], float]:
    """Truth at a delta of randomized response: of the larger probability, delta may be ignored."""
    return lambda delta: max(0.0, float(np.log(expit(epsilon) - delta) - np.log(expit(-epsilon))))


def laplace_mu(epsilon: float) -> float:
    """The largest mu over the trade-off curve of Laplace noise of scale 1 / epsilon on 0 or 1."""
    cuts = np.linspace(-1, 2, 3001)  # beyond 0 and 1 both rates shrink alike
    true, false = (np.where(z > 0, np.exp(-np.abs(z)) / 2, 1 - np.exp(-np.abs(z)) / 2) for z in
                   (epsilon * (cuts - 1), epsilon * cuts))  # fmt: skip
    return float((ndtri(true) - ndtri(false)).max())


def response_mu(epsilon: float) -> float:
    """Compute the mu whose curve touches randomized response's at its corner."""
    return float(2 * ndtri(expit(epsilon)))


def build_mechanisms() -> dict[str, Mechanism]:
    """Build every mechanism by name."""
    found = {
        f"gaussian {mu:g}": Mechanism(
            draw=lambda y, rng, mu=mu: mu * y + rng.normal(size=len(y)),
            epsilon=lambda delta, mu=mu: epsilon_from_mu(mu, delta), mu=mu,
        )
        for mu in (0.0, 0.5, 1.0, 2.0)
    }  # fmt: skip
    for e in (0.5, 2.0):
        found[f"response {e:g}"] = Mechanism(draw=respond(e), epsilon=pure(e), mu=response_mu(e))
    for e in (1.0, 3.0):
        found[f"laplace {e:g}"] = Mechanism(
            draw=lambda y, rng, e=e: y + rng.laplace(0, 1 / e, len(y)),
            epsilon=lambda delta, e=e: max(0.0, e + 2 * np.log1p(-delta)), mu=laplace_mu(e),
        )  # fmt: skip
    one, two = {"epsilon": pure(1.0), "mu": response_mu(1.0)}, {"epsilon": pure(2.0), "mu": response_mu(2.0)}
    return found | {
        "fixed answers 1": Mechanism(draw=respond_in_fixed_numbers(1.0), independent=False, **one),
        "all or none 2": Mechanism(draw=respond_or_not(2.0), independent=False, **two),
        "fixed members, response 1": Mechanism(draw=respond(1.0), share=0.5, **one),
        "fixed members and answers 1": Mechanism(
            draw=respond_in_fixed_numbers(1.0), share=0.5, independent=False, **one
        ),
        "few members, response 2": Mechanism(draw=respond(2.0), share=0.2, **two),
        "few members, null": Mechanism(
            draw=lambda y, rng: rng.normal(size=len(y)), epsilon=lambda delta: 0.0, mu=0.0, share=0.2
        ),
        "members lower, response 2": Mechanism(draw=lambda y, rng: -respond(2.0)(y, rng), **two),
    }


def draw_members(n: int, share: float | None, rng: np.random.Generator) -> np.ndarray:
    """Draw membership: fair coins, or a fixed number."""
    return rng.random(n) < 0.5 if share is None else rng.permutation(n) < share * n


def audit(mechanism: Mechanism, n: int, delta: float, rng: np.random.Generator) -> dict[str, float]:
    """Draw scores once and bound the privacy loss by each method, and as before."""
    member = draw_members(n, mechanism.share, rng)
    scores = mechanism.draw(member, rng)
    bounds = bound_privacy(scores, member, [rng], delta=delta)
    before = epsilon_lower_bound(scores, member, rng).value
    return {"before": before, **{bound.method: bound.value for bound in bounds}}


def count_above(mechanism: Mechanism, values: dict[str, np.ndarray], delta: float) -> dict[str, float]:
    """Compute for each method the share of bounds above the truth."""
    truths = {"epsilon": mechanism.epsilon(delta), "mu": mechanism.mu}
    truth = {"before": mechanism.epsilon(0.0)} | {key: truths[value] for key, value in PARAMETERS.items()}
    return {key: float(np.mean(value > truth[key] + 1e-9)) for key, value in values.items()}


def main(runs: int = 400, quick: bool = False) -> None:
    """Measure.

    Args:
        runs: audits of each mechanism, size and delta.
        quick: a tiny run; its numbers mean nothing and are only printed.
    """
    cells: list[dict[str, Any]] = []
    for name, mechanism in build_mechanisms().items():
        for n in SIZES[:1] if quick else SIZES:
            for delta in DELTAS:
                found = [audit(mechanism, n, delta, np.random.default_rng((run, n))) for run in range(runs)]
                values = {key: np.array([each[key] for each in found]) for key in found[0]}
                cells.append({
                    "mechanism": name, "n": n, "delta": delta, "runs": runs,
                    "truth": {"epsilon": mechanism.epsilon(delta), "mu": mechanism.mu},
                    "above": count_above(mechanism, values, delta),
                    "median": {key: float(np.median(value)) for key, value in values.items()},
                    "quartiles": {key: np.quantile(value, (0.25, 0.75)).tolist() for key, value in values.items()},
                })  # fmt: skip
                print(name, n, delta, {key: round(value, 3) for key, value in cells[-1]["above"].items()},
                      {key: round(value, 2) for key, value in cells[-1]["median"].items()}, flush=True)  # fmt: skip
    if not quick:
        for cell in cells:  # JSON has no infinity
            cell["truth"] = {key: value if np.isfinite(value) else None for key, value in cell["truth"].items()}
        save("epsilon_bounds", {"what": "bounds at known privacy loss", "cells": cells}, quiet=True)


if __name__ == "__main__":
    tyro.cli(main)
