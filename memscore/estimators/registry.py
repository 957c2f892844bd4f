"""The statistics that every bank gets."""

from collections.abc import Collection

from memscore.estimators.cscore import CSCORE
from memscore.estimators.memorization import MEMORIZATION, MEMORIZATION_PROBABILITY, MEMORIZATION_PROBIT
from memscore.estimators.statistic import Statistic

STATISTICS: dict[str, Statistic] = {
    "memorization": MEMORIZATION,
    "cscore": CSCORE,
    "memorization_probability": MEMORIZATION_PROBABILITY,
    "memorization_probit": MEMORIZATION_PROBIT,
}
"""Statistics by the stem of their score's name. Each is computed from all models, with its errors, and from halves of
the models, for its reliability; in an orthogonal design also from each block, for its error between blocks."""


def select_statistics(columns: Collection[str]) -> dict[str, Statistic]:
    """Select the statistics whose signal is among these shard columns; an imported bank may not have all."""
    return {name: statistic for name, statistic in STATISTICS.items() if statistic.signal in columns}
