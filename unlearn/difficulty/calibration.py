"""Choose the learning rate of an algorithm for single examples: the smallest at which most decisions flip.

INST's rates are for ResNet-18 on three data sets. With a rate that is far too small no decision flips in 20 steps, and
with one that is far too large all do in the first: the number of steps then says nothing. The rate is chosen on other
examples and another original than are reported.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from memscore.units import format_count
from unlearn.difficulty.single_unlearning import METHODS

GRID = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
"""Rates that are tried, as multiples of the paper's."""
ENOUGH = 0.8
"""Share of examples whose decision flips."""


def list_rates(algorithm: str) -> list[float]:
    """List the rates that are tried, rising."""
    return [float(f"{METHODS[algorithm].paper_lr * factor:.1e}") for factor in GRID]


def choose_rate(shares: Mapping[float, float]) -> float:
    """Choose the smallest rate at which enough decisions flip; the smallest of those with the most where none does."""
    enough = [rate for rate in sorted(shares) if shares[rate] >= ENOUGH]
    return enough[0] if enough else max(sorted(shares), key=lambda rate: shares[rate])


def compute_shares(flipped: Mapping[float, Sequence[bool]]) -> dict[float, float]:
    """Compute the share of flipped decisions at each rate."""
    return {rate: float(np.mean(values)) for rate, values in flipped.items()}


def describe_choice(algorithm: str, shares: Mapping[float, float], n: int) -> str:
    """Describe what was chosen, and that it does not do enough where that is so."""
    rate = choose_rate(shares)
    line = (
        f"{algorithm}: lr {rate:g}, at which the decision flips on {shares[rate]:.0%} of {format_count(n, 'example')}"
    )
    if shares[rate] < ENOUGH:
        return (
            f"{line} that are not reported, the most of {len(shares)} rates: this algorithm hardly unlearns one example"
        )
    return f"{line} that are not reported, the smallest of {len(shares)} rates with {ENOUGH:.0%} or more"
