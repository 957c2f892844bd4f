"""Membership inference by a support vector machine on p_y: does the forget set look like data that stay or like unseen?

    fit   SVC(C = 3, gamma = 1, rbf) on p_y:   members are rows of R, non-members held-out rows
    MIA = share of F that it calls NON-member

RUM and SCALE's "MIA", after Jia et al. 2023 and Liu et al. 2024. High is not good: the ideal is what the same attack
says of theta_r (RUM, CIFAR-10: .010, .654 and .961 for forget sets of low, medium and high memorization); .5 is not it
either. Each model is attacked by a machine fitted to itself.

Differs from the released code, which takes the first |T| examples of R as members, so that its value hangs on the
order of R, and too few of them where R is the smaller. Here both sides are drawn, equal in number, at most 2,000. On
Fashion-MNIST (10,000 images, small CNN) 9,000 a side gave .017 for theta_o and .110 for theta_r; three draws of 2,000
gave .013 to .015 and .100 to .112, at a twentieth of the time.

p_y is rounded to four decimals for the fit, so that equal examples count once, with their number as a weight: the same
optimization problem but for the rounding, with a third of the unknowns. On three models of 6,000 images the one
boundary between members and others moved by .00005 at most, and the fit took .04 s in place of .5 s.
"""

import numpy as np
from sklearn.svm import SVC

from unlearn.metrics.case import Case, Column, Views
from unlearn.metrics.membership import MOST, members_and_others, told_apart

DECIMALS = 4
"""Of p_y in the fit."""

COLUMNS = {
    "mia": Column(
        best="oracle", unit="share", ideal="theta_r's", says="of the forget set called NON-member, by an SVC on p_y"
    )
}


def mia(case: Case) -> dict[str, float]:
    """The share of the forget set that the attack takes for unseen data; NaN where a set is empty."""
    return {"mia": called_unseen(case, case.judged)}


def called_unseen(case: Case, views: Views, most: int = MOST) -> float:
    """Fit the attack to one model, once, and ask it about the forget set.

    Args:
        case: the sets and the labels; all models are attacked with the same draw.
        views: of the model that is attacked.
        most: members, and non-members, that the attack is fitted to.

    Returns:
        Share called non-member; NaN where a set is empty.
    """
    tag = ("mia", most, case.sets)
    if tag not in views.kept:
        views.kept[tag] = _attacked(case, views, most)
    return views.kept[tag]


def _attacked(case: Case, views: Views, most: int) -> float:
    members, others = members_and_others(case, case.rng("mia"), most)
    if not len(members) or not len(case.forget):
        return float("nan")
    sure = {name: _p(case, views, rows) for name, rows in (("in", members), ("out", others), ("asked", case.forget))}
    features, inside = told_apart(sure["in"].round(DECIMALS), sure["out"].round(DECIMALS))
    distinct, counts = np.unique(np.column_stack([features, inside]), axis=0, return_counts=True)
    # gamma "auto" is 1 / features: one feature in [0, 1], not scaled, as in the released code
    attack = SVC(C=3, gamma="auto", kernel="rbf").fit(distinct[:, :1], distinct[:, 1], sample_weight=counts)
    return float(1 - attack.predict(sure["asked"][:, None]).mean())


def _p(case: Case, views: Views, rows: np.ndarray) -> np.ndarray:
    sure: np.ndarray = np.exp(views.label_log_probabilities(rows, case.labels))
    return sure
