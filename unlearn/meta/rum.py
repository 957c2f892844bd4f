r"""RUM: refine a forget set into homogeneous parts and unlearn them in order (Zhao et al. 2024, section 6).

    F = F_1 u ... u F_k by a score,   theta_i = U_i(theta_{i-1}, D \ (F_1 u ... u F_i), F_i),   theta_u = theta_k

Parts that are not yet forgotten belong to the retain set, as in the released code; the printed U_i(theta_o, ...) is
read as U_i(theta_{i-1}, ...). Each U_i is any algorithm with any parameters, and may be no unlearning. All variants
that the papers compare are settings: vanilla is one part (then the result is the algorithm's, bit for bit), shuffle
uses random equal parts, RUM^F uses one algorithm for parts by memorization, low to high; full RUM uses an algorithm for
each part; any order.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from memscore.choices import validate_choice
from memscore.units import format_count
from unlearn.problem import ExampleSet

RULES = ("equal", "spaced")
ORDERS = ("ascending", "descending")

UnlearnPart = Callable[[nn.Module, ExampleSet, ExampleSet, int], nn.Module]
"""(theta_{i-1}, retain set, F_i, i) -> theta_i; i counts from 0."""


def rum(
    theta_o: nn.Module, train: ExampleSet, parts: Sequence[Sequence[int]], unlearn: UnlearnPart, done: int = 0
) -> nn.Module:
    """Unlearn the parts in their order.

    Args:
        theta_o: the original; or theta_i if the first i = `done` parts are already forgotten.
        train: all n training examples, in the order of their rows.
        parts: rows of the training set for each part; rows of an earlier part are forgotten again.
        unlearn: applied to each part in order.
        done: number of parts that theta_o has forgotten.

    Returns:
        theta_u.
    """
    theta, device = theta_o, train.rows.device
    is_forgotten = torch.zeros(len(train), dtype=torch.bool, device=device)
    for number, part in enumerate(parts):
        rows = torch.tensor(part, dtype=torch.int64, device=device)
        # Marked also for parts that are done, which the retain set of later parts must not contain.
        is_forgotten[rows] = True
        if number >= done:
            theta = unlearn(theta, train.select((~is_forgotten).nonzero().flatten()), train.select(rows), number)
    return theta


def refine(values: np.ndarray, k: int, rule: str = "equal", order: str = "ascending") -> list[np.ndarray]:
    """Split a forget set into parts by a score.

    Args:
        values: float [n], one per example to forget, higher is more memorized or riskier.
        k: number of parts.
        rule: "equal": equally many examples in each part, as in RUM; "spaced": equal ranges of the score; empty ranges
            are left out.
        order: order of the parts: "ascending", as in RUM, or "descending".

    Returns:
        For each part the positions of its examples in `values`, rising; a partition of all positions. Ties are broken
        by position.

    Raises:
        ValueError: an unknown rule or order, a k below 1 or above n, or an undefined value.
    """
    validate_choice("rule of refinement", rule, RULES)
    validate_choice("order", order, ORDERS)
    _check_part_count(len(values), k)
    undefined = int(np.isnan(values).sum())
    if undefined:
        raise ValueError(
            f"the score is undefined for {undefined} of the {len(values)} examples to forget, so they belong to no "
            "part; use a bank of more models, or a score that is defined for all, such as a proxy"
        )
    # By value, then by position.
    ascending = np.lexsort((np.arange(len(values)), values))
    if rule == "equal":
        parts = np.array_split(ascending, k)
    else:
        # Inner edges only, so that the largest value is in the last range; a value on an edge is in the upper one.
        edges = np.linspace(values.min(), values.max(), k + 1)[1:-1]
        level = np.searchsorted(edges, values[ascending], side="right")
        parts = [ascending[level == i] for i in range(k)]
    # Rising positions: the order within a part says nothing of the score.
    ordered = [np.sort(part) for part in parts if len(part)]
    return ordered if order == "ascending" else ordered[::-1]


def split_randomly(n: int, k: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Split n positions into k random parts of equal size, each rising: RUM's control for a sequence alone."""
    _check_part_count(n, k)
    return [np.sort(part) for part in np.array_split(rng.permutation(n), k)]


def distance_to_centroid(embeddings: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Compute distances to the mean embedding of the training set (RUM A.3); the nearest are the most entangled.

        d_i = ||phi(x_i) - mu||,   mu = mean of phi over all training examples

    Args:
        embeddings: float [n_train, E], of theta_o.
        rows: int64 [n], of the training set.

    Returns:
        float64 [n].
    """
    values = embeddings.astype(np.float64)
    distance: np.ndarray = np.linalg.norm(values[rows] - values.mean(0), axis=1)
    return distance


def _check_part_count(n: int, k: int) -> None:
    if not 1 <= k <= n:
        raise ValueError(
            f"{format_count(k, 'part')} of {format_count(n, 'example')} to forget: a part has at least one example; "
            f"use at most {format_count(n, 'part')}"
        )
