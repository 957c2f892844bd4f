"""Memorization by regression of held-out counts on six statistics, for a small RMSE over a bank.

    mem(i) ~ b0 + b . x(i),    x: share of right models, clipped probit and mean probability of the label, in and out

Models are dealt into groups. For each group its counts (equation 1 of Feldman & Zhang 2020) are the targets, whose
expectation is the definition's score, and the statistics of all other models are the regressors: their noise is
independent of the targets' unless both share a balanced block. One ridge regression over all groups and examples gives
b, which is applied to the statistics of all models. Stacking is Wolpert's (1992) and Breiman's (1996).

It shrinks. The regression predicts the mean of examples whose statistics are alike, so the most memorized ones are
underestimated and ties at the top are ordered by noise: in banks tried the most memorized 6.7 % by .004 to .11, and
their ranking is worse than that of the blend (memorization_blend.py). Use it where the RMSE over all examples alone
counts. It needs MIN_EXAMPLES examples to borrow from.

Its RMSE over the bank is known: the jackknife's variance over the groups, each estimate with its own regression, and
the squared bias on top. The counts c have none, so with s the estimate here mean (s - c)^2 less the jackknife's
variance of s - c is the mean squared bias. Single examples get no standard error: intervals from jackknife and mean
bias covered .86 to .93 of all examples of trained banks (digits, 16 to 256 models), and of the most memorized 6.7 %
.52 to .60 (MLP, keep .5) or .79 to .87 (CNN), though in simulated banks of known truth they cover.

Differs from the papers: they stack predictors of a label; the estimator is ours.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np

from memscore.estimators.memorization import (
    MEMORIZATION,
    MEMORIZATION_PROBABILITY,
    MEMORIZATION_PROBIT,
    compute_probit,
)
from memscore.estimators.statistic import Side, Statistic, compute_table, compute_weighted_values, count_set_weights
from memscore.statistics.correlation import group_models_by_block

STACKED = "memorization_stacked"
MIN_EXAMPLES = 500
"""With fewer examples the regression's coefficients are too noisy."""
GROUPS = 8
MIN_MODELS = 2 * GROUPS
MIN_BLOCKS = 4  # fewer blocks are split: statistics of half of the models would be much noisier than those of all
RIDGE = 1e-3  # beside the mean square of standardized statistics, which is 1

Columns = Mapping[str, np.ndarray]


def compute_mean(side: Side) -> np.ndarray:
    """Compute the mean of a term over one side; NaN without a model."""
    mean: np.ndarray = side.sums[0] / np.where(side.n > 0, side.n, np.nan)
    return mean


def build_regressors() -> dict[str, Statistic]:
    """Build the six statistics: each of three measures of a side, for the models with an example and without it."""
    measures = {
        "share": (MEMORIZATION, compute_mean),
        "probit": (MEMORIZATION_PROBIT, compute_probit),
        "probability": (MEMORIZATION_PROBABILITY, compute_mean),
    }
    regressors = {}
    for name, (statistic, measure) in measures.items():
        info, signal, terms = statistic.info, statistic.signal, statistic.terms
        for side in (0, 1):

            def take(*sides: Side, side: int = side, measure: Callable[[Side], np.ndarray] = measure) -> np.ndarray:
                return measure(sides[side])

            regressors[f"{name}_{('in', 'out')[side]}"] = Statistic(info=info, signal=signal, terms=terms, value=take)
    return regressors


REGRESSORS = build_regressors()
SIGNALS = tuple(dict.fromkeys(statistic.signal for statistic in REGRESSORS.values()))
"""Shard columns that are read beside member."""


@dataclass(frozen=True, kw_only=True)
class StackedFit:
    """Precision of the regression's score over a bank.

    Attributes:
        bias: its mean squared bias.
        bias_share: the same as a multiple of the counts' squared standard error.
        rmse: root mean square error over the bank.
    """

    bias: float
    bias_share: float
    rmse: float


class StackedSets(NamedTuple):
    """Sets of models for the regressions, as rows of one matrix of weights.

    Row 0 has all models, rows 1 .. G all but one group, then all but two groups, pair by pair, then each group alone.

    Attributes:
        weights: float32 [sets, M].
        groups: G.
    """

    weights: np.ndarray
    groups: int

    def list_regressions(self) -> list[list[tuple[int, int]]]:
        """List the rows (statistics, targets) of each fit: that of all models, then those without one group."""
        pairs = {pair: 1 + self.groups + k for k, pair in enumerate(combinations(range(self.groups), 2))}
        alone = 1 + self.groups + len(pairs)
        of_all = [(1 + group, alone + group) for group in range(self.groups)]
        return [of_all] + [
            [
                (pairs[min(left, group), max(left, group)], alone + group)
                for group in range(self.groups)
                if group != left
            ]
            for left in range(self.groups)
        ]


def draw_stacked_sets(blocks: np.ndarray, rng: np.random.Generator) -> StackedSets:
    """Deal models into groups: whole blocks where there are MIN_BLOCKS or more of them, else single models.

    Args:
        blocks: int [M], the block of each model; np.arange(M) where models are independent.
        rng: deals them.

    Returns:
        The sets.

    Raises:
        ValueError: there are fewer than MIN_MODELS models.
    """
    models = len(blocks)
    if models < MIN_MODELS:
        raise ValueError(f"{STACKED} needs {MIN_MODELS} models or more, got {models}; train more, or leave it out")
    # the models of a balanced block depend on each other, so that whole blocks should not be divided between groups
    members = group_models_by_block(blocks)
    if len(members) < MIN_BLOCKS:
        members = [np.array([model]) for model in range(models)]
    order = rng.permutation(len(members))
    number = min(GROUPS, len(members))
    dealt = [np.concatenate([members[k] for k in order[group::number]]) for group in range(number)]
    # Groups are folds of the regression and of the jackknife alike: a fit without group g leaves out one more group as
    # its target, so that sets without one and without two groups are all that is needed.
    alone = count_set_weights(dealt, models)
    pairs = [1 - alone[a] - alone[b] for a, b in combinations(range(number), 2)]
    return StackedSets(np.concatenate([np.ones((1, models)), 1 - alone, pairs, alone]).astype(np.float32), number)


def sum_for_stacked(columns: Columns, sets: StackedSets) -> np.ndarray:
    """Sum over some examples the products that each regression is made of; sums of disjoint examples add.

    A target weighs as its group's models do, 1 / (1 / n_in + 1 / n_out).

    Args:
        columns: member, bool [M, n], and SIGNALS.
        sets: of the models.

    Returns:
        float64 [1 + G, 8, 8]: for each fit the weighted products of six statistics, 1 and the target.
    """
    statistics = _compute_regressors(columns, sets.weights)
    alone = sets.weights[-sets.groups :]
    targets = compute_weighted_values({"target": MEMORIZATION}, alone, columns)["target"].astype(np.float64)
    # A target's variance is p (1 - p) (1 / n_in + 1 / n_out), with p of the example, which is unknown: the weight takes
    # the numbers of models alone. Where a side of the group is empty, the target is NaN and is left out.
    n_in = alone @ columns["member"].astype(np.float32)
    n_out = alone.sum(1, keepdims=True) - n_in
    weights = (n_in * n_out / (n_in + n_out)).astype(np.float64)
    first_target, sums = len(sets.weights) - sets.groups, []
    for regression in sets.list_regressions():
        products = np.zeros((8, 8))
        for rest, target_row in regression:
            group = target_row - first_target
            rows = np.vstack([statistics[:, rest], np.ones(targets.shape[1]), targets[group]])
            # an example that lacks a statistic or a target in one set may have all of them in the others
            defined = ~np.isnan(rows).any(0)
            rows, weight = rows[:, defined], weights[group][defined]
            products += (rows * weight) @ rows.T
        sums.append(products)
    return np.array(sums)


def fit_stacked(parts: Iterable[np.ndarray]) -> np.ndarray:
    """Fit the regressions.

    Args:
        parts: sums of disjoint sets of examples.

    Returns:
        float64 [1 + G, 7]: coefficients of the six statistics and the constant, of all models and without each group;
        NaN where nothing is defined.
    """
    return np.array([_solve_ridge(products) for products in np.sum([*parts], axis=0)])


def _solve_ridge(products: np.ndarray) -> np.ndarray:
    """Solve one ridge regression on standardized statistics; the constant is not shrunk."""
    total = products[6, 6]
    if not total:
        return np.full(7, np.nan)
    mean, target = products[6, :6] / total, products[6, 7] / total
    covariance = products[:6, :6] / total - np.outer(mean, mean)
    # a statistic that is equal for all examples tells nothing, and gets the coefficient 0
    # standardized, so that one penalty suits statistics of different spread
    scale = np.sqrt(np.maximum(np.diag(covariance), 1e-12))
    right = (products[:6, 7] / total - mean * target) / scale
    slopes = np.linalg.solve(covariance / np.outer(scale, scale) + RIDGE * np.eye(6), right) / scale
    return np.append(slopes, target - slopes @ mean)


def compute_stacked_columns(columns: Columns, sets: StackedSets, coefficients: np.ndarray) -> dict[str, np.ndarray]:
    """Apply the regressions to some examples.

    Args:
        columns: member, bool [M, n], and SIGNALS.
        sets: of the models.
        coefficients: of fit_stacked.

    Returns:
        value; jackknife, its variance; counts, the value of the counts; scale, their squared standard error; and
        difference, the jackknife's variance of value minus counts: float64 [n], NaN where undefined.
    """
    weights = sets.weights[: 1 + sets.groups]
    statistics = _compute_regressors(columns, weights)
    values = np.einsum("ksn,sk->sn", statistics, coefficients[:, :6]) + coefficients[:, 6:]
    # a regression knows no bounds, memorization has them
    values = np.clip(values, -1, 1)
    counts = compute_table(MEMORIZATION, columns["correct"], columns["member"])
    of_sets = compute_weighted_values({"counts": MEMORIZATION}, weights[1:], columns)["counts"]
    return {
        "value": values[0],
        "jackknife": _compute_jackknife_variance(values[1:]),
        "counts": counts["value"],
        "scale": counts["se"] ** 2,
        "difference": _compute_jackknife_variance(values[1:] - of_sets),
        "n_in": counts["n_in"],
        "n_out": counts["n_out"],
    }


def complete_stacked(columns: Columns) -> tuple[dict[str, np.ndarray], StackedFit]:
    """Measure the error, which all examples show together, and make the table.

    Args:
        columns: of compute_stacked_columns, of all examples.

    Returns:
        value: float64 [N]; se: NaN, since single examples have none (see above); n_in, n_out as given; and the fit.
    """
    # the truth is unknown, but the counts are unbiased: what s - c has beyond its own noise is the bias of s
    squares = (columns["value"] - columns["counts"]) ** 2 - columns["difference"]
    defined = ~np.isnan(squares + columns["jackknife"])
    bias = share = rmse = float("nan")
    if defined.any():
        bias = max(float(squares[defined].mean()), 0.0)
        share = bias / float(columns["scale"][defined].mean())
        rmse = float(np.sqrt(columns["jackknife"][defined].mean() + bias))
    table = {"value": columns["value"], "se": np.full(len(squares), np.nan)}
    counts = {name: columns[name] for name in ("n_in", "n_out")}
    return table | counts, StackedFit(bias=bias, bias_share=share, rmse=rmse)


def estimate_stacked(columns: Columns, blocks: np.ndarray, seed: int = 0) -> tuple[dict[str, np.ndarray], StackedFit]:
    """Estimate the regression's score of each example from models in memory.

    Args:
        columns: member, bool [M, N], and SIGNALS.
        blocks: int [M], the block of each model; np.arange(M) where models are independent.
        seed: of the dealing into groups.

    Returns:
        As complete_stacked.
    """
    sets = draw_stacked_sets(blocks, np.random.default_rng(seed))
    return complete_stacked(compute_stacked_columns(columns, sets, fit_stacked([sum_for_stacked(columns, sets)])))


def _compute_regressors(columns: Columns, weights: np.ndarray) -> np.ndarray:
    """Compute the six statistics from each set of models, float64 [6, sets, n]."""
    return np.array([*compute_weighted_values(REGRESSORS, weights, columns).values()], np.float64)


def _compute_jackknife_variance(values: np.ndarray) -> np.ndarray:
    """Compute the jackknife's variance from the values without each group, [G, n]."""
    # (G - 1) / G times the sum of squares, which is (G - 1) times NumPy's variance
    groups = len(values)
    variance: np.ndarray = (groups - 1) * np.var(values.astype(np.float64), axis=0)
    return variance
