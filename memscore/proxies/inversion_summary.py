"""What gradient inversion reached over the attacked examples: means with intervals, and a sign test of the gain."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from scipy.special import stdtrit
from scipy.stats import binomtest

from memscore.proxies.storage import COMPARED_IMAGES
from memscore.statistics.intervals import Interval, wilson

MEANS = {
    "inversion_psnr": "PSNR, dB",
    "inversion_ssim": "SSIM",
    "inversion_psnr_fitted": "PSNR above a flat picture, contrast fitted, dB",
    "inversion_ssim_fitted": "SSIM, contrast fitted",
    "inversion_percentile": "share of training images that resemble it less",
    "inversion_gain": "gain over a model without the example, dB",
}
"""Scores whose means are shown, and what they are called."""


@dataclass(frozen=True, kw_only=True, eq=False)
class InversionSummary:
    """Means over the attacked examples; each example's value is a mean over originals.

    Attributes:
        examples: how many were attacked.
        means: score -> mean over the examples with its 95 % t interval, those of infinite or undefined values left out.
        retrieval: share of attacks after which no other training image resembles the result more, with Wilson's
            interval over examples; None if it is not stored.
        compared_images: among so many training images; by chance the share is one over it.
        gains: examples with a gain above 0, and below 0.
        sign_test: two-sided p value of equal chances for both; NaN without a gain.
    """

    examples: int
    means: dict[str, Interval]
    retrieval: Interval | None
    compared_images: int
    gains: tuple[int, int]
    sign_test: float


def summarize_inversions(table: pa.Table) -> InversionSummary | None:
    """Summarize the inversion scores of scores.parquet; None if it has none."""
    values = {name: np.asarray(table[name].to_numpy(), float) for name in MEANS if name in table.column_names}
    if not values:
        return None
    retrieval, images = None, 0
    if "inversion_retrieval" in table.column_names:
        found = np.asarray(table["inversion_retrieval"].to_numpy(), float)
        found = found[~np.isnan(found)]
        # an example counts once, however many originals were attacked: they share its difficulty
        lo, hi = wilson(found.sum(), np.array(len(found)))
        retrieval = Interval(value=float(found.mean()) if len(found) else float("nan"), lo=float(lo), hi=float(hi))
        images = min(table.num_rows, COMPARED_IMAGES)
    gain = values.get("inversion_gain", np.array([]))
    gains = int((gain > 0).sum()), int((gain < 0).sum())
    return InversionSummary(
        examples=max(int((~np.isnan(each)).sum()) for each in values.values()),
        means={name: compute_mean_interval(each[np.isfinite(each)]) for name, each in values.items()},
        retrieval=retrieval,
        compared_images=images,
        gains=gains,
        # exact, and ties are left out: under no gain both models of a pair are as likely to give more
        sign_test=float(binomtest(gains[0], sum(gains)).pvalue) if sum(gains) else float("nan"),
    )


def compute_mean_interval(values: np.ndarray) -> Interval:
    """Compute a mean and its 95 % t interval; NaN ends for fewer than two values."""
    n = len(values)
    mean = float(values.mean()) if n else float("nan")
    half = float(stdtrit(n - 1, 0.975) * values.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
    return Interval(value=mean, lo=mean - half, hi=mean + half)
