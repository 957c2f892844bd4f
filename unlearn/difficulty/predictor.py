"""Predict how hard an example is to unlearn before it is unlearned, from what a bank and theta_o say of it.

    d_a,o,i = rank of -GT_a,o,i among the examples of algorithm a and original o, in [0, 1]; 1 is the hardest
    d ~ ridge regression on normal scores of the features and on their squares, alpha by leave-one-out errors

INST says that such an index is missing. A prediction is judged on examples that it was not fitted on, of algorithms and
originals that it was fitted on or, in turn, was not; beside the best single feature, which is chosen, with its sign, on
the same examples as the regression is fitted on. Intervals are over the examples and originals that are judged, given
the fits: what a regression on other examples would change is outside of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, rankdata
from sklearn.linear_model import RidgeCV

from memscore.statistics.correlation import spearman
from memscore.statistics.means import MeanEstimate
from unlearn.difficulty.correlations import estimate_over_examples

FOLDS = 10
ALPHAS = tuple(10.0**exponent for exponent in range(-1, 6))
HELD_OUT = ("examples", "algorithm", "original")


@dataclass(frozen=True, kw_only=True)
class Judged:
    """How well difficulty was predicted out of sample, Spearman's rho averaged over algorithms and originals.

    Attributes:
        predicted: of the regression.
        single: of the best single feature.
        gain: predicted less single.
        best: names of the best single features of the fits -> how many fits chose each.
    """

    predicted: MeanEstimate
    single: MeanEstimate
    gain: MeanEstimate
    best: dict[str, int]


def rank_difficulty(gt: np.ndarray) -> np.ndarray:
    """Compute d from GT [..., n]: ranks of -GT over the last axis in (0, 1), NaN where GT is."""
    flat = gt.reshape(-1, gt.shape[-1])
    ranks = np.full_like(flat, np.nan, dtype=np.float64)
    for row, values in zip(ranks, flat, strict=True):
        defined = ~np.isnan(values)
        row[defined] = rankdata(-values[defined]) / (defined.sum() + 1)
    return ranks.reshape(gt.shape)


def normalise(features: np.ndarray) -> np.ndarray:
    """Replace each feature of [n, F] by the normal quantile of its rank; 0, the middle, where it is undefined."""
    scores = np.zeros(features.shape)
    for column, values in enumerate(features.T):
        defined = ~np.isnan(values)
        # an undefined feature says nothing, and so takes the middle
        if defined.any():
            scores[defined, column] = norm.ppf(rankdata(values[defined]) / (defined.sum() + 1))
    return scores


def expand(scores: np.ndarray) -> np.ndarray:
    """Add squares of normalised features, so that the middle may differ from both ends."""
    return np.hstack([scores, scores**2 - 1])


def fit(scores: np.ndarray, difficulty: np.ndarray) -> RidgeCV:
    """Fit the regression on normalised features [m, F] and difficulty [m]."""
    return RidgeCV(alphas=ALPHAS).fit(expand(scores), difficulty)


def choose_single(scores: np.ndarray, difficulty: np.ndarray) -> tuple[int, float]:
    """Choose the feature with the largest absolute rank correlation; return its column and sign."""
    # a constant feature has no correlation, and is never the best
    rhos = np.nan_to_num([spearman(column, difficulty) for column in scores.T])
    best = int(np.abs(rhos).argmax())
    return best, float(np.sign(rhos[best]) or 1)


def list_splits(held_out: str, shape: tuple[int, int, int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """List the splits into what is fitted and what is judged: bool [A, O, n] each, of all examples in turn."""
    n_algorithms, n_originals, n = shape
    # An example is in one fold for all algorithms and originals, or another original would give it away.
    fold = np.arange(n) % FOLDS
    groups = {
        "examples": [np.ones(shape, dtype=bool)],
        "algorithm": [np.arange(n_algorithms)[:, None, None] == a for a in range(n_algorithms)],
        "original": [np.arange(n_originals)[None, :, None] == o for o in range(n_originals)],
    }[held_out]
    for number in range(FOLDS):
        for group in groups:
            judged = np.broadcast_to(group, shape) & (fold == number)
            fitted = np.broadcast_to(np.ones(1, bool) if held_out == "examples" else ~group, shape) & (fold != number)
            yield fitted, judged


def judge_prediction(features: np.ndarray, gt: np.ndarray, names: list[str], held_out: str) -> Judged | None:
    """Judge the prediction on held-out examples, of held-out algorithms or originals too.

    Args:
        features: [O, n, F], known before unlearning.
        gt: [A, O, n], NaN where undefined.
        names: of the features.
        held_out: one of HELD_OUT.

    Returns:
        Rank correlations out of sample; None where nothing is left to fit on, as with one algorithm.
    """
    # Within each original: what its features mean depends on its network.
    difficulty = rank_difficulty(gt)
    scores = np.stack([normalise(own) for own in features])
    predicted, single = np.full(gt.shape, np.nan), np.full(gt.shape, np.nan)
    best: dict[str, int] = {}
    for fitted, judged in list_splits(held_out, gt.shape):
        algorithms, originals, examples = np.nonzero(fitted & ~np.isnan(difficulty))
        if len(examples) < 2 * FOLDS:
            return None
        # The single feature is chosen on the same examples, or it would have seen what it is judged on.
        x, y = scores[originals, examples], difficulty[algorithms, originals, examples]
        model, (column, sign) = fit(x, y), choose_single(x, y)
        best[names[column]] = best.get(names[column], 0) + 1
        _, originals, examples = np.nonzero(judged)
        predicted[judged] = model.predict(expand(scores[originals, examples]))
        single[judged] = sign * scores[originals, examples, column]
    counted = (~np.isnan(difficulty)).any((0, 1))

    def correlate_with(values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        # [O]: the mean over algorithms
        rhos = [
            [spearman(mine[chosen], theirs[chosen]) for mine, theirs in zip(a, b, strict=True)]
            for a, b in zip(values, difficulty, strict=True)
        ]
        return np.asarray(np.nanmean(rhos, axis=0))

    return Judged(
        predicted=estimate_over_examples(lambda chosen: correlate_with(predicted, chosen), counted),
        single=estimate_over_examples(lambda chosen: correlate_with(single, chosen), counted),
        gain=estimate_over_examples(
            lambda chosen: correlate_with(predicted, chosen) - correlate_with(single, chosen), counted
        ),
        best=dict(sorted(best.items(), key=lambda item: -item[1])),
    )


def predict_all(features: np.ndarray, rows: np.ndarray, gt: np.ndarray) -> np.ndarray:
    """Predict the difficulty of every training example, by a fit on all that were unlearned.

    Args:
        features: [O, N, F] of all training examples.
        rows: int [n], those that were unlearned.
        gt: [A, O, n].

    Returns:
        float64 [N], mean over originals; about the rank in [0, 1], higher is harder.
    """
    difficulty = rank_difficulty(gt)
    scores = np.stack([normalise(own) for own in features])
    algorithms, originals, examples = np.nonzero(~np.isnan(difficulty))
    # fitted on those that were unlearned, of all algorithms and originals, and applied to all
    model = fit(scores[originals, rows[examples]], difficulty[algorithms, originals, examples])
    return np.asarray(np.mean([model.predict(expand(own)) for own in scores], axis=0))
