"""Search spaces of hyper-parameters: one domain per parameter.

Domains are plain data beside each algorithm's config. Values are drawn here; cluster.search passes domains to Optuna.
`source` says which papers the range comes from, and `paper` what they searched, where that differs: "wide" and "paper"
are the two named spaces of an algorithm.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

SpaceName = Literal["wide", "paper"]
NOT_SEARCHED = ()
"""As a domain's `paper`: no paper searches this parameter."""


@dataclass(frozen=True, kw_only=True)
class LogUniform:
    """A positive number whose logarithm is uniform in [low, high]."""

    low: float
    high: float
    source: str
    paper: tuple[float, ...] | None = None

    def draw(self, rng: np.random.Generator) -> float:
        """Draw one value."""
        return float(np.exp(rng.uniform(np.log(self.low), np.log(self.high))))


@dataclass(frozen=True, kw_only=True)
class Uniform:
    """A number in [low, high]."""

    low: float
    high: float
    source: str
    paper: tuple[float, ...] | None = None

    def draw(self, rng: np.random.Generator) -> float:
        """Draw one value."""
        return float(rng.uniform(self.low, self.high))


@dataclass(frozen=True, kw_only=True)
class Integer:
    """An integer from low to high, both included."""

    low: int
    high: int
    source: str
    paper: tuple[int, ...] | None = None

    def draw(self, rng: np.random.Generator) -> int:
        """Draw one value."""
        return int(rng.integers(self.low, self.high + 1))


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One of a few values, all equally likely."""

    values: tuple[Any, ...]
    source: str
    paper: tuple[Any, ...] | None = None

    def draw(self, rng: np.random.Generator) -> Any:
        """Draw one value."""
        # By index: rng.choice would return NumPy's types, as numpy.str_ for a string.
        return self.values[int(rng.integers(len(self.values)))]


Domain = LogUniform | Uniform | Integer | Choice


def select_space(space: Mapping[str, Domain], name: SpaceName) -> dict[str, Domain]:
    """Select the domains of a named space.

    Args:
        space: the domain of each parameter.
        name: "wide": as they stand; "paper": as the papers searched them, without what none searched.

    Returns:
        Parameter -> domain.

    >>> rate = LogUniform(low=1e-3, high=0.3, paper=(0.01, 0.1), source="")
    >>> select_space({"lr": rate, "alpha": Uniform(low=0, high=1, paper=NOT_SEARCHED, source="")}, "paper")["lr"].high
    0.1
    """
    if name == "wide":
        return dict(space)
    return {field: narrow_to_paper(domain) for field, domain in space.items() if domain.paper != NOT_SEARCHED}


def narrow_to_paper(domain: Domain) -> Domain:
    """Return the domain that the papers searched; the same where it does not differ."""
    if domain.paper is None:
        return domain
    if isinstance(domain, Choice):
        return replace(domain, values=domain.paper)
    if isinstance(domain, Integer):
        first, last = domain.paper
        return replace(domain, low=first, high=last)
    low, high = domain.paper
    return replace(domain, low=low, high=high)


AROUND = {"epochs": (0.5, 3.0), "batch": (0.25, 4.0)}
"""Range of parameters without a domain of their own, as multiples of the default."""
N_AROUND = 7


def build_domain_around(name: str, default: int) -> Choice:
    """Build the domain of the epochs or the batch: whole numbers, evenly spaced in the logarithm.

    Args:
        name: epochs or batch.
        default: the number that the data give.

    Returns:
        Its values, the default among them.

    >>> build_domain_around("epochs", 10).values, build_domain_around("batch", 32).values
    ((5, 7, 9, 10, 12, 17, 22, 30), (8, 13, 20, 32, 51, 81, 128))
    """
    low, high = AROUND[name]
    # Rounding may make two of them equal, as around a single epoch.
    numbers = np.geomspace(low, high, N_AROUND) * default
    values = tuple(sorted({max(1, round(float(number))) for number in numbers} | {default}))
    return Choice(values=values, source=f"{low:g} to {high:g} times the default")


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
