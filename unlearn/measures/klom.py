"""KLOM: KL divergence of margins between unlearned models and oracles, per example.

    KLOM(x) = KL( hist_u(x) || hist_r(x) ),   20 bins over the range of both, q at least 1e-5 where p is not 0

Georgiev et al. 2024 ("Attribute-to-delete") and the EasyDUB benchmark; their margin is the label's logit minus the
logsumexp of the others, clipped to [-100, 100]. Values are the mean and 95th percentile over a set: forgotten examples
must be forgotten, retained and unseen ones must not be harmed.

Two histograms of few models from the same distribution have a divergence above 0: one model alone in a bin adds
log(10^5 / n) / n. So a null value is reported too: the same divergence after the models are randomly permuted, for each
example separately. Differs from EasyDUB's code, which loses the largest margin (it falls past the last bin).
"""

import numpy as np

from unlearn.measures.epsilon import permute_models
from unlearn.measures.inputs import HELD_OUT_SPLITS, Column, Measure, PopulationInputs

BINS, MIN_PROBABILITY, CLIP = 20, 1e-5, 100.0
BLOCK = 4096
"""Examples per block."""

STATISTICS = ("mean", "p95", "null_mean", "null_p95")
DESCRIPTIONS = ("mean KLOM", "95th percentile of KLOM", "mean KLOM of randomly permuted models", "its 95th percentile")


def _build_columns(name: str, set_name: str) -> dict[str, Column]:
    return {
        f"{name}_{statistic}": Column(
            best="none" if "null" in statistic else "min",
            unit="nats",
            ideal="0" if "null" in statistic else f"{name}_null_{statistic}",
            description=f"{description}, {set_name}",
        )
        for statistic, description in zip(STATISTICS, DESCRIPTIONS, strict=True)
    }


COLUMNS = {
    **_build_columns("klom_forget", "forget set"),
    **_build_columns("klom_retain", "retain set"),
    "klom_n": Column(best="none", unit="models a side", ideal="100", description="models used for KLOM"),
}
COLUMNS_HELD_OUT = _build_columns("klom", "unseen data")


def klom(population: PopulationInputs) -> dict[str, float]:
    """Compute KLOM over the forget and the retain set."""
    return {
        **_summarize("klom_forget", population, population.forget),
        **_summarize("klom_retain", population, population.retain),
        "klom_n": float(min(len(population.unlearned), len(population.retrained))),
    }


MEASURE = Measure(
    fn=klom,
    columns=COLUMNS,
    needs="population",
    summary="KL divergence of margins from the oracles', per example, and its value for equal distributions",
    paper="Georgiev et al. 2024",
)


def held_out_klom(population: PopulationInputs) -> dict[str, float]:
    """Compute KLOM over unseen data."""
    return _summarize("klom", population, population.held_out)


MEASURE_HELD_OUT = Measure(
    fn=held_out_klom,
    columns=COLUMNS_HELD_OUT,
    needs="population",
    summary="klom on unseen data",
    paper="Georgiev et al. 2024",
    splits=HELD_OUT_SPLITS,
)


def _summarize(name: str, population: PopulationInputs, rows: np.ndarray) -> dict[str, float]:
    """Compute mean and 95th percentile of KLOM and of its null; NaN with fewer than two models or no row."""
    unlearned, retrained = (confidences[:, rows] for confidences in population.paired_confidences())
    if len(unlearned) < 2 or not len(rows):
        return {f"{name}_{statistic}": float("nan") for statistic in STATISTICS}
    divergences = compute_divergences(unlearned, retrained)
    null_divergences = compute_divergences(*permute_models(unlearned, retrained, population.rng("klom")))
    values = [
        float(value) for group in (divergences, null_divergences) for value in (group.mean(), np.quantile(group, 0.95))
    ]
    return {f"{name}_{statistic}": value for statistic, value in zip(STATISTICS, values, strict=True)}


def compute_divergences(unlearned: np.ndarray, retrained: np.ndarray) -> np.ndarray:
    """Compute KLOM of each example.

    Args:
        unlearned: float [n, X], margins.
        retrained: float [m, X].

    Returns:
        float64 [X], at least 0.
    """
    # Blocks of examples bound the memory of [n, examples] bin numbers and [examples, bins] histograms.
    parts = []
    for start in range(0, unlearned.shape[1], BLOCK):
        sides = [np.clip(side[:, start : start + BLOCK], -CLIP, CLIP) for side in (unlearned, retrained)]
        # Bins over the range of both sides, per example: scaled to [0, 1]. All models equal: span 0, all in the first
        # bin.
        low = np.minimum(sides[0].min(0), sides[1].min(0))
        span = np.maximum(sides[0].max(0), sides[1].max(0)) - low
        p, q = (_compute_histograms((side - low) / np.where(span > 0, span, 1)) for side in sides)
        # Only where p > 0, as elsewhere q has no term; then q sums to 1 again.
        q = np.where(p > 0, np.maximum(q, MIN_PROBABILITY), q)
        q /= q.sum(1, keepdims=True)
        # 0 log 0 = 0; the inner where() keep logarithms of 0 from being computed at all.
        parts.append(np.where(p > 0, p * np.log(np.where(p > 0, p, 1) / np.where(q > 0, q, 1)), 0).sum(1))
    return np.concatenate(parts)


def _compute_histograms(scaled: np.ndarray) -> np.ndarray:
    """Compute shares in equal bins of [0, 1], the last one closed, [X, bins], of values [n, X]."""
    n, n_examples = scaled.shape
    # Bins of example x are numbered from BINS x, so that one bincount counts for all. 1.0 belongs to the last bin.
    bins = np.minimum((scaled * BINS).astype(np.int64), BINS - 1) + BINS * np.arange(n_examples)
    shares: np.ndarray = np.bincount(bins.ravel(), minlength=BINS * n_examples).reshape(n_examples, BINS) / n
    return shares
