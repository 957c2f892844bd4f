"""Compare a score of the examples that two banks have in common, as of a bank and one without its most memorized.

The onion effect (Carlini et al. 2022, "The privacy onion effect"): without the examples that leak most, others leak
that did not. For each common example

    z = (second - first) / sqrt(se_first^2 + se_second^2)

and without any change 2.5 % of z are above 1.96 and as many below -1.96. Levels are those of the first bank, whose own
errors select them: of what seems least memorized the second score is higher for that reason alone, and of what seems
most memorized lower. The same holds, less, of all that stays where the removed examples were selected by the first
bank's scores; a bank without as many random examples is the comparison that is free of it.
"""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from memscore.statistics.means import MeanEstimate, estimate_mean
from memscore.store.store import Store

EDGES = (-np.inf, 0.1, 0.25, 0.5, 0.75, np.inf)
MEMORIZED = 0.5
SHARED_MODELS = 1.4
"""Variance of a mean over examples of one bank, over that of independent ones: all examples share the bank's models.
1.2 to 1.4 between banks of 32 models of digits (benchmarks/comparison_coverage.py)."""
Z_95 = 1.959964


@dataclass(frozen=True, kw_only=True)
class LevelChange:
    """What changed among the examples of one level of the first score.

    Attributes:
        name: of the level.
        examples: their number.
        first: mean score in the first bank, NaN without examples.
        second: mean score in the second bank.
        difference: of the second from the first, with its interval over examples that share models.
        rose: number whose z is above 1.96; None where no example has standard errors, as of a regression.
        fell: number whose z is below -1.96; None likewise.
    """

    name: str
    examples: int
    first: float
    second: float
    difference: MeanEstimate
    rose: int | None
    fell: int | None


@dataclass(frozen=True, kw_only=True)
class BankComparison:
    """The scores of two banks on the examples that both have.

    Attributes:
        score: its name.
        only_first: training examples that only the first bank has.
        only_second: those that only the second has.
        undefined: common examples whose score is undefined in one of them.
        levels: a line for each level of the first score, then one for all.
        became: examples whose score was below MEMORIZED and is not any more.
        ceased: those the other way.
    """

    score: str
    only_first: int
    only_second: int
    undefined: int
    levels: tuple[LevelChange, ...]
    became: int
    ceased: int


def compare_banks(first: Store, second: Store, score: str) -> BankComparison:
    """Compare a memorization score that two banks have, on the training examples of the same ids.

    ValueError if one has no such score, it is of another kind, or the banks have no example in common.
    """
    ids, values, errors = zip(*(read_with_error(store, score) for store in (first, second)), strict=True)
    # By id, not by row: rows after an example that was left out have moved up.
    shared, in_first, in_second = np.intersect1d(ids[0], ids[1], return_indices=True)
    if not len(shared):
        raise ValueError(
            f"{first.folder.display_name} and {second.folder.display_name} have no training example in common; compare "
            "banks of the same data, the second one trained with --without"
        )
    x, y = values[0][in_first], values[1][in_second]
    z = (y - x) / np.hypot(errors[0][in_first], errors[1][in_second])
    defined = ~np.isnan(x) & ~np.isnan(y)
    x, y, z = x[defined], y[defined], z[defined]
    # A value on an edge is of the upper level, so that MEMORIZED itself counts as memorized in both places.
    names = (f"below {EDGES[1]:g}", *(f"{a:g} to {b:g}" for a, b in pairwise(EDGES[1:-1])))
    level = np.searchsorted(EDGES[1:-1], x, side="right")
    parts = [(name, level == number) for number, name in enumerate((*names, f"{EDGES[-2]:g} or more"))]
    return BankComparison(
        score=score,
        only_first=len(ids[0]) - len(shared),
        only_second=len(ids[1]) - len(shared),
        undefined=int((~defined).sum()),
        levels=tuple(
            summarize_change(name, x[part], y[part], z[part]) for name, part in (*parts, ("all", np.full(len(x), True)))
        ),
        became=int(((x < MEMORIZED) & (y >= MEMORIZED)).sum()),
        ceased=int(((x >= MEMORIZED) & (y < MEMORIZED)).sum()),
    )


def read_with_error(store: Store, score: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read ids, values and standard errors of a score, NaN where undefined; ValueError if it is no memorization."""
    name = store.find_score_name(score)
    if not name.startswith("memorization_"):
        known = [stored.removesuffix(".parquet") for stored in store.folder.names("scores")]
        listed = ", ".join(stored for stored in sorted(known) if stored.startswith("memorization_"))
        raise ValueError(
            f"--score {score} is no memorization, by which examples become memorized; name one of "
            f"{listed or 'those of `python -m memscore.list scores`'}"
        )
    ids, values = store.score(name)
    return ids, values, store.read_score(name)[f"{name}_se"].to_numpy(zero_copy_only=False).astype(np.float64)


def summarize_change(name: str, first: np.ndarray, second: np.ndarray, z: np.ndarray) -> LevelChange:
    """Summarize the change of some examples' scores."""
    # a regression over examples has no errors of single ones, and 0 would say that nothing changed
    has_examples, has_errors = bool(len(first)), not len(z) or not np.isnan(z).all()
    return LevelChange(
        name=name,
        examples=len(first),
        first=float(first.mean()) if has_examples else float("nan"),
        second=float(second.mean()) if has_examples else float("nan"),
        difference=widen(estimate_mean((second - first).tolist()), SHARED_MODELS),
        rose=int((z > Z_95).sum()) if has_errors else None,
        fell=int((z < -Z_95).sum()) if has_errors else None,
    )


def widen(mean: MeanEstimate, factor: float) -> MeanEstimate:
    """Multiply the variance of a mean, and with it the width of its interval squared."""
    root = factor**0.5
    return replace(
        mean,
        lo=mean.value - root * (mean.value - mean.lo),
        hi=mean.value + root * (mean.hi - mean.value),
        se=root * mean.se,
    )


def list_highest(store: Store, score: str, count: int) -> list[str]:
    """List the ids of the training examples with the highest values of a score, highest first; ties by id.

    ValueError if there is no such score, or it is defined for fewer.
    """
    ids, values = store.score(score)
    defined = ~np.isnan(values)
    ids, values = ids[defined], values[defined]
    if not 0 < count <= len(ids):
        raise ValueError(
            f"--count must lie between 1 and {len(ids)}, the training examples whose {score} is defined, got {count}"
        )
    highest: list[str] = ids[np.lexsort((ids, -values))[:count]].tolist()
    return highest
