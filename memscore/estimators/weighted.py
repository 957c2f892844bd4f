"""Memorization and C-score from many weighted sets of a bank's models at once, in one pass over the bank.

Counts, sums and sums of squares over models are linear in the models' weights, so what a half of the models says, or a
bootstrap sample of them, is a product weights [W, M] x columns [M, n]: the bank is read once, whatever W is.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import expit, ndtr

from memscore.estimators.memorization import GAP_CLIP, PROBIT_VARIANCE_FLOOR


def count_set_weights(sets: Sequence[np.ndarray], models: int) -> np.ndarray:
    """How often each model stands in each set.

    Args:
        sets: positions of models, repeats included.
        models: how many there are.

    Returns:
        float32 [len(sets), models].
    """
    return np.array([np.bincount(chosen, minlength=models) for chosen in sets], np.float32).reshape(len(sets), models)


def compute_weighted_scores(weights: np.ndarray, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What each weighted set of models says of each example.

    Args:
        weights: float32 [W, M], whole numbers; each set sums to less than 2**24, so counts are exact.
        columns: member and correct bool [M, n]; logit_confidence and gap float [M, n] where the bank has them.

    Returns:
        memorization and cscore, and memorization_probability and memorization_probit where their columns are there:
        [W, n], NaN where a set has nobody on a side that is needed.
    """
    member, correct = columns["member"], columns["correct"]
    inside = member.astype(np.float32)
    n_in = weights @ inside
    n_out = weights.sum(1, keepdims=True) - n_in
    k_in = weights @ (correct & member).astype(np.float32)
    k_out = weights @ correct.astype(np.float32) - k_in
    with np.errstate(invalid="ignore", divide="ignore"):
        found = {"memorization": k_in / n_in - k_out / n_out, "cscore": k_out / n_out}
        if "logit_confidence" in columns:
            p = expit(columns["logit_confidence"])
            p_in = weights @ np.where(member, p, 0)
            found["memorization_probability"] = p_in / n_in - (weights @ p - p_in) / n_out
        if "gap" in columns:
            gap = np.clip(columns["gap"], -GAP_CLIP, GAP_CLIP).astype(np.float64)
            found["memorization_probit"] = _side(weights, gap, inside, n_in) - _side(weights, gap, 1 - inside, n_out)
    return found


def compute_between_block_se(each: np.ndarray) -> np.ndarray:
    """Standard error of a score from how whole blocks of models differ: their standard deviation over sqrt(blocks).

    It is that of the mean of the blocks' own estimates, which for counts and probabilities in balanced blocks is the
    score itself, and for the probit nearly so. It sees what a design gains, which the error within a side cannot; from
    few blocks it is itself uncertain (+-35 % from five).

    Args:
        each: [B, n], what each whole block says.

    Returns:
        [n]; NaN everywhere with fewer than three blocks, and where a block has an empty side.
    """
    if len(each) < 3:
        return np.full(each.shape[1], np.nan)
    error: np.ndarray = np.std(each.astype(np.float64), axis=0, ddof=1) / np.sqrt(len(each))
    return error


def _side(weights: np.ndarray, gap: np.ndarray, side: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Phi(z) of one side, as memorization_probit has it; NaN with fewer than two models."""
    mean = weights @ (gap * side) / n
    squares = weights @ (gap**2 * side) - n * mean**2
    z: np.ndarray = mean / np.sqrt(np.maximum(squares, 0) / (n - 1) + PROBIT_VARIANCE_FLOOR)
    return np.where(n > 1, ndtr(z), np.nan)
