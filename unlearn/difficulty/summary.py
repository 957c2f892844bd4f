"""From rows of single unlearnings to FP-scores, correlations and overlaps: what INST's tables are made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from memscore.statistics.correlation import spearman
from memscore.statistics.means import MeanEstimate
from unlearn.difficulty.correlations import correlate, overlap_of_hardest
from unlearn.difficulty.factors import FACTORS
from unlearn.difficulty.fp_score import compute_fp_score, compute_printed_fp_score
from unlearn.difficulty.job import ALL, BEFORE
from unlearn.difficulty.plan import to_array
from unlearn.difficulty.single_unlearning import MAX_STEPS

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Difficulty:
    """Single unlearnings as arrays; a = algorithms, o = originals, n = examples.

    Attributes:
        algorithms: their names.
        originals: their indices.
        rows: the examples, training rows.
        gt: FP-score [a, o, n], NaN where the run diverged.
        printed: the same as printed in the paper.
        factors: name -> [a, o, n]; those of before unlearning are equal for all algorithms.
        flipped: [a, o, n], 1 where the decision flipped, 0 where it did not, NaN without a row.
    """

    algorithms: tuple[str, ...]
    originals: tuple[int, ...]
    rows: tuple[int, ...]
    gt: np.ndarray
    printed: np.ndarray
    factors: dict[str, np.ndarray]
    flipped: np.ndarray


def summarize(
    found: Rows,
    algorithms: Sequence[str],
    originals: Sequence[int],
    examples: Sequence[int],
    scores: Mapping[str, np.ndarray],
) -> Difficulty:
    """Arrange rows of jobs, and scores [n] of the bank, by algorithm, original and example."""
    own = {name: [row for row in found if row["algorithm"] == name] for name in (*algorithms, BEFORE)}

    def column(name: str) -> np.ndarray:
        return np.stack([to_array(own[algorithm], name, originals, examples) for algorithm in algorithms])

    raw = {name: column(name) for name in ("p_before", "p_after", "kept", "test_p_before", "test_p_after")}
    gt, printed = (np.full(raw["kept"].shape, np.nan) for _ in range(2))
    # lambda is one number for all examples of an algorithm and an original
    for place in np.ndindex(*gt.shape[:2]):
        gt[place] = compute_fp_score(*(raw[name][place] for name in ("p_before", "p_after", "kept")))
        printed[place] = compute_printed_fp_score(
            *(raw[name][place] for name in ("p_before", "p_after", "test_p_before", "test_p_after"))
        )
    factors = {}
    for name, factor in FACTORS.items():
        # the same for every algorithm
        before = np.broadcast_to(to_array(own[BEFORE], name, originals, examples), gt.shape)
        factors[name] = before if factor.before else column(name)
    flipped = column("flipped")
    # What did not flip within the steps takes more of them, how many is not known: a rank above all others.
    factors["steps"] = np.where(flipped == 0, MAX_STEPS + 1, factors["steps"])
    factors |= {name: np.broadcast_to(np.asarray(values), gt.shape) for name, values in scores.items()}
    return Difficulty(
        algorithms=tuple(algorithms),
        originals=tuple(originals),
        rows=tuple(examples),
        gt=gt,
        printed=printed,
        factors=factors,
        flipped=flipped,
    )


def correlate_all(difficulty: Difficulty) -> dict[tuple[str, str], MeanEstimate]:
    """Correlate every factor with GT, by algorithm: INST Table 1."""
    return {
        (algorithm, name): correlate(values[a], difficulty.gt[a])
        for a, algorithm in enumerate(difficulty.algorithms)
        for name, values in difficulty.factors.items()
    }


def correlate_factors(difficulty: Difficulty, algorithm: str) -> dict[tuple[str, str], float]:
    """Correlate every factor with every other, mean over originals, for one algorithm."""
    a = difficulty.algorithms.index(algorithm)
    factors = {name: values[a] for name, values in difficulty.factors.items()}

    def mean_rho(x: np.ndarray, y: np.ndarray) -> float:
        rhos = [spearman(first, second) for first, second in zip(x, y, strict=True)]
        return float(np.nanmean(rhos)) if not np.isnan(rhos).all() else float("nan")

    return {(first, second): mean_rho(factors[first], factors[second]) for first in factors for second in factors}


def overlap_algorithms(difficulty: Difficulty) -> dict[tuple[str, str], float]:
    """Compute how far two algorithms agree on the hardest tenth, mean over originals."""
    # each pair once
    pairs = [(i, j) for i in range(len(difficulty.algorithms)) for j in range(i)]
    return {
        (difficulty.algorithms[j], difficulty.algorithms[i]): float(
            np.mean([overlap_of_hardest(x, y) for x, y in zip(difficulty.gt[i], difficulty.gt[j], strict=True)])
        )
        for i, j in pairs
    }


def share_never_flipped(difficulty: Difficulty) -> dict[str, float]:
    """Compute the share of examples whose decision did not flip within the steps, diverged runs among them."""
    return {
        algorithm: float(1 - np.nanmean(difficulty.flipped[a])) for a, algorithm in enumerate(difficulty.algorithms)
    }


def compare_samples(found: Rows) -> dict[str, float]:
    """Correlate each column over samples with the same over all examples, where both were measured."""
    # of the first examples only: all images after each of the others would take most of the time
    both = [row for row in found if not np.isnan(row.get("kept" + ALL, np.nan))]
    names = [name for name in FACTORS if both and name + ALL in both[0]] + ["kept"] * bool(both)
    return {name: spearman(*(np.array([row[name + end] for row in both]) for end in ("", ALL))) for name in names}
