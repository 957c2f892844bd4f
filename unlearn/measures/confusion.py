"""Is the confusion gone? Two classes had some labels swapped, and the swapped examples were to be forgotten.

    IC-ERR  = share of examples of the two classes, by their published labels, that are answered wrongly
    FGT-ERR = those of one of the two classes that are taken for the other: share, and count

Goel et al. 2022 (interclass confusion), SURE's "resolving confusion"; on the retain set and on unseen data. SURE prints
FGT-ERR as a count, which no other size of data set can be compared with. Which two classes is read from the labels:
where those of the training set differ from the published ones for other than one pair of classes, all is NaN.
"""

import numpy as np

from unlearn.measures.inputs import Column, EvaluationInputs

NAMES = ("ic_err", "fgt_err", "fgt_count")
SAYS = (
    ("share", "wrong on the two confused classes"),
    ("share", "of the two confused classes, taken one for the other"),
    ("examples", "of the two confused classes, taken one for the other"),
)


def _columns(names: tuple[str, ...], where: str) -> dict[str, Column]:
    return {
        name: Column(best="oracle", unit=unit, ideal="theta_r's", description=f"{says}, {where}")
        for name, (unit, says) in zip(names, SAYS, strict=True)
    }


NAMES_RETAIN = tuple(f"{name}_retain" for name in NAMES)
COLUMNS = _columns(NAMES_RETAIN, "retain set")
COLUMNS_HELD_OUT = _columns(NAMES, "unseen data")


def confusion(case: EvaluationInputs) -> dict[str, float]:
    """On the retain set; NaN unless two classes were swapped."""
    return dict(zip(NAMES_RETAIN, _errors(case, case.retain), strict=True))


def held_out_confusion(case: EvaluationInputs) -> dict[str, float]:
    """On held-out examples; NaN unless two classes were swapped."""
    return dict(zip(NAMES, _errors(case, case.held_out), strict=True))


def find_swapped_classes(labels: np.ndarray, labels_true: np.ndarray) -> tuple[int, int] | None:
    """The two classes between which labels were changed.

    Args:
        labels: int64 [N], as trained.
        labels_true: int64 [N], as published.

    Returns:
        The two, rising; None where nothing was changed, or between more than two classes.
    """
    changed = labels != labels_true
    found = np.unique(np.concatenate([labels[changed], labels_true[changed]]))
    return (int(found[0]), int(found[1])) if len(found) == 2 else None


def _errors(case: EvaluationInputs, rows: np.ndarray) -> tuple[float, float, float]:
    pair = find_swapped_classes(case.labels, case.labels_true)
    if pair is None:
        return (float("nan"),) * 3
    rows = rows[np.isin(case.labels_true[rows], pair)]
    if not len(rows):
        return (float("nan"),) * 3
    wrong = ~case.judged.correct(rows, case.labels_true)
    other = np.where(case.labels_true[rows] == pair[0], pair[1], pair[0])
    taken = wrong & (case.judged.logits[rows].argmax(1) == other)
    return float(wrong.mean()), float(taken.mean()), float(taken.sum())
