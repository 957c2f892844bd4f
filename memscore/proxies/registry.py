"""Which proxies `estimate` computes on the originals: when each is taken, which scores it gives, what it needs."""

from collections.abc import Iterable
from dataclasses import dataclass

from memscore.choices import validate_choice

EVERY_EPOCH, EARLY_EPOCH, FINISHED_WEIGHTS = "after every epoch", "after an early epoch", "from the finished weights"
ALL_PROXIES = "all"


@dataclass(frozen=True, kw_only=True)
class Proxy:
    """One proxy.

    Attributes:
        stage: EVERY and EARLY need the training itself; FINISHED needs only what the store keeps of an original.
        scores: the columns that come of it, entries of score_fields.SOURCES.
        trains_on: the split whose images it trains on, beside the training set; empty for most.
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
    "inversion": Proxy(stage=FINISHED_WEIGHTS, scores=("inversion_psnr", "inversion_ssim", "inversion_success")),
}


def select_proxies(names: Iterable[str]) -> tuple[str, ...]:
    """The proxies that a user names, each once, in the order of the table.

    Args:
        names: of PROXIES, or "all": all but those that train on the test set, which must be named themselves.

    Returns:
        Names of PROXIES.

    Raises:
        ValueError: an unknown name.

    >>> chosen(["el2n", "aum"])
    ('aum', 'el2n')
    """
    wanted = {validate_choice("proxy", name, (*PROXIES, ALL_PROXIES)) for name in names}
    if ALL_PROXIES in wanted:
        wanted |= {name for name, proxy in PROXIES.items() if proxy.trains_on != "test"}
    return tuple(name for name in PROXIES if name in wanted)


def select_training_proxies(names: Iterable[str]) -> tuple[str, ...]:
    """Those that are taken while the model trains."""
    return tuple(name for name in names if PROXIES[name].stage != FINISHED_WEIGHTS)


def require_validation_images(names: Iterable[str], validation: int) -> None:
    """A proxy that fine-tunes on one half of the validation images needs two of them.

    Args:
        names: of PROXIES.
        validation: images in that split.

    Raises:
        ValueError: there are fewer than two.
    """
    needing = [name for name in names if PROXIES[name].trains_on == "validation"]
    if needing and validation < 2:
        left = [name for name in names if name not in needing]
        others = f"give the others by name (--proxies {' '.join(left)})" if left else "leave it out"
        raise ValueError(
            f"--proxies {needing[0]} fine-tunes on one half of the validation images, and this bank has {validation}; "
            f"{others}, use a --validation above 0 (another bank), or --proxies holdout-test, which spends the test set"
        )
