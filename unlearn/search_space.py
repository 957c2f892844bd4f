"""Search spaces of hyper-parameters: one domain per parameter.

Domains are plain data beside each algorithm's config. Values are drawn here; cluster.search passes domains to Optuna.
`source` says which papers the range comes from.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, kw_only=True)
class LogUniform:
    """A positive number whose logarithm is uniform in [low, high]."""

    low: float
    high: float
    source: str

    def draw(self, rng: np.random.Generator) -> float:
        """Draw one value."""
        return float(np.exp(rng.uniform(np.log(self.low), np.log(self.high))))


@dataclass(frozen=True, kw_only=True)
class Uniform:
    """A number in [low, high]."""

    low: float
    high: float
    source: str

    def draw(self, rng: np.random.Generator) -> float:
        """Draw one value."""
        return float(rng.uniform(self.low, self.high))


@dataclass(frozen=True, kw_only=True)
class Integer:
    """An integer from low to high, both included."""

    low: int
    high: int
    source: str

    def draw(self, rng: np.random.Generator) -> int:
        """Draw one value."""
        return int(rng.integers(self.low, self.high + 1))


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One of a few values, all equally likely."""

    values: tuple[Any, ...]
    source: str

    def draw(self, rng: np.random.Generator) -> Any:
        """Draw one value."""
        # By index: rng.choice would return NumPy's types, as numpy.str_ for a string.
        return self.values[int(rng.integers(len(self.values)))]


Domain = LogUniform | Uniform | Integer | Choice


def is_at_boundary(domain: Domain, value: Any, within: float = 0.05) -> bool:
    """Return whether a chosen value lies so near an end of its domain that the domain should be widened.

    `within` is the share of the domain's length (of its logarithm's for LogUniform) that counts as an end; a Choice has
    no ends.

    >>> is_at_boundary(LogUniform(low=1e-4, high=1e-1, source=""), 0.09)
    True
    """
    if isinstance(domain, Choice):
        return False
    # The ends themselves, whatever `within` is.
    if isinstance(domain, Integer):
        return value in {domain.low, domain.high}
    low, high = domain.low, domain.high
    if isinstance(domain, LogUniform):
        low, high, value = (float(np.log(number)) for number in (low, high, value))
    return bool(min(value - low, high - value) < within * (high - low))
