"""Configurations of a search that refines: a design over the whole space first, then points where more is expected.

    design       the papers' values, and points of an additive recurrence x_i = u + i (g^-1, ..., g^-d) mod 1 from a
                 random start u, g the root of g^(d+1) = g + 1 (Roberts 2018): spread evenly however many there are, so
                 that a narrow optimum is not far from the nearest, and a larger budget goes on where a smaller ended
    refinement   the candidate x with the largest expected improvement E[max(f(x) - max_i y_i, 0)] under a Gaussian
                 process through the results y_i (Jones et al. 1998)

Where all results are alike, as where every rate so far was too small to change anything, the largest rates come next:
an expected improvement would follow noise there.

The process has a fixed length scale, a quarter of each parameter's range (of its logarithm where the domain is one),
since a handful of results cannot fit one. Every draw depends on the seed, the name of the stream and the number of the
draw alone: a search that continues proposes what one that was not interrupted would have.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import norm
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern

from memscore.seeds import generator
from unlearn.search_space import Choice, Domain, Integer, LogUniform

LENGTH_SCALE = 0.25
"""Distance, in shares of a parameter's range, over which the process expects results to be alike."""
NOISE = 0.1
"""Standard deviation of a result's error, in standard deviations of the results."""
FLAT = 0.02
"""Range of results below which they tell nothing apart: of ToW and of the oracle-free objective alike."""
LEAST_SPREAD = 0.05
"""Least standard deviation that the process assumes of results, so that it does not take noise for a trend."""
N_CANDIDATES = 256
LOCAL_SCALES = (0.1, 0.03)
"""Standard deviations of the candidates around the best result, in shares of a parameter's range."""

Values = dict[str, Any]


def count_design(parameters: int) -> int:
    """Count the configurations of the design, the defaults included; the rest of a budget refines.

    >>> [count_design(parameters) for parameters in (1, 2, 3)]
    [4, 4, 5]
    """
    return max(4, parameters + 2)


def draw_design(space: Mapping[str, Domain], n: int, seed: int, stream: str) -> list[Values]:
    """Draw n configurations that are spread over the whole space; the first of them are those of a smaller n."""
    if n < 1 or not space:
        return []
    points = draw_recurrence(n, len(space), generator(seed, "search-design", stream))
    return [from_unit(space, point) for point in points]


def draw_recurrence(n: int, dimensions: int, rng: np.random.Generator) -> np.ndarray:
    """Draw n points of an additive recurrence in the unit cube, from a random start; float [n, dimensions]."""
    # The fixed point of g = (1 + g)^(1 / (d + 1)): the golden ratio for one dimension.
    root = 2.0
    for _ in range(60):
        root = (1 + root) ** (1 / (dimensions + 1))
    steps = root ** -np.arange(1.0, dimensions + 1)
    points: np.ndarray = (rng.random(dimensions) + np.arange(n)[:, None] * steps) % 1
    return points


def propose(
    space: Mapping[str, Domain], results: Sequence[tuple[Values, float]], seed: int, stream: str
) -> Values | None:
    """Propose the next configuration of a search; None where every value of a finite space has a result.

    `results` are configurations with their objectives, higher is better; one that is not finite counts as the lowest.
    """
    # The number of results is part of the seed, so that a search that continues goes on with the draw it stopped at.
    rng = generator(seed, "search-refinement", stream, len(results))
    tried = {repr(values) for values, _ in results}
    points = [from_unit(space, point) for point in draw_candidates(space, results, rng)]
    candidates = [values for values in points if repr(values) not in tried]
    if not candidates:
        return None
    finite = [objective for _, objective in results if np.isfinite(objective)]
    if not finite:
        return candidates[0]
    strongest = push_to_upper_ends(space, results[0][0])
    if max(finite) - min(finite) < FLAT and repr(strongest) not in tried:
        return strongest
    objectives = np.array([objective if np.isfinite(objective) else min(finite) for _, objective in results])
    # The process expects results of mean 0 and variance 1, and returns to that mean far from all of them.
    objectives = (objectives - objectives.mean()) / max(objectives.std(), LEAST_SPREAD)
    process = GaussianProcessRegressor(Matern(LENGTH_SCALE, nu=2.5), alpha=NOISE**2, optimizer=None)
    process.fit(np.array([encode(space, values) for values, _ in results]), objectives)
    mean, sd = process.predict(np.array([encode(space, values) for values in candidates]), return_std=True)
    # Of a normal prediction above the best result; beside a result its spread is nearly 0, which would divide.
    gain = mean - objectives.max()
    sd = np.maximum(sd, 1e-9)
    expected_improvement = gain * norm.cdf(gain / sd) + sd * norm.pdf(gain / sd)
    return candidates[int(np.argmax(expected_improvement))]


def push_to_upper_ends(space: Mapping[str, Domain], values: Values) -> Values:
    """Return the values with every rate and strength, which have logarithmic domains, at its upper end."""
    return {
        name: float(domain.high) if isinstance(domain, LogUniform) else values[name] for name, domain in space.items()
    }


def draw_candidates(
    space: Mapping[str, Domain], results: Sequence[tuple[Values, float]], rng: np.random.Generator
) -> np.ndarray:
    """Draw points of the unit cube: evenly spread ones, and normal draws around the best result."""
    # Everywhere, since the optimum may be where nothing was tried, and close to the best, where it is most often.
    points = [draw_recurrence(N_CANDIDATES, len(space), rng)]
    finite = [(objective, values) for values, objective in results if np.isfinite(objective)]
    if finite:
        center = to_unit(space, max(finite, key=lambda pair: pair[0])[1])
        points += [
            np.clip(center + scale * rng.normal(size=(N_CANDIDATES // 4, len(space))), 0, 1 - 1e-9)
            for scale in LOCAL_SCALES
        ]
    return np.concatenate(points)


def from_unit(space: Mapping[str, Domain], point: np.ndarray) -> Values:
    """Convert a point of the unit cube to values."""
    return {
        name: _convert_from_unit(domain, float(share))
        for (name, domain), share in zip(space.items(), point, strict=True)
    }


def to_unit(space: Mapping[str, Domain], values: Values) -> np.ndarray:
    """Convert values to a point of the unit cube; a value outside of its domain to the nearest end."""
    return np.array([_convert_to_unit(domain, values[name]) for name, domain in space.items()])


def encode(space: Mapping[str, Domain], values: Values) -> list[float]:
    """Encode values for the process: shares of the ranges; a choice as one number for each of its values."""
    encoded: list[float] = []
    for name, domain in space.items():
        if isinstance(domain, Choice):
            # Two different values are as far apart as one and a half length scales.
            encoded += [1.5 * LENGTH_SCALE / np.sqrt(2) * (values[name] == value) for value in domain.values]
        else:
            encoded.append(_convert_to_unit(domain, values[name]))
    return encoded


def _convert_from_unit(domain: Domain, share: float) -> Any:
    if isinstance(domain, Choice):
        return domain.values[min(int(share * len(domain.values)), len(domain.values) - 1)]
    if isinstance(domain, Integer):
        # Every integer has an equal share of [0, 1).
        return min(domain.low + int(share * (domain.high - domain.low + 1)), domain.high)
    if isinstance(domain, LogUniform):
        return float(np.exp(np.log(domain.low) + share * np.log(domain.high / domain.low)))
    return float(domain.low + share * (domain.high - domain.low))


def _convert_to_unit(domain: Domain, value: Any) -> float:
    if isinstance(domain, Choice):
        return (domain.values.index(value) + 0.5) / len(domain.values) if value in domain.values else 0.5
    if isinstance(domain, Integer):
        share = (value - domain.low + 0.5) / (domain.high - domain.low + 1)
    elif isinstance(domain, LogUniform):
        share = np.log(value / domain.low) / np.log(domain.high / domain.low) if value > 0 else 0.0
    else:
        share = (value - domain.low) / (domain.high - domain.low) if domain.high > domain.low else 0.5
    return float(np.clip(share, 0, 1))
