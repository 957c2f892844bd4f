"""What a second oracle would get: whether a forget set can tell algorithms apart at all.

The oracles of the other originals are retrained without the same examples under other seeds, which is the best that any
algorithm can do. Where they come no nearer to an original's own oracle than its theta_o does, doing nothing is as good
as retraining, and so is anything in between.

    ToW(theta_r,j; theta_r,i)   of all pairs i, j of originals, from the accuracies in the oracles' rows
    s = its mean - mean_i ToW(theta_o,i; theta_r,i)

Each oracle is in many pairs, so the interval of s is Tukey's jackknife over originals (Arvesen 1969, for U-statistics).
A set cannot tell algorithms apart if that interval is not above 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from memscore.statistics.means import MeanEstimate, estimate_mean
from memscore.units import format_count
from unlearn.trials.config import ORACLE, Row

FEWEST = 3
"""Minimum number of originals: leaving one out must leave a pair."""
FACTORS = ("forget_accuracy", "retain_accuracy", "accuracy_test")
"""Columns whose distances make ToW on test."""
COLUMN = "tow_test_second_oracle"
"""Column of judged rows: mean ToW of the other oracles, against that of the row's original."""


@dataclass(frozen=True, kw_only=True)
class SecondOracle:
    """ToW of oracles against each other, and how far it is above that of doing nothing.

    Attributes:
        tow: of pairs of oracles.
        above_original: the same less the ToW of theta_o.
        tells_apart: whether that is above 0; None for fewer than three originals.
    """

    tow: MeanEstimate
    above_original: MeanEstimate
    tells_apart: bool | None


def select_references(rows: Sequence[Row], name: str) -> list[Row]:
    """Select the rows of the oracle or of theta_o itself: in a sweep a plan may end with doing nothing too."""
    return [row for row in rows if row.get("contender", row.get("algorithm")) == name and not row.get("select")]


def compute_pairs(rows: Sequence[Row]) -> dict[int, float]:
    """Compute for each original the mean ToW of the other originals' oracles against its own: index -> ToW.

    `rows` are those of the oracles; nothing where there is only one.
    """
    # all that ToW reads is in the rows, so no model is read again
    accuracies = {int(row["index"]): np.array([float(row[column]) for column in FACTORS]) for row in rows}
    return {
        index: float(np.mean([np.prod(1 - np.abs(other - own)) for i, other in accuracies.items() if i != index]))
        for index, own in accuracies.items()
        if len(accuracies) > 1
    }


def compare_second_oracle(rows: Sequence[Row]) -> SecondOracle:
    """Compare the oracles of several originals with each other and with doing nothing, on one forget set.

    `rows` are those of trials, or judged rows of a sweep. Returns estimates over originals; NaN for fewer than three,
    where `tells_apart` is None.
    """
    pairs = compute_pairs(select_references(rows, ORACLE))
    original = {int(row["index"]): float(row["tow_test"]) for row in select_references(rows, "original")}
    # in one order, so that both sides of each difference are of one original
    indices, n = sorted(pairs), len(pairs)
    if n < FEWEST or not original.keys() >= pairs.keys():
        undefined = estimate_mean([])
        return SecondOracle(tow=undefined, above_original=undefined, tells_apart=None)
    means = np.array([pairs[index] for index in indices])
    # n U - (n - 1) U without original i, where U is the mean of all pairs; their mean is U.
    pseudo_values = (2 * (n - 1) * means - n * means.mean()) / (n - 2)
    # a mean over originals is its own jackknife: its pseudo-values are its terms
    nothing = np.array([original[index] for index in indices])
    above = estimate_mean((pseudo_values - nothing).tolist())
    return SecondOracle(tow=estimate_mean(pseudo_values.tolist()), above_original=above, tells_apart=above.lo > 0)


def add_second_oracle(rows: Sequence[Row]) -> list[Row]:
    """Add COLUMN to judged rows of one forget set, NaN where it is undefined."""
    pairs = compute_pairs(select_references(rows, ORACLE))
    # A step within a sequence is compared with the oracle of what is forgotten so far, which is another one.
    return [
        row | {COLUMN: pairs.get(int(row["index"]), np.nan) if row["level"] in {0, row["levels"]} else np.nan}
        for row in rows
    ]


def describe_second_oracle(rows: Sequence[Row]) -> list[str]:
    """Describe in a line whether a forget set can tell algorithms apart; nothing for fewer than three originals."""
    found = compare_second_oracle(rows)
    if found.tells_apart is None:
        return []
    tow, above = found.tow, found.above_original
    numbers = (
        f"doing nothing has a tow_test of {tow.value - above.value:.3f}, a second oracle {tow.value:.3f}, "
        f"{above.value:+.3f} [{above.lo:+.3f}, {above.hi:+.3f}] above it"
    )
    if found.tells_apart:
        return [numbers]
    n = format_count(len(select_references(rows, ORACLE)), "original")
    return [
        f"this forget set is unable to tell algorithms apart with {n}: {numbers}, so what retraining changes is within "
        "the spread of oracles; forget more, or what is more memorized"
    ]
