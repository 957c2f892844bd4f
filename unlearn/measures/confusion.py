"""Interclass confusion: errors on two classes whose labels were partly swapped, after forgetting the swapped examples.

    IC-ERR  = share of examples of the two classes, by their published labels, that are misclassified
    FGT-ERR = those of one of the two classes that are predicted as the other: share, and count

Goel et al. 2022 (interclass confusion), SURE's "resolving confusion"; on the retain set and on unseen data. SURE prints
FGT-ERR as a count, which depends on the size of the data set. The two classes are found from the labels: if labels of
the training set differ from the published ones for other than one pair of classes, all values are NaN.
"""

import numpy as np

from unlearn.measures.inputs import HELD_OUT_SPLITS, Column, EvaluationInputs, Measure

NAMES = ("ic_err", "fgt_err", "fgt_count")
DESCRIPTIONS = (
    ("share", "wrong on the two confused classes"),
    ("share", "of the two confused classes, predicted as the other"),
    ("examples", "of the two confused classes, predicted as the other"),
)


def _build_columns(names: tuple[str, ...], set_name: str) -> dict[str, Column]:
    return {
        name: Column(best="oracle", unit=unit, ideal="theta_r's", description=f"{description}, {set_name}")
        for name, (unit, description) in zip(names, DESCRIPTIONS, strict=True)
    }


NAMES_RETAIN = tuple(f"{name}_retain" for name in NAMES)
COLUMNS = _build_columns(NAMES_RETAIN, "retain set")
COLUMNS_HELD_OUT = _build_columns(NAMES, "unseen data")


def confusion(inputs: EvaluationInputs) -> dict[str, float]:
    """Compute the errors on the retain set; NaN unless two classes were swapped."""
    return dict(zip(NAMES_RETAIN, _compute_errors(inputs, inputs.retain), strict=True))


MEASURE = Measure(
    fn=confusion,
    columns=COLUMNS,
    needs="outputs",
    summary="IC-ERR and FGT-ERR on the retain set, where labels were swapped",
    paper="Goel et al. 2022, SURE",
)


def held_out_confusion(inputs: EvaluationInputs) -> dict[str, float]:
    """Compute the errors on held-out examples; NaN unless two classes were swapped."""
    return dict(zip(NAMES, _compute_errors(inputs, inputs.held_out), strict=True))


MEASURE_HELD_OUT = Measure(
    fn=held_out_confusion,
    columns=COLUMNS_HELD_OUT,
    needs="outputs",
    summary="confusion on unseen data",
    paper="Goel et al. 2022, SURE",
    splits=HELD_OUT_SPLITS,
)


def find_swapped_classes(labels: np.ndarray, labels_true: np.ndarray) -> tuple[int, int] | None:
    """Find the two classes, rising, of all changed labels, as trained and as published; None unless there are two."""
    changed = labels != labels_true
    classes = np.unique(np.concatenate([labels[changed], labels_true[changed]]))
    return (int(classes[0]), int(classes[1])) if len(classes) == 2 else None


def _compute_errors(inputs: EvaluationInputs, rows: np.ndarray) -> tuple[float, float, float]:
    # Found in the whole data set: the retain set has no changed label once the forget set holds all of them.
    pair = find_swapped_classes(inputs.labels, inputs.labels_true)
    if pair is None:
        return (float("nan"),) * 3
    rows = rows[np.isin(inputs.labels_true[rows], pair)]
    if not len(rows):
        return (float("nan"),) * 3
    wrong = ~inputs.judged.correct(rows, inputs.labels_true)
    other = np.where(inputs.labels_true[rows] == pair[0], pair[1], pair[0])
    confused = wrong & (inputs.judged.logits[rows].argmax(1) == other)
    return float(wrong.mean()), float(confused.mean()), float(confused.sum())
