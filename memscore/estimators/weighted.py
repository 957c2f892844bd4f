"""Memorization and C-score from many weighted sets of models, in one pass.

Counts, sums and sums of squares over models are linear in the models' weights, so the sums for a half of the models, or
for a bootstrap sample of them, are a product weights [W, M] x columns [M, n]: the bank is read once, whatever W is.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import expit, ndtr

from memscore.estimators.memorization import GAP_CLIP, PROBIT_VARIANCE_FLOOR


def count_set_weights(sets: Sequence[np.ndarray], models: int) -> np.ndarray:
    """Count how often each model occurs in each set.

    Args:
        sets: positions of models, repeats included.
        models: number of models.

    Returns:
        float32 [len(sets), models].
    """
    return np.array([np.bincount(positions, minlength=models) for positions in sets], np.float32).reshape(
        len(sets), models
    )


def compute_weighted_scores(weights: np.ndarray, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Compute the scores of each example from each weighted set of models.

    Args:
        weights: float32 [W, M], whole numbers; each set sums to less than 2**24, so counts are exact.
        columns: member and correct bool [M, n]; logit_confidence and gap float [M, n] where the bank has them.

    Returns:
        memorization and cscore, and memorization_probability and memorization_probit where their columns are given:
        [W, n], NaN where a set has no model on a required side.
    """
    member, correct = columns["member"], columns["correct"]
    inside = member.astype(np.float32)
    n_in = weights @ inside
    n_out = weights.sum(1, keepdims=True) - n_in
    k_in = weights @ (correct & member).astype(np.float32)
    k_out = weights @ correct.astype(np.float32) - k_in
    with np.errstate(invalid="ignore", divide="ignore"):
        scores = {"memorization": k_in / n_in - k_out / n_out, "cscore": k_out / n_out}
        if "logit_confidence" in columns:
            p = expit(columns["logit_confidence"])
            p_in = weights @ np.where(member, p, 0)
            scores["memorization_probability"] = p_in / n_in - (weights @ p - p_in) / n_out
        if "gap" in columns:
            gap = np.clip(columns["gap"], -GAP_CLIP, GAP_CLIP).astype(np.float64)
            scores["memorization_probit"] = _estimate_side(weights, gap, inside, n_in) - _estimate_side(
                weights, gap, 1 - inside, n_out
            )
    return scores


def compute_between_block_se(per_block: np.ndarray) -> np.ndarray:
    """Compute a score's standard error from how whole blocks of models differ.

    It is the error of the mean of the blocks' estimates, which for counts and probabilities in balanced blocks is the
    score itself, and for the probit approximately. It includes the variance reduction of a design, which the error
    within a side does not; from few blocks it is itself uncertain (+-35 % from five).

    Args:
        per_block: [B, n], the score from each whole block.

    Returns:
        [n]; NaN everywhere with fewer than three blocks, and where a block has an empty side.
    """
    if len(per_block) < 3:
        return np.full(per_block.shape[1], np.nan)
    error: np.ndarray = np.std(per_block.astype(np.float64), axis=0, ddof=1) / np.sqrt(len(per_block))
    return error


def _estimate_side(weights: np.ndarray, gap: np.ndarray, side: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Compute Phi(z) of one side, as memorization_probit does; NaN with fewer than two models."""
    mean = weights @ (gap * side) / n
    squares = weights @ (gap**2 * side) - n * mean**2
    z: np.ndarray = mean / np.sqrt(np.maximum(squares, 0) / (n - 1) + PROBIT_VARIANCE_FLOOR)
    return np.where(n > 1, ndtr(z), np.nan)
