"""Where a search looks for a hyper-parameter.

Plain data beside each config: values are drawn from it here, and a search library is told of it elsewhere.
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
        """One value."""
        return float(np.exp(rng.uniform(np.log(self.low), np.log(self.high))))


@dataclass(frozen=True, kw_only=True)
class Uniform:
    """A number in [low, high]."""

    low: float
    high: float
    source: str

    def draw(self, rng: np.random.Generator) -> float:
        """One value."""
        return float(rng.uniform(self.low, self.high))


@dataclass(frozen=True, kw_only=True)
class Integer:
    """A whole number from low to high, both included."""

    low: int
    high: int
    source: str

    def draw(self, rng: np.random.Generator) -> int:
        """One value."""
        return int(rng.integers(self.low, self.high + 1))


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One of a few values, each as likely."""

    values: tuple[Any, ...]
    source: str

    def draw(self, rng: np.random.Generator) -> Any:
        """One value."""
        return self.values[int(rng.integers(len(self.values)))]


Domain = LogUniform | Uniform | Integer | Choice


def is_at_boundary(space: Domain, value: Any, within: float = 0.05) -> bool:
    """Whether an optimum lies so near an end that the space should be widened.

    Args:
        space: of one hyper-parameter.
        value: the chosen one.
        within: share of the space's length (of its logarithms for Log) that counts as its end.

    Returns:
        True at either end; False for Choice, which has no ends.

    >>> is_at_boundary(Log(low=1e-4, high=1e-1, source=""), 0.09)
    True
    """
    if isinstance(space, Choice):
        return False
    if isinstance(space, Integer):
        return value in {space.low, space.high}
    low, high = space.low, space.high
    if isinstance(space, LogUniform):
        low, high, value = (float(np.log(number)) for number in (low, high, value))
    return bool(min(value - low, high - value) < within * (high - low))
