"""GPUs of today: peak rates, memory, and how long a counted amount of work takes on each; imports no torch."""

import math
from dataclasses import dataclass

from memscore.choices import validate_choice
from memscore.cli.options import Maybe

UTILISATION = 0.35
"""Assumed share of a card's peak rate that training reaches, where none was measured: about what the products and the
memory traffic of a ResNet-18 of CIFAR in bfloat16 would reach, in turn and without overhead."""
H200_UTILISATION = 0.28
"""Measured on an H200: 278 TFLOP/s of a ResNet-18 with the CIFAR stem in bfloat16, compiled, two models at once
(benchmarks/results/gpu_speed.json). Other networks and precisions are assumed to reach the same share."""
LAUNCH_S = 3e-6
"""Least seconds of one operation on a GPU, replayed from a CUDA graph, which bound small networks: on the same H200 a
step of some 390 kernels took 1.06 ms with eight models at once and 2.05 ms with one."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """A GPU, by its vendor's data sheet.

    Attributes:
        label: its name in tables.
        bfloat16: peak TFLOP/s of dense products in bfloat16, summed in float32; the float32 rate where it has none.
        tf32: peak TFLOP/s of dense products in TF32; the float32 rate where it has none.
        float32: peak TFLOP/s outside tensor cores.
        memory_gb: 10^9 bytes.
        utilisation: share of the peak rate that training reaches; measured where that is not UTILISATION.
    """

    label: str
    bfloat16: float
    tf32: float
    float32: float
    memory_gb: float
    utilisation: float = UTILISATION

    def compute_seconds(self, flops: float, launches: float, precision: str) -> float:
        """Compute the seconds of some work: the longer of its products and the launches of its operations."""
        # Small networks are bound by launches, large ones by products; a roofline has no third line here.
        rate = {"bfloat16": self.bfloat16, "tf32": self.tf32}.get(precision, self.float32) * 1e12
        return max(flops / (rate * self.utilisation), launches * LAUNCH_S)


CARDS: dict[str, Card] = {
    "h200": Card(label="H200", bfloat16=989, tf32=494, float32=67, memory_gb=141, utilisation=H200_UTILISATION),
    "h100": Card(label="H100 SXM", bfloat16=989, tf32=494, float32=67, memory_gb=80),
    "a100": Card(label="A100 80 GB", bfloat16=312, tf32=156, float32=19.5, memory_gb=80),
    "l40s": Card(label="L40S", bfloat16=362, tf32=183, float32=91.6, memory_gb=48),
    "rtx4090": Card(label="RTX 4090", bfloat16=165, tf32=82.6, float32=82.6, memory_gb=24),
    "a5000": Card(label="RTX A5000", bfloat16=111, tf32=55.6, float32=27.8, memory_gb=24),
    "l4": Card(label="L4", bfloat16=121, tf32=60, float32=30.3, memory_gb=24),
    "v100": Card(label="V100 32 GB", bfloat16=15.7, tf32=15.7, float32=15.7, memory_gb=32),
    "t4": Card(label="T4", bfloat16=8.1, tf32=8.1, float32=8.1, memory_gb=16),
}
"""By the name that --gpu takes. V100 and T4 have neither TF32 nor bfloat16."""


@dataclass(frozen=True, kw_only=True)
class CardOptions:
    """What a dry run is priced for."""

    gpu: Maybe[str] = None
    """with --dry-run: the only GPU to show, h200, h100, a100, l40s, rtx4090, a5000, l4, v100 or t4 (default: all)"""
    price: Maybe[float] = None
    """with --dry-run: the price of an hour, of a GPU with --gpu, else of a core; the total is printed"""

    def __post_init__(self) -> None:
        if self.gpu is not None:
            validate_choice("GPU", self.gpu, CARDS)
        if self.price is not None and not 0 <= self.price < math.inf:
            raise ValueError(
                f"--price must be 0 or more and finite, got {self.price:g}; it is the price of an hour of a core, or "
                "with --gpu of a GPU"
            )

    def require_dry_run(self, *, dry_run: bool) -> None:
        """Raise ValueError if an option here has no effect because the run is no dry run."""
        for flag, value in (("--gpu", self.gpu), ("--price", self.price)):
            if value is not None and not dry_run:
                raise ValueError(
                    f"{flag} {value} is of a dry run, which starts nothing; add --dry-run, or leave it out"
                )

    def list_cards(self) -> list[Card]:
        """List the cards that are shown."""
        return [*CARDS.values()] if self.gpu is None else [CARDS[self.gpu]]


@dataclass(frozen=True, kw_only=True)
class DryRunOptions(CardOptions):
    """Whether a run is a dry run, and what it is priced for."""

    dry_run: bool = False
    """only print what is missing, and how much time, memory and disk it would take; nothing is trained or written"""

    def check_used(self) -> None:
        """Raise ValueError if an option here has no effect because the run is no dry run."""
        self.require_dry_run(dry_run=self.dry_run)


ALL_CARDS, NO_DRY_RUN = CardOptions(), DryRunOptions()
"""The defaults, of commands that are called from Python."""
