"""Which proxies `estimate` computes on the originals: when each is taken, which scores it gives, what it needs."""

from collections.abc import Iterable
from dataclasses import dataclass

from memscore.choices import pick

EVERY, EARLY, FINISHED = "after every epoch", "after an early epoch", "from the finished weights"
ALL = "all"


@dataclass(frozen=True, kw_only=True)
class Proxy:
    """One proxy.

    Attributes:
        taken: EVERY and EARLY need the training itself; FINISHED needs only what the store keeps of an original.
        scores: the columns that come of it, entries of score_fields.SOURCES.
        trains_on: the split whose images it trains on, beside the training set; empty for most.
    """

    taken: str
    scores: tuple[str, ...]
    trains_on: str = ""


PROXIES: dict[str, Proxy] = {
    "holdout": Proxy(taken=FINISHED, scores=("holdout",), trains_on="validation"),
    "holdout-test": Proxy(taken=FINISHED, scores=("holdout_test",), trains_on="test"),
    "curvature-sign": Proxy(taken=EVERY, scores=("curvature_sign",)),
    "curvature-rademacher": Proxy(taken=EVERY, scores=("curvature_rademacher",)),
    "aum": Proxy(taken=EVERY, scores=("aum",)),
    "el2n": Proxy(taken=EARLY, scores=("el2n",)),
    "grand": Proxy(taken=EARLY, scores=("grand",)),
    "centroid-distance": Proxy(taken=FINISHED, scores=("centroid_distance",)),
    "inversion": Proxy(taken=FINISHED, scores=("inversion_psnr", "inversion_ssim", "inversion_success")),
}


def chosen(names: Iterable[str]) -> tuple[str, ...]:
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
    wanted = {pick("proxy", name, (*PROXIES, ALL)) for name in names}
    if ALL in wanted:
        wanted |= {name for name, proxy in PROXIES.items() if proxy.trains_on != "test"}
    return tuple(name for name in PROXIES if name in wanted)


def in_training(names: Iterable[str]) -> tuple[str, ...]:
    """Those that are taken while the model trains."""
    return tuple(name for name in names if PROXIES[name].taken != FINISHED)


def refuse_without_validation(names: Iterable[str], validation: int) -> None:
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
