"""The proxies that `estimate` computes: their stage, scores and requirements."""

from collections.abc import Iterable
from dataclasses import dataclass

from memscore.choices import validate_choice

INVERSION, INVERSION_GAIN = "inversion", "inversion-gain"
EVERY_EPOCH, EARLY_EPOCH, FINISHED_WEIGHTS = "after every epoch", "after an early epoch", "from the finished weights"
ALL_PROXIES, NO_PROXIES = "all", "none"
DEFAULT_PROXIES = ("holdout",)
"""What `estimate` computes where the user names no proxy: a few percent of a training, and experiments refine by it."""
MIN_HOLDOUT_VALIDATION = 2
"""Validation images of which one half can be fine-tuned on."""


@dataclass(frozen=True, kw_only=True)
class Proxy:
    """When a proxy is computed, which scores it gives, and which images it spends.

    Attributes:
        stage: EVERY_EPOCH and EARLY_EPOCH are computed during training; FINISHED_WEIGHTS needs only the stored files
            of an original.
        scores: its columns, entries of score_registry.SCORES.
        trains_on: the split whose images it trains on, besides the training set; empty for most.
    """

    stage: str
    scores: tuple[str, ...]
    trains_on: str = ""


PROXIES: dict[str, Proxy] = {
    "holdout": Proxy(stage=FINISHED_WEIGHTS, scores=("holdout",), trains_on="validation"),
    "holdout-test": Proxy(stage=FINISHED_WEIGHTS, scores=("holdout_test",), trains_on="test"),
    "curvature-sign": Proxy(stage=EVERY_EPOCH, scores=("curvature_sign",)),
    "curvature-rademacher": Proxy(stage=EVERY_EPOCH, scores=("curvature_rademacher",)),
    "aum": Proxy(stage=EVERY_EPOCH, scores=("aum",)),
    "el2n": Proxy(stage=EARLY_EPOCH, scores=("el2n",)),
    "grand": Proxy(stage=EARLY_EPOCH, scores=("grand",)),
    "centroid-distance": Proxy(stage=FINISHED_WEIGHTS, scores=("centroid_distance",)),
    INVERSION: Proxy(
        stage=FINISHED_WEIGHTS,
        scores=(
            "inversion_psnr",
            "inversion_ssim",
            "inversion_success",
            "inversion_psnr_fitted",
            "inversion_ssim_fitted",
            "inversion_retrieval",
            "inversion_percentile",
        ),
    ),
    INVERSION_GAIN: Proxy(stage=FINISHED_WEIGHTS, scores=("inversion_gain",)),
}


def select_proxies(names: Iterable[str]) -> tuple[str, ...]:
    """Select the proxies that a user names, each once, in the order of the table.

    "all" leaves out those that train on the test set, which must be named explicitly; "none" selects none.

    Returns:
        Names of PROXIES.

    Raises:
        ValueError: an unknown name, or "none" beside another.

    >>> select_proxies(["el2n", "aum"])
    ('aum', 'el2n')
    """
    selected = {validate_choice("proxy", name, (*PROXIES, ALL_PROXIES, NO_PROXIES)) for name in names}
    if NO_PROXIES in selected and len(selected) > 1:
        others = " ".join(sorted(selected - {NO_PROXIES}))
        raise ValueError(f"--proxies {NO_PROXIES} stands alone, got {others} beside it; leave one of them out")
    if ALL_PROXIES in selected:
        selected |= {name for name, proxy in PROXIES.items() if proxy.trains_on != "test"}
    return tuple(name for name in PROXIES if name in selected)


def select_training_proxies(names: Iterable[str]) -> tuple[str, ...]:
    """Select the proxies that are computed while the model trains."""
    return tuple(name for name in names if PROXIES[name].stage != FINISHED_WEIGHTS)


def require_validation_images(names: Iterable[str], validation: int) -> None:
    """Raise ValueError if a proxy fine-tunes on half of the validation images and there are fewer than two."""
    affected = [name for name in names if PROXIES[name].trains_on == "validation"]
    if affected and validation < MIN_HOLDOUT_VALIDATION:
        remaining = [name for name in names if name not in affected]
        hint = f"give the others by name (--proxies {' '.join(remaining)})" if remaining else "leave it out"
        raise ValueError(
            f"--proxies {affected[0]} fine-tunes on one half of the validation images, and this bank has {validation}; "
            f"{hint}, use a --validation above 0 (another bank), or --proxies holdout-test, which spends the test set"
        )
