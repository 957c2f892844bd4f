"""KLOM: KL divergence of margins, point by point, between unlearned models and oracles.

    KLOM(x) = KL( hist_u(x) || hist_r(x) ),   20 bins over the range of both, q at least 1e-5 where p is not 0

Georgiev et al. 2024 ("Attribute-to-delete") and the EasyDUB benchmark; their margin is the label's logit minus the
logsumexp of the others, clipped to [-100, 100]. Mean and 95th percentile over the points of a set: forgotten ones must
be forgotten, retained and unseen ones must not be harmed.

A histogram of few models is not 0 apart from another of the same distribution: one model alone in a bin costs
log(10^5 / n) / n. So the same divergence between models dealt out at random, for each point anew, stands beside it.
Differs from EasyDUB's code, which loses the largest margin of the two sides (it falls past the last bin).
"""

import numpy as np

from unlearn.measures.epsilon import permute_models
from unlearn.measures.inputs import Column, PopulationInputs

BINS, MIN_PROBABILITY, CLIP = 20, 1e-5, 100.0
BLOCK = 4096
"""Points at a time."""

STATISTICS = ("mean", "p95", "null_mean", "null_p95")
SAYS = ("mean KLOM", "95th percentile of KLOM", "mean KLOM if dealt out at random", "its 95th percentile")


def _columns(name: str, where: str) -> dict[str, Column]:
    return {
        f"{name}_{statistic}": Column(
            best="none" if "null" in statistic else "min",
            unit="nats",
            ideal="0" if "null" in statistic else f"{name}_null_{statistic}",
            description=f"{says}, {where}",
        )
        for statistic, says in zip(STATISTICS, SAYS, strict=True)
    }


COLUMNS = {
    **_columns("klom_forget", "forget set"),
    **_columns("klom_retain", "retain set"),
    "klom_n": Column(best="none", unit="models a side", ideal="100", description="models that KLOM rests on"),
}
COLUMNS_HELD_OUT = _columns("klom", "unseen data")


def klom(models: PopulationInputs) -> dict[str, float]:
    """Over the forget and the retain set."""
    return {
        **_over("klom_forget", models, models.forget),
        **_over("klom_retain", models, models.retain),
        "klom_n": float(min(len(models.unlearned), len(models.retrained))),
    }


def held_out_klom(models: PopulationInputs) -> dict[str, float]:
    """Over unseen data."""
    return _over("klom", models, models.held_out)


def _over(name: str, models: PopulationInputs, rows: np.ndarray) -> dict[str, float]:
    """Mean and 95th percentile, as measured and dealt out at random; NaN with fewer than two models or no row."""
    unlearned, retrained = (said[:, rows] for said in models.paired_confidences())
    if len(unlearned) < 2 or not len(rows):
        return {f"{name}_{statistic}": float("nan") for statistic in STATISTICS}
    found = compute_divergences(unlearned, retrained)
    null = compute_divergences(*permute_models(unlearned, retrained, models.rng("klom")))
    values = [float(value) for each in (found, null) for value in (each.mean(), np.quantile(each, 0.95))]
    return {f"{name}_{statistic}": value for statistic, value in zip(STATISTICS, values, strict=True)}


def compute_divergences(unlearned: np.ndarray, retrained: np.ndarray) -> np.ndarray:
    """KLOM of each point.

    Args:
        unlearned: float [n, X], margins.
        retrained: float [m, X].

    Returns:
        float64 [X], at least 0.
    """
    parts = []
    for start in range(0, unlearned.shape[1], BLOCK):
        sides = [np.clip(side[:, start : start + BLOCK], -CLIP, CLIP) for side in (unlearned, retrained)]
        low = np.minimum(sides[0].min(0), sides[1].min(0))
        span = np.maximum(sides[0].max(0), sides[1].max(0)) - low
        p, q = (_histograms((side - low) / np.where(span > 0, span, 1)) for side in sides)
        q = np.where(p > 0, np.maximum(q, MIN_PROBABILITY), q)
        q /= q.sum(1, keepdims=True)
        parts.append(np.where(p > 0, p * np.log(np.where(p > 0, p, 1) / np.where(q > 0, q, 1)), 0).sum(1))
    return np.concatenate(parts)


def _histograms(scaled: np.ndarray) -> np.ndarray:
    """Shares in equal bins of [0, 1], the last one closed, [X, bins], of values [n, X]."""
    n, points = scaled.shape
    at = np.minimum((scaled * BINS).astype(np.int64), BINS - 1) + BINS * np.arange(points)
    shares: np.ndarray = np.bincount(at.ravel(), minlength=BINS * points).reshape(points, BINS) / n
    return shares
