"""How often a model is right on what stays, on what goes, and on what it never saw.

    retain_accuracy, forget_accuracy, accuracy_<split>;  class_accuracy_<split> over the classes of the forget set
    alone, kept_class_accuracy_<split> over those of the retain set

RUM 2: RA, FA, TA. SURE 5: retain error, forget error, utility, and CTA, the test accuracy of the forgotten classes,
which tells a class that is forgotten from examples of it that are. Labels are those that the models were trained on;
of held-out examples, the published ones. Who forgets whole classes is to be wrong on them, so only the accuracy on the
classes that stay says what unlearning has spoilt; where each class keeps an example, it is that on all.
"""

import numpy as np

from unlearn.measures.inputs import Column, EvaluationInputs

COLUMNS = {
    "retain_accuracy": Column(best="oracle", unit="share", ideal="theta_r's", description="right on the retain set"),
    "forget_accuracy": Column(best="oracle", unit="share", ideal="theta_r's", description="right on the forget set"),
    "forget_accuracy_true": Column(
        best="oracle", unit="share", ideal="theta_r's", description="right on the forget set by its published labels"
    ),
}
COLUMNS_HELD_OUT = {
    "accuracy": Column(
        best="oracle", unit="share", ideal="theta_r's", description="utility: right on held-out examples"
    ),
    "class_accuracy": Column(
        best="oracle",
        unit="share",
        ideal="theta_r's",
        description="right on held-out examples of the forget set's classes",
    ),
}
COLUMNS_KEPT = {
    "kept_class_accuracy": Column(
        best="oracle",
        unit="share",
        ideal="theta_r's",
        description="right on held-out examples of the classes that stay",
    ),
}


def accuracy(case: EvaluationInputs) -> dict[str, float]:
    """Shares of right answers on the training examples that stay and that go."""
    return {
        "retain_accuracy": _right(case, case.retain, case.labels),
        "forget_accuracy": _right(case, case.forget, case.labels),
        "forget_accuracy_true": _right(case, case.forget, case.labels_true),
    }


def held_out_accuracy(case: EvaluationInputs) -> dict[str, float]:
    """Shares of right answers on held-out examples, all and those of the forget set's classes."""
    forgotten = np.isin(case.labels_true[case.held_out], np.unique(case.labels[case.forget]))
    return {
        "accuracy": _right(case, case.held_out, case.labels_true),
        "class_accuracy": _right(case, case.held_out[forgotten], case.labels_true),
    }


def kept_class_accuracy(case: EvaluationInputs) -> dict[str, float]:
    """Share of right answers on held-out examples of the classes of which training examples stay."""
    stays = np.isin(case.labels_true[case.held_out], np.unique(case.labels[case.retain]))
    return {"kept_class_accuracy": _right(case, case.held_out[stays], case.labels_true)}


def _right(case: EvaluationInputs, rows: np.ndarray, labels: np.ndarray) -> float:
    return float(case.judged.correct(rows, labels).mean()) if len(rows) else float("nan")
