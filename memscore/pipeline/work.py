"""Amounts of work: seconds of one CPU core, and what a GPU's time is computed from."""

from collections.abc import Iterable
from dataclasses import dataclass

from memscore.pipeline.cards import Card


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a computation takes.

    Attributes:
        core_s: seconds of one core of this machine.
        flops: floating-point operations of its matrix products and convolutions, a multiplication and an addition each.
        launches: operations on tensors, each of which a GPU launches.
    """

    core_s: float = 0.0
    flops: float = 0.0
    launches: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        """Add two amounts."""
        return Work(
            core_s=self.core_s + other.core_s,
            flops=self.flops + other.flops,
            launches=self.launches + other.launches,
        )

    def __mul__(self, factor: float) -> "Work":
        """Multiply an amount."""
        return Work(core_s=self.core_s * factor, flops=self.flops * factor, launches=self.launches * factor)

    def compute_gpu_seconds(self, card: Card, precision: str) -> float:
        """Compute how long it takes on a card, in a precision of a recipe."""
        return card.compute_seconds(self.flops, self.launches, precision)


NO_WORK = Work()


def sum_work(amounts: Iterable[Work]) -> Work:
    """Sum amounts of work."""
    return sum(amounts, start=NO_WORK)
