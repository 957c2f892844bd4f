"""Membership inference by one threshold: the cheap forms of MIA, on p_y and on the modified entropy.

    member if p_y > t     or     Mentr < t,    t the most accurate one on members (R) and non-members (held-out)
    Mentr(p, y) = -(1 - p_y) log p_y - sum_{c != y} p_c log(1 - p_c)              (Song & Mittal 2021, eq. 5)

Value: share of F called NON-member, as in mia.py, and the ideal is theta_r's. On p_y it was .02 to .04 where the
support vector machine said .013 to .017 (theta_o; Fashion-MNIST, small CNN, 2,000 a side), .12 to .14 where that said
.10 to .11 (theta_r): for a search, not for a table. Neither says much where members and non-members look alike.

The released code's modified entropy takes log p_c for log(1 - p_c), and indexes every row by every label. Song and
Mittal's own attack has a threshold a class; here it is one, as forget sets are small.

Whom an attack on membership learns from: examples the model was trained on and others, as many of each.

Drawn by the measure's own stream from the rows in rising order, so that neither the order of a set nor its size beside
the other's can tell the attacker anything.

Membership inference by a support vector machine on p_y: does the forget set look like data that stay or like unseen?

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

MIA-II: an attack that learns members from non-members by confidence, then is asked about the forget set.

    logistic regression on p_y:   R against held-out examples, balanced;   value = share of F called NON-member

SURE 5, after Song & Mittal 2021 and Jia et al. 2023. The ideal is theta_r's value, not 1. SURE's members are all of D,
F included, whose examples would then testify about themselves: here they are R. It is mia.py with the classifier that
SURE calls usual, which puts its threshold higher.

MIA-I: can a classifier tell the losses of the forget set from those of unseen examples?

    logistic regression on CE(theta(x), y), clipped to [-100, 100]:   F against held-out examples of F's classes
    MIA-I = its accuracy, mean of 5 stratified splits that hold out 10 %

Kurmanji et al. 2023; SURE 5. The ideal is theta_r's value, near .5; well above it the losses of F still stand out, too
low or too high. The sides are equal in number, by a seeded draw. The released code changes the test loader in place;
the NeurIPS challenge's kit has 10 splits and does not match classes. Undefined below 10 examples a side.

MIARS: MIA-I and MIA-II where the attacker sees the representation, not the output.

    5 nearest neighbours, Euclidean, on phi(x) / ||phi(x)||,  phi = what the last linear layer reads
    MIARS-I:  F against held-out examples of F's classes; balanced accuracy of 5 stratified folds
    MIARS-II: R against held-out examples; share of F called NON-member

SURE 5: a model can give the right outputs and still keep what it has learned in its inner layers. The ideal is
theta_r's value. SURE names neither k, nor the distance, nor the folds; these are the project's. As in MIA-II members
are R, not D: an example of F would be its own nearest neighbour. Undefined below 10 examples a side.
"""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC

from unlearn.measures.inputs import Column, EvaluationInputs, Outputs

MOST = 2000
"""Examples a side: a kernel machine's cost grows with the square of them, what it says hardly changes (see mia.py)."""
FEWEST = 10
"""Examples a side: below it a cross-validated attack is undefined; up to some hundreds it is noise, so pool seeds."""


def sample_members_and_nonmembers(
    case: EvaluationInputs, rng: np.random.Generator, most: int = MOST
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the retain set, and as many held-out ones.

    Args:
        case: its retain and held-out sets.
        rng: draws them.
        most: examples a side.

    Returns:
        Two int64 arrays of one length.
    """
    return _as_many(case.retain, case.held_out, rng, most)


def sample_forgotten_and_unseen(
    case: EvaluationInputs, rng: np.random.Generator, most: int = MOST
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the forget set, and as many held-out ones of its classes: else a class that is gone gives itself away.

    Args:
        case: its forget and held-out sets.
        rng: draws them.
        most: examples a side.

    Returns:
        Two int64 arrays of one length.
    """
    others = case.held_out[np.isin(case.labels[case.held_out], np.unique(case.labels[case.forget]))]
    return _as_many(case.forget, others, rng, most)


def _as_many(one: np.ndarray, other: np.ndarray, rng: np.random.Generator, most: int) -> tuple[np.ndarray, np.ndarray]:
    count = min(len(one), len(other), most)
    first, second = (rng.choice(np.sort(rows), count, replace=False) for rows in (one, other))
    return first, second


def build_attack_data(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two sets of features as one attack's input: rows of both, and True for the first.

    Args:
        one: [n] or [n, d].
        other: [n] or [n, d].

    Returns:
        float64 [2 n, d], bool [2 n].
    """
    features = np.concatenate([one, other]).astype(np.float64)
    return features.reshape(len(features), -1), np.arange(len(features)) < len(one)


DECIMALS = 4
"""Of p_y in the fit."""

COLUMNS = {
    "mia": Column(
        best="oracle",
        unit="share",
        ideal="theta_r's",
        description="of the forget set called NON-member, by an SVC on p_y",
    )
}


def mia(case: EvaluationInputs) -> dict[str, float]:
    """The share of the forget set that the attack takes for unseen data; NaN where a set is empty."""
    return {"mia": compute_nonmember_share(case, case.judged)}


def compute_nonmember_share(case: EvaluationInputs, views: Outputs, most: int = MOST) -> float:
    """Fit the attack to one model, once, and ask it about the forget set.

    Args:
        case: the sets and the labels; all models are attacked with the same draw.
        views: of the model that is attacked.
        most: members, and non-members, that the attack is fitted to.

    Returns:
        Share called non-member; NaN where a set is empty.
    """
    tag = ("mia", most, case.sets_digest)
    if tag not in views.cache:
        views.cache[tag] = _attacked(case, views, most)
    return views.cache[tag]


def _attacked(case: EvaluationInputs, views: Outputs, most: int) -> float:
    members, others = sample_members_and_nonmembers(case, case.rng("mia"), most)
    if not len(members) or not len(case.forget):
        return float("nan")
    sure = {name: _p(case, views, rows) for name, rows in (("in", members), ("out", others), ("asked", case.forget))}
    features, inside = build_attack_data(sure["in"].round(DECIMALS), sure["out"].round(DECIMALS))
    distinct, counts = np.unique(np.column_stack([features, inside]), axis=0, return_counts=True)
    # gamma "auto" is 1 / features: one feature in [0, 1], not scaled, as in the released code
    attack = SVC(C=3, gamma="auto", kernel="rbf").fit(distinct[:, :1], distinct[:, 1], sample_weight=counts)
    return float(1 - attack.predict(sure["asked"][:, None]).mean())


def _p(case: EvaluationInputs, views: Outputs, rows: np.ndarray) -> np.ndarray:
    sure: np.ndarray = np.exp(views.label_log_probabilities(rows, case.labels))
    return sure


COLUMNS_CONFIDENCE = {
    "mia_confidence": Column(
        best="oracle",
        unit="share",
        ideal="theta_r's",
        description="MIA-II: of the forget set called NON-member, by logistic regression",
    )
}


def mia_confidence(case: EvaluationInputs) -> dict[str, float]:
    """The share of the forget set that the attack takes for unseen data; NaN where a set is empty."""
    members, others = sample_members_and_nonmembers(case, case.rng("mia-confidence"))
    if not len(members) or not len(case.forget):
        return {"mia_confidence": float("nan")}
    inside, outside, asked = (
        np.exp(case.judged.label_log_probabilities(rows, case.labels)) for rows in (members, others, case.forget)
    )
    attack = LogisticRegression().fit(*build_attack_data(inside, outside))
    return {"mia_confidence": float(1 - attack.predict(asked[:, None]).mean())}


SPLITS, HELD, CLIP = 5, 0.1, 100.0

COLUMNS_LOSSES = {
    "mia_losses": Column(
        best="oracle",
        unit="share",
        ideal="theta_r's, near 0.5",
        description="MIA-I: forget set told from unseen by losses",
    ),
    "mia_losses_n": Column(
        best="none", unit="examples", ideal="hundreds", description="examples a side of MIA-I and MIARS-I"
    ),
}


def mia_losses(case: EvaluationInputs) -> dict[str, float]:
    """Accuracy of the attack, and how many examples a side it rests on."""
    rng = case.rng("mia-losses")
    forgotten, others = sample_forgotten_and_unseen(case, rng)
    if len(forgotten) < FEWEST:
        return {"mia_losses": float("nan"), "mia_losses_n": float(len(forgotten))}
    losses = [
        np.clip(-case.judged.label_log_probabilities(rows, case.labels), -CLIP, CLIP) for rows in (forgotten, others)
    ]
    splits = StratifiedShuffleSplit(SPLITS, test_size=HELD, random_state=int(rng.integers(2**31)))
    right = cross_val_score(LogisticRegression(), *build_attack_data(*losses), cv=splits)
    return {"mia_losses": float(right.mean()), "mia_losses_n": float(len(forgotten))}


NEIGHBOURS, FOLDS = 5, 5

COLUMNS_REPRESENTATION = {
    "miars_1": Column(
        best="oracle",
        unit="share",
        ideal="theta_r's, near 0.5",
        description="MIARS-I: forget set told from unseen by kNN",
    ),
    "miars_2": Column(
        best="oracle",
        unit="share",
        ideal="theta_r's",
        description="MIARS-II: of the forget set called NON-member, by kNN",
    ),
}


def mia_representation(case: EvaluationInputs) -> dict[str, float]:
    """Both attacks."""
    rng = case.rng("mia-representation")
    forgotten, others = sample_forgotten_and_unseen(case, rng)
    members, unseen = sample_members_and_nonmembers(case, rng)
    values = dict.fromkeys(COLUMNS_REPRESENTATION, float("nan"))
    nearest = KNeighborsClassifier(NEIGHBOURS)
    if len(forgotten) >= FEWEST:
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=int(rng.integers(2**31)))
        sides = build_attack_data(_directions(case, forgotten), _directions(case, others))
        values["miars_1"] = float(cross_val_score(nearest, *sides, cv=folds, scoring="balanced_accuracy").mean())
    if len(members) >= FEWEST and len(case.forget):
        nearest.fit(*build_attack_data(_directions(case, members), _directions(case, unseen)))
        values["miars_2"] = float(1 - nearest.predict(_directions(case, case.forget)).mean())
    return values


def _directions(case: EvaluationInputs, rows: np.ndarray) -> np.ndarray:
    """Embeddings of length 1; one that is all zeros stays so."""
    found = case.judged.embeddings[rows].astype(np.float64)
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    directions: np.ndarray = found / np.where(lengths > 0, lengths, 1)
    return directions


COLUMNS_THRESHOLD = {
    "mia_threshold": Column(
        best="oracle",
        unit="share",
        ideal="theta_r's",
        description="of the forget set called NON-member, by a threshold on p_y",
    ),
    "mia_modified_entropy": Column(
        best="oracle",
        unit="share",
        ideal="theta_r's",
        description="of the forget set called NON-member, by modified entropy",
    ),
}


def mia_threshold(case: EvaluationInputs) -> dict[str, float]:
    """Both shares; NaN where a set is empty."""
    members, others = sample_members_and_nonmembers(case, case.rng("mia"))
    if not len(members) or not len(case.forget):
        return dict.fromkeys(COLUMNS_THRESHOLD, float("nan"))
    said = [case.judged.log_probabilities(rows) for rows in (members, others, case.forget)]
    truth = [case.labels[rows] for rows in (members, others, case.forget)]
    sure = [np.exp(p[np.arange(len(y)), y]) for p, y in zip(said, truth, strict=True)]
    calm = [-modified_entropy(p, y) for p, y in zip(said, truth, strict=True)]
    return {
        name: float((asked <= find_best_threshold(inside, outside)).mean())
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


def find_best_threshold(members: np.ndarray, others: np.ndarray) -> float:
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
