"""Membership inference attacks (MIA): does the forget set look like training data or like unseen data to a model?

All attacks learn from equally many members and non-members. They are drawn by the measure's random stream from sorted
rows, so that neither the order of a set nor its size relative to the other can inform the attack. Members are rows of
R, not of D: an example of F would otherwise be evidence about itself. Each model is attacked by a classifier fitted to
that model. The ideal is theta_r's value for every attack.
"""

from functools import lru_cache

import numpy as np
from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC

from unlearn.measures.inputs import HELD_OUT_SPLITS, Column, EvaluationInputs, Measure, Outputs
from unlearn.measures.logistic_regression import predict_logistic_regression

MAX_PER_SIDE = 2000
"""Maximum examples per side: the cost of a kernel machine is quadratic in them, its result hardly changes (see mia)."""
MIN_PER_SIDE = 10
"""Minimum examples per side of a cross-validated attack; up to some hundreds its result is noise, so pool seeds."""


def sample_members_and_nonmembers(
    inputs: EvaluationInputs, rng: np.random.Generator, max_per_side: int = MAX_PER_SIDE
) -> tuple[np.ndarray, np.ndarray]:
    """Draw rows of R and equally many held-out rows, int64, at most max_per_side of each."""
    return _sample_equally(inputs.retain, inputs.held_out, rng, max_per_side)


def sample_forgotten_and_unseen(
    inputs: EvaluationInputs, rng: np.random.Generator, max_per_side: int = MAX_PER_SIDE
) -> tuple[np.ndarray, np.ndarray]:
    """Draw rows of F and equally many held-out rows of its classes, int64, at most max_per_side of each."""
    # Without matched classes, an attack could detect a forgotten class instead of forgotten examples.
    others = inputs.held_out[np.isin(inputs.labels[inputs.held_out], np.unique(inputs.labels[inputs.forget]))]
    return _sample_equally(inputs.forget, others, rng, max_per_side)


def _sample_equally(
    first: np.ndarray, second: np.ndarray, rng: np.random.Generator, max_per_side: int
) -> tuple[np.ndarray, np.ndarray]:
    count = min(len(first), len(second), max_per_side)
    # Sorted, so that the draw does not depend on the order of a set.
    sample_first, sample_second = (rng.choice(np.sort(rows), count, replace=False) for rows in (first, second))
    return sample_first, sample_second


def build_attack_data(positives: np.ndarray, negatives: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Stack the features of two sets, [n] or [n, d]: float64 [2 n, d], and bool [2 n], True for the first set."""
    features = np.concatenate([positives, negatives]).astype(np.float64)
    return features.reshape(len(features), -1), np.arange(len(features)) < len(positives)


DECIMALS = 4
"""Decimals to which p_y is rounded for the fit."""

COLUMNS = {
    "mia": Column(
        best="oracle",
        unit="share",
        ideal="theta_r's",
        description="of the forget set called NON-member, by an SVC on p_y",
    )
}


def mia(inputs: EvaluationInputs) -> dict[str, float]:
    """Return the share of the forget set called non-member by a support vector machine on p_y; NaN if a set is empty.

        fit   SVC(C = 3, gamma = 1, rbf) on p_y:   members are rows of R, non-members held-out rows
        MIA = share of F that it calls NON-member

    RUM and SCALE's "MIA", after Jia et al. 2023 and Liu et al. 2024. High is not good: the ideal is the value for
    theta_r (RUM, CIFAR-10: .010, .654 and .961 for forget sets of low, medium and high memorization), and not .5.

    Differs from the released code, which takes the first |T| examples of R as members, so that its value depends on the
    order of R, and takes too few of them where R is smaller. Here both sides are drawn, equal in number, at most 2,000.
    On Fashion-MNIST (10,000 images, small CNN) 9,000 per side gave .017 for theta_o and .110 for theta_r; three draws
    of 2,000 gave .013 to .015 and .100 to .112, at a twentieth of the time.

    p_y is rounded to four decimals for the fit, so that equal examples are merged into one with their number as weight:
    the same optimization problem but for the rounding, with a third of the unknowns. On three models of 6,000 images
    the boundary between members and non-members moved by .00005 at most, and the fit took .04 s instead of .5 s.
    """
    return {"mia": compute_nonmember_share(inputs, inputs.judged)}


MEASURE = Measure(
    fn=mia,
    columns=COLUMNS,
    needs="outputs",
    summary="share of the forget set that a support vector machine on p_y classifies as unseen",
    paper="RUM, SCALE",
    core=True,
    splits=HELD_OUT_SPLITS,
)


def compute_nonmember_share(inputs: EvaluationInputs, outputs: Outputs, max_per_side: int = MAX_PER_SIDE) -> float:
    """Fit the attack of `mia` to one model; return the share of F called non-member, or NaN if a set is empty."""
    # Stored with the outputs, under all that the value depends on: theta_r is attacked once, however many models are
    # compared with it by `tow_mia`.
    key = ("mia", max_per_side, inputs.sets_digest)
    if key not in outputs.cache:
        outputs.cache[key] = _fit_and_attack(inputs, outputs, max_per_side)
    return outputs.cache[key]


def _fit_and_attack(inputs: EvaluationInputs, outputs: Outputs, max_per_side: int) -> float:
    # The stream is the measure's, not the model's: all models are attacked with the same draw.
    members, others = sample_members_and_nonmembers(inputs, inputs.rng("mia"), max_per_side)
    if not len(members) or not len(inputs.forget):
        return float("nan")
    member_p, other_p, forget_p = (
        np.exp(outputs.label_log_probabilities(rows, inputs.labels)) for rows in (members, others, inputs.forget)
    )
    features, is_member = build_attack_data(member_p.round(DECIMALS), other_p.round(DECIMALS))
    # Equal pairs of p_y and membership become one row with their number as weight.
    distinct, counts = np.unique(np.column_stack([features, is_member]), axis=0, return_counts=True)
    # gamma "auto" is 1 / features: one feature in [0, 1], not scaled, as in the released code.
    attack = SVC(C=3, gamma="auto", kernel="rbf").fit(distinct[:, :1], distinct[:, 1], sample_weight=counts)
    return float(1 - attack.predict(forget_p[:, None]).mean())


COLUMNS_CONFIDENCE = {
    "mia_confidence": Column(
        best="oracle",
        unit="share",
        ideal="theta_r's",
        description="MIA-II: of the forget set called NON-member, by logistic regression",
    )
}


def mia_confidence(inputs: EvaluationInputs) -> dict[str, float]:
    """Return MIA-II, the share of F called non-member by logistic regression on p_y; NaN if a set is empty.

        logistic regression on p_y:   R against held-out examples, balanced;   value = share of F called NON-member

    SURE 5, after Song & Mittal 2021 and Jia et al. 2023. The ideal is theta_r's value, not 1. SURE's members are all of
    D, F included; here they are R. It is `mia` with SURE's usual classifier, which has a higher threshold.
    """
    members, others = sample_members_and_nonmembers(inputs, inputs.rng("mia-confidence"))
    if not len(members) or not len(inputs.forget):
        return {"mia_confidence": float("nan")}
    member_p, other_p, forget_p = (
        np.exp(inputs.judged.label_log_probabilities(rows, inputs.labels)) for rows in (members, others, inputs.forget)
    )
    features, is_member = build_attack_data(member_p, other_p)
    called_member = predict_logistic_regression(features[:, 0], is_member, forget_p)
    return {"mia_confidence": float(1 - called_member.mean())}


MEASURE_CONFIDENCE = Measure(
    fn=mia_confidence,
    columns=COLUMNS_CONFIDENCE,
    needs="outputs",
    summary="MIA-II: trained to separate members from unseen examples, applied to the forget set",
    paper="SURE",
    core=True,
    splits=HELD_OUT_SPLITS,
)


N_SPLITS, TEST_SHARE, CLIP = 5, 0.1, 100.0

COLUMNS_LOSSES = {
    "mia_losses": Column(
        best="oracle",
        unit="share",
        ideal="theta_r's, near 0.5",
        description="MIA-I: accuracy of forget set against unseen, by losses",
    ),
    "mia_losses_n": Column(
        best="none", unit="examples", ideal="hundreds", description="examples a side of MIA-I and MIARS-I"
    ),
}


def mia_losses(inputs: EvaluationInputs) -> dict[str, float]:
    """Return MIA-I, the accuracy of separating losses of F from losses of unseen examples, and its sample size.

        logistic regression on CE(theta(x), y), clipped to [-100, 100]:   F against held-out examples of F's classes
        MIA-I = its accuracy, mean of 5 stratified splits that hold out 10 %

    Kurmanji et al. 2023; SURE 5. The ideal is theta_r's value, near .5; a value well above it means that losses of F
    are still too low or too high. The sides are equal in number, by a seeded draw. The released code changes the test
    loader in place; the NeurIPS challenge's kit has 10 splits and does not match classes. Undefined below 10 examples
    per side.
    """
    rng = inputs.rng("mia-losses")
    forgotten, others = sample_forgotten_and_unseen(inputs, rng)
    if len(forgotten) < MIN_PER_SIDE:
        return {"mia_losses": float("nan"), "mia_losses_n": float(len(forgotten))}
    losses = [
        np.clip(-inputs.judged.label_log_probabilities(rows, inputs.labels), -CLIP, CLIP)
        for rows in (forgotten, others)
    ]
    features, is_forgotten = build_attack_data(*losses)
    loss = features[:, 0]
    accuracies = [
        (predict_logistic_regression(loss[train], is_forgotten[train], loss[test]) == is_forgotten[test]).mean()
        for train, test in draw_splits(len(forgotten), int(rng.integers(2**31)))
    ]
    return {"mia_losses": float(np.mean(accuracies)), "mia_losses_n": float(len(forgotten))}


@lru_cache(maxsize=64)
def draw_splits(per_side: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Draw the splits of mia_losses, rows of train and test; all models of a forget set and seed have the same."""
    is_forgotten = np.arange(2 * per_side) < per_side
    splits = StratifiedShuffleSplit(N_SPLITS, test_size=TEST_SHARE, random_state=seed)
    return list(splits.split(is_forgotten, is_forgotten))


MEASURE_LOSSES = Measure(
    fn=mia_losses,
    columns=COLUMNS_LOSSES,
    needs="outputs",
    summary="MIA-I: losses of the forget set against those of unseen examples",
    paper="Kurmanji et al. 2023, SURE",
    core=True,
    splits=HELD_OUT_SPLITS,
)


N_NEIGHBORS, N_FOLDS = 5, 5

COLUMNS_REPRESENTATION = {
    "miars_1": Column(
        best="oracle",
        unit="share",
        ideal="theta_r's, near 0.5",
        description="MIARS-I: accuracy of forget set against unseen, by kNN",
    ),
    "miars_2": Column(
        best="oracle",
        unit="share",
        ideal="theta_r's",
        description="MIARS-II: of the forget set called NON-member, by kNN",
    ),
}


def mia_representation(inputs: EvaluationInputs) -> dict[str, float]:
    """Return MIARS-I and MIARS-II: MIA-I and MIA-II on embeddings instead of outputs.

        5 nearest neighbours, Euclidean, on phi(x) / ||phi(x)||,  phi = input of the last linear layer
        MIARS-I:  F against held-out examples of F's classes; balanced accuracy of 5 stratified folds
        MIARS-II: R against held-out examples; share of F called NON-member

    SURE 5: a model can give the right outputs and still store what it has learned in its inner layers. The ideal is
    theta_r's value. SURE states neither k, nor the distance, nor the folds; these are the project's. As in MIA-II
    members are R, not D: an example of F would be its nearest neighbour. Undefined below 10 examples per side.
    """
    rng = inputs.rng("mia-representation")
    forgotten, others = sample_forgotten_and_unseen(inputs, rng)
    members, unseen = sample_members_and_nonmembers(inputs, rng)
    values = dict.fromkeys(COLUMNS_REPRESENTATION, float("nan"))
    classifier = KNeighborsClassifier(N_NEIGHBORS)
    if len(forgotten) >= MIN_PER_SIDE:
        # Not fitted on what it is scored on: an example of the fit would be its own nearest neighbour.
        folds = StratifiedKFold(N_FOLDS, shuffle=True, random_state=int(rng.integers(2**31)))
        sides = build_attack_data(_normalize_embeddings(inputs, forgotten), _normalize_embeddings(inputs, others))
        values["miars_1"] = float(cross_val_score(classifier, *sides, cv=folds, scoring="balanced_accuracy").mean())
    if len(members) >= MIN_PER_SIDE and len(inputs.forget):
        classifier.fit(
            *build_attack_data(_normalize_embeddings(inputs, members), _normalize_embeddings(inputs, unseen))
        )
        values["miars_2"] = float(1 - classifier.predict(_normalize_embeddings(inputs, inputs.forget)).mean())
    return values


MEASURE_REPRESENTATION = Measure(
    fn=mia_representation,
    columns=COLUMNS_REPRESENTATION,
    needs="outputs",
    summary="MIARS-I and II: mia-losses and mia-confidence on the input of the last layer",
    paper="SURE",
    splits=HELD_OUT_SPLITS,
)


def _normalize_embeddings(inputs: EvaluationInputs, rows: np.ndarray) -> np.ndarray:
    """Scale embeddings to length 1; zeros stay zeros."""
    embeddings = inputs.judged.embeddings[rows].astype(np.float64)
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    directions: np.ndarray = embeddings / np.where(lengths > 0, lengths, 1)
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


def mia_threshold(inputs: EvaluationInputs) -> dict[str, float]:
    """Return the shares of F called non-member by one threshold on p_y, and on modified entropy; NaN without examples.

        member if p_y > t   or   Mentr < t,   t the most accurate threshold on members (R) and non-members (held-out)
        Mentr(p, y) = -(1 - p_y) log p_y - sum_{c != y} p_c log(1 - p_c)              (Song & Mittal 2021, eq. 5)

    A cheap form of `mia`; the ideal is theta_r's value. On p_y it was .02 to .04 where `mia` was .013 to .017 (theta_o;
    Fashion-MNIST, small CNN, 2,000 per side), and .12 to .14 where `mia` was .10 to .11 (theta_r): good enough for a
    search, not for a table. Neither is informative where members and non-members have similar confidence.

    The released code's modified entropy takes log p_c for log(1 - p_c), and indexes every row by every label. Song and
    Mittal's attack has a threshold per class; here there is one, as forget sets are small.
    """
    members, others = sample_members_and_nonmembers(inputs, inputs.rng("mia"))
    if not len(members) or not len(inputs.forget):
        return dict.fromkeys(COLUMNS_THRESHOLD, float("nan"))
    log_probabilities = [inputs.judged.log_probabilities(rows) for rows in (members, others, inputs.forget)]
    labels = [inputs.labels[rows] for rows in (members, others, inputs.forget)]
    p_label = [np.exp(p[np.arange(len(y)), y]) for p, y in zip(log_probabilities, labels, strict=True)]
    # Negated, so that both scores are higher for members.
    negative_entropy = [-modified_entropy(p, y) for p, y in zip(log_probabilities, labels, strict=True)]
    return {
        # Non-member at or below the threshold, which is fitted on members and others alone.
        name: float((of_forget <= find_best_threshold(of_members, of_others)).mean())
        for name, (of_members, of_others, of_forget) in (
            ("mia_threshold", p_label),
            ("mia_modified_entropy", negative_entropy),
        )
    }


MEASURE_THRESHOLD = Measure(
    fn=mia_threshold,
    columns=COLUMNS_THRESHOLD,
    needs="outputs",
    summary="mia by one threshold, on p_y and on modified entropy",
    paper="Song & Mittal 2021",
    splits=HELD_OUT_SPLITS,
)


def modified_entropy(log_probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Compute label-aware entropy: 0 for a confident correct prediction, large for a confident wrong one.

    Args:
        log_probabilities: float64 [n, K].
        labels: int64 [n].

    Returns:
        float64 [n], at least 0, finite.
    """
    rows, p = np.arange(len(labels)), np.exp(log_probabilities)
    # log(1 - p_c) by expm1, exact where p_c is near 0; tiny keeps it finite where p_c rounds to 1.
    log_rest = np.log(np.maximum(-np.expm1(log_probabilities), np.finfo(np.float64).tiny))
    terms = -p * log_rest
    # The label's own term replaces -p_y log(1 - p_y).
    terms[rows, labels] = -np.exp(log_rest[rows, labels]) * log_probabilities[rows, labels]
    total: np.ndarray = terms.sum(1)
    return total


def find_best_threshold(members: np.ndarray, others: np.ndarray) -> float:
    """Find the threshold with the highest accuracy of "member if above"; the lowest of several equally good ones.

    Args:
        members: [n], a score that is higher for members.
        others: [n], of equally many non-members.

    Returns:
        The threshold, halfway between two values; minus infinity where calling all members is best.
    """
    scores = np.concatenate([members, others])
    # In rising order, gain[i] is how many more examples are right with the threshold above the i lowest than with all
    # called members: each non-member below it is won, each member lost. Index i has the threshold between scores i - 1
    # and i.
    order = np.argsort(scores, kind="stable")
    scores = scores[order]
    gain = np.append(0, np.cumsum(np.where(order < len(members), -1, 1)))
    # No threshold lies between equal scores.
    gain[1:-1][scores[1:] == scores[:-1]] = -len(scores)
    # argmax takes the first, which is the lowest threshold.
    best = int(gain.argmax())
    thresholds = np.concatenate([[-np.inf], (scores[1:] + scores[:-1]) / 2, scores[-1:]])
    return float(thresholds[best])
