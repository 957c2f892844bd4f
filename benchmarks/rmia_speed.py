"""Claim: RMIA by sort and search gives the dense matrix's scores in a hundredth of its time.

    python -m benchmarks.rmia_speed [--examples 20000] [--population 10000] [--repeats 5]

One target; both from the same ratios, the ways taking turns. Seconds are wall time of this process; the memory of the
dense matrix is reckoned (8 bytes a pair and 1 for its comparison), not measured.
"""

import time
from collections.abc import Callable

import numpy as np
import tyro

from benchmarks.results_file import save, spread
from memscore.estimators.rmia import compute_share_below

GAMMA = 1.0


def main(examples: int = 20_000, population: int = 10_000, repeats: int = 5) -> None:
    """Measure.

    Args:
        examples: of the target.
        population: validation examples.
        repeats: times each way runs.
    """
    rng = np.random.default_rng(0)
    x, z = rng.gamma(2, size=examples), rng.gamma(2, size=population)
    seconds: dict[str, list[float]] = {"dense": [], "search": []}
    differ = 0
    for _ in range(repeats):
        by_matrix = timed(lambda: dense(x, z), seconds["dense"])
        by_search = timed(lambda: compute_share_below(np.sort(z), x / GAMMA), seconds["search"])
        differ = max(differ, int((by_matrix != by_search).sum()))
    save(
        "rmia_speed",
        {
            "what": f"{examples} x {population}, one target",
            **{f"{way}_s": spread(times) for way, times in seconds.items()},
            "ratio": spread([d / s for d, s in zip(seconds["dense"], seconds["search"], strict=True)]),
            "scores_that_differ": differ,
            "dense_matrix_mb": 9 * examples * population / 1e6,
        },
    )


def dense(x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Every pair, as the research code forms them."""
    wins: np.ndarray = np.outer(x, 1 / z) > GAMMA
    return wins.mean(1)


def timed(way: Callable[[], np.ndarray], seconds: list[float]) -> np.ndarray:
    """What a way returns; its seconds are appended."""
    started = time.perf_counter()
    found = way()
    seconds.append(time.perf_counter() - started)
    return found


if __name__ == "__main__":
    tyro.cli(main)
