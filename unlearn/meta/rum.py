r"""RUM: refine a forget set into parts that are alike, and unlearn one after the other (Zhao et al. 2024, section 6).

    F = F_1 u ... u F_k by a score,   theta_i = U_i(theta_{i-1}, D \ (F_1 u ... u F_i), F_i),   theta_u = theta_k

What is not yet forgotten is still retained, as in the released code; the printed U_i(theta_o, ...) is read as
U_i(theta_{i-1}, ...). Each U_i is any algorithm with any parameters, and may be to do nothing. Everything that the
papers compare is a setting: vanilla is one part (and then the algorithm itself, bit for bit), shuffle random equal
parts, RUM^F one algorithm for parts by memorization, low to high; full RUM an algorithm for each; any order.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from memscore.choices import validate_choice
from unlearn.problem import ExampleSet

RULES = ("equal", "spaced")
ORDERS = ("ascending", "descending")

UnlearnPart = Callable[[nn.Module, ExampleSet, ExampleSet, int], nn.Module]
"""(theta_{i-1}, what is retained, F_i, i) -> theta_i; i counts from 0."""


def rum(
    theta_o: nn.Module, train: ExampleSet, parts: Sequence[Sequence[int]], unlearn: UnlearnPart, done: int = 0
) -> nn.Module:
    """Unlearn the parts in their order.

    Args:
        theta_o: the original; or theta_i where the first i = `done` parts are forgotten already.
        train: all n training examples, in the order of their rows.
        parts: rows of the training set each; a part may hold rows of an earlier one, which are then forgotten twice.
        unlearn: applied to each part in turn.
        done: parts that theta_o has forgotten.

    Returns:
        theta_u.
    """
    theta, device = theta_o, train.rows.device
    gone = torch.zeros(len(train), dtype=torch.bool, device=device)
    for number, part in enumerate(parts):
        rows = torch.tensor(part, dtype=torch.int64, device=device)
        gone[rows] = True
        if number >= done:
            theta = unlearn(theta, train.select((~gone).nonzero().flatten()), train.select(rows), number)
    return theta


def refine(values: np.ndarray, k: int, rule: str = "equal", order: str = "ascending") -> list[np.ndarray]:
    """Cut a forget set into parts by a score.

    Args:
        values: float [n], one a example to forget, higher is more memorized or riskier.
        k: parts.
        rule: "equal": as many examples in each, as RUM has them; "spaced": equal ranges of the score, of which those
            that hold no example are left out.
        order: of the parts: "ascending", RUM's, or "descending".

    Returns:
        For each part the positions of its examples in `values`, rising; together all, none twice. Of equal values the
        first come first.

    Raises:
        ValueError: an unknown rule or order, fewer than one part or more than examples, or a value that is undefined.
    """
    validate_choice("rule of refinement", rule, RULES)
    validate_choice("order", order, ORDERS)
    _check(len(values), k)
    undefined = int(np.isnan(values).sum())
    if undefined:
        raise ValueError(
            f"the score is undefined for {undefined} of the {len(values)} examples to forget, so they belong to no "
            "part; use a bank of more models, or a score that is defined for all, such as a proxy"
        )
    rising = np.lexsort((np.arange(len(values)), values))
    if rule == "equal":
        parts = np.array_split(rising, k)
    else:
        edges = np.linspace(values.min(), values.max(), k + 1)[1:-1]
        level = np.searchsorted(edges, values[rising], side="right")
        parts = [rising[level == i] for i in range(k)]
    ordered = [np.sort(part) for part in parts if len(part)]
    return ordered if order == "ascending" else ordered[::-1]


def split_randomly(n: int, k: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Random parts of equal size: RUM's control for what sequence and smaller sets do without refinement.

    Args:
        n: examples to forget.
        k: parts.
        rng: draws them.

    Returns:
        As refine.

    Raises:
        ValueError: fewer than one part, or more than examples.
    """
    _check(n, k)
    return [np.sort(part) for part in np.array_split(rng.permutation(n), k)]


def distance_to_centroid(embeddings: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Distance of examples to the mean embedding of the training set (RUM A.3): the nearest are the most entangled.

    Args:
        embeddings: float [n_train, E], of theta_o.
        rows: int64 [n], of the training set.

    Returns:
        float64 [n].
    """
    found = embeddings.astype(np.float64)
    distance: np.ndarray = np.linalg.norm(found[rows] - found.mean(0), axis=1)
    return distance


def _check(n: int, k: int) -> None:
    if not 1 <= k <= n:
        raise ValueError(f"{k} parts of {n} examples to forget: a part has at least one example; use 1 to {n} parts")
