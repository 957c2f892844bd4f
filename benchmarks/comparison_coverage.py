"""Claim: the interval of the mean change between two banks covers what it says, although all examples share models.

    python -m benchmarks.comparison_coverage --folder DIR [--models 1024] [--size 32]

All examples of a bank share its models, so their errors are not independent: `bank compare` widens the interval over
examples by a factor that was found here (as "over independent examples", without it). Digits with the default MLP:
banks of `size` models are cut from one large bank, iid or of orthogonal blocks, and pairs of them, between which
nothing changed, are compared. Coverage is the share of intervals with 0 in them; rms z is that of the mean change over
its standard error, 1 where the interval is right.
"""

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks.estimator_efficiency import said_by
from benchmarks.results_file import save
from cluster.pool import SerialPool
from memscore.analysis.compare_banks import summarize_change
from memscore.estimators.memorization import memorization
from memscore.pipeline.config import BankConfig
from memscore.statistics.means import estimate_mean


def main(folder: Path, models: int = 1024, size: int = 32) -> None:
    """Measure.

    Args:
        folder: where the two banks lie or are to be made.
        models: of each.
        size: models of the banks that are compared.
    """
    designs: dict[str, dict[str, Any]] = {
        "iid": {"design": "iid", "keep": 0.5},
        "orthogonal": {"design": "orthogonal", "keep": 0.5, "clusters": "pixels", "block": size},
    }
    found = {}
    for name, design in designs.items():
        store = {"store": str(folder / name)}
        outputs = said_by(BankConfig(data="digits"), design | store, models, SerialPool())
        scores = [
            memorization(outputs["correct"][start : start + size], outputs["member"][start : start + size])
            for start in range(0, models, size)
        ]
        found[name] = compare_pairs(np.array(scores))
        print(name, found[name], flush=True)
    what = f"pairs of {models // size} banks of {size} models of digits, between which nothing changed"
    save("comparison_coverage", {"what": what, "designs": found})


def compare_pairs(scores: np.ndarray) -> dict[str, float]:
    """Compare all pairs of banks; scores are [banks, N]."""
    z, covered, unwidened = [], [], []
    for first, second in combinations(scores, 2):
        defined = ~np.isnan(first) & ~np.isnan(second)
        change = summarize_change("all", first[defined], second[defined], np.zeros(int(defined.sum()))).difference
        z.append(change.value / change.se)
        covered.append(change.lo <= 0 <= change.hi)
        independent = estimate_mean((second - first)[defined].tolist())
        unwidened.append(independent.lo <= 0 <= independent.hi)
    return {
        "pairs": len(z),
        "coverage": float(np.mean(covered)),
        "coverage_over_independent_examples": float(np.mean(unwidened)),
        "rms_z": float(np.sqrt(np.mean(np.square(z)))),
    }


if __name__ == "__main__":
    tyro.cli(main)
