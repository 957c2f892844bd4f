"""Comparisons of judged trials, paired by original: the same theta_o and theta_r under both."""

from collections.abc import Mapping, Sequence

import numpy as np

from memscore.statistics.intervals import Interval
from unlearn.trials.config import Row
from unlearn.trials.tables import over_seeds


def by_index(rows: Sequence[Row], column: str) -> dict[int, float]:
    """A column's value for each original; the mean where one original has several rows, NaN where a run diverged."""
    found: dict[int, list[float]] = {}
    for row in rows:
        found.setdefault(int(row["index"]), []).append(float(row[column]))
    return {index: float(np.mean(values)) for index, values in found.items()}


def paired(ours: Sequence[Row], theirs: Sequence[Row], column: str) -> Interval:
    """How much higher a column is in one group of rows than in another.

    Args:
        ours: judged rows of one contender.
        theirs: of another.
        column: of the rows.

    Returns:
        Mean difference over the originals that both have, with a 95 % t interval; NaN where there are none.
    """
    return contrast([(1, ours), (-1, theirs)], column)


def mean_of(groups: Sequence[Sequence[Row]], others: Sequence[Sequence[Row]], column: str) -> Interval:
    """As paired, with each side the mean over several contenders of the same originals.

    Args:
        groups: rows of each contender of one side.
        others: rows of each contender of the other side.
        column: of the rows.

    Returns:
        Mean difference with a 95 % t interval over the originals that all have.
    """
    terms = [(sign / len(side), rows) for sign, side in ((1, groups), (-1, others)) for rows in side]
    return contrast(terms, column)


def contrast(terms: Sequence[tuple[float, Sequence[Row]]], column: str) -> Interval:
    """A weighted sum of what several contenders make of the same originals, as (a - b) - (c - d).

    Args:
        terms: a weight, and rows of a contender that it is given to.
        column: of the rows.

    Returns:
        Mean with a 95 % t interval over the originals that all have; NaN where there are none.
    """
    sides = [(weight, by_index(rows, column)) for weight, rows in terms]
    shared = set.intersection(*(set(found) for _, found in sides)) if sides else set()
    return over_seeds([sum(weight * found[index] for weight, found in sides) for index in sorted(shared)])


def where(rows: Sequence[Row], **wanted: object) -> list[Row]:
    """The rows whose columns have these values."""
    return [row for row in rows if all(row.get(name) == value for name, value in wanted.items())]


def last_step(rows: Sequence[Row]) -> list[Row]:
    """Rows of whole sequences, without those of their beginnings."""
    return [row for row in rows if row["level"] in {0, row["levels"]}]


def contest(rows: Sequence[Row]) -> Mapping[tuple[str, str, str], list[Row]]:
    """Judged rows by contender, variant and selection, in the order in which they come."""
    found: dict[tuple[str, str, str], list[Row]] = {}
    for row in last_step(rows):
        found.setdefault((row["contender"], row["variant"], row["select"]), []).append(row)
    return found


def shared(groups: Mapping[tuple[str, str, str], list[Row]]) -> dict[tuple[str, str, str], list[Row]]:
    """The same groups, of those originals alone that all of them have."""
    sets = [{row["index"] for row in rows} for rows in groups.values()]
    common = set.intersection(*sets) if sets else set()
    return {key: [row for row in rows if row["index"] in common] for key, rows in groups.items()}
