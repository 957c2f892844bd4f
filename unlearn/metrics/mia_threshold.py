"""Membership inference by one threshold: the cheap forms of MIA, on p_y and on the modified entropy.

    member if p_y > t     or     Mentr < t,    t the most accurate one on members (R) and non-members (held-out)
    Mentr(p, y) = -(1 - p_y) log p_y - sum_{c != y} p_c log(1 - p_c)              (Song & Mittal 2021, eq. 5)

Value: share of F called NON-member, as in mia.py, and the ideal is theta_r's. On p_y it was .02 to .04 where the
support vector machine said .013 to .017 (theta_o; Fashion-MNIST, small CNN, 2,000 a side), .12 to .14 where that said
.10 to .11 (theta_r): for a search, not for a table. Neither says much where members and non-members look alike.

The released code's modified entropy takes log p_c for log(1 - p_c), and indexes every row by every label. Song and
Mittal's own attack has a threshold a class; here it is one, as forget sets are small.
"""

import numpy as np

from unlearn.metrics.case import Case, Column
from unlearn.metrics.membership import members_and_others

COLUMNS = {
    "mia_threshold": Column(
        best="oracle",
        unit="share",
        ideal="theta_r's",
        says="of the forget set called NON-member, by a threshold on p_y",
    ),
    "mia_modified_entropy": Column(
        best="oracle", unit="share", ideal="theta_r's", says="of the forget set called NON-member, by modified entropy"
    ),
}


def mia_threshold(case: Case) -> dict[str, float]:
    """Both shares; NaN where a set is empty."""
    members, others = members_and_others(case, case.rng("mia"))
    if not len(members) or not len(case.forget):
        return dict.fromkeys(COLUMNS, float("nan"))
    said = [case.judged.log_probabilities(rows) for rows in (members, others, case.forget)]
    truth = [case.labels[rows] for rows in (members, others, case.forget)]
    sure = [np.exp(p[np.arange(len(y)), y]) for p, y in zip(said, truth, strict=True)]
    calm = [-modified_entropy(p, y) for p, y in zip(said, truth, strict=True)]
    return {
        name: float((asked <= best_threshold(inside, outside)).mean())
        for name, (inside, outside, asked) in (("mia_threshold", sure), ("mia_modified_entropy", calm))
    }


def modified_entropy(log_probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Entropy that knows the label: 0 where the model is sure and right, large where it is sure and wrong.

    Args:
        log_probabilities: float64 [n, K].
        labels: int64 [n].

    Returns:
        float64 [n], at least 0, finite.
    """
    rows, p = np.arange(len(labels)), np.exp(log_probabilities)
    log_rest = np.log(np.maximum(-np.expm1(log_probabilities), np.finfo(np.float64).tiny))
    each = -p * log_rest
    each[rows, labels] = -np.exp(log_rest[rows, labels]) * log_probabilities[rows, labels]
    summed: np.ndarray = each.sum(1)
    return summed


def best_threshold(members: np.ndarray, others: np.ndarray) -> float:
    """Where "member above it" is right most often; halfway between two values, the lowest of several that are as good.

    Args:
        members: [n], a score that is higher for members.
        others: [n], of as many non-members.

    Returns:
        The threshold; minus infinity where calling all of them members is best.
    """
    scores = np.concatenate([members, others])
    order = np.argsort(scores, kind="stable")
    scores = scores[order]
    gained = np.append(0, np.cumsum(np.where(order < len(members), -1, 1)))
    gained[1:-1][scores[1:] == scores[:-1]] = -len(scores)  # no threshold lies between equal scores
    best = int(gained.argmax())
    edges = np.concatenate([[-np.inf], (scores[1:] + scores[:-1]) / 2, scores[-1:]])
    return float(edges[best])
