"""Accuracy on the retain set, on the forget set and on unseen data.

    retain_accuracy, forget_accuracy, accuracy_<split>;  class_accuracy_<split> over the classes of the forget set
    alone, kept_class_accuracy_<split> over those of the retain set

RUM 2: RA, FA, TA. SURE 5: retain error, forget error, utility, and CTA, the test accuracy of the forgotten classes,
which separates forgetting a class from forgetting examples of it. Labels are those that the models were trained on; for
held-out examples, the published ones. A model that forgets whole classes should be wrong on them, so only the accuracy
on retained classes shows the harm of unlearning; if each class retains an example, it equals the overall accuracy.
"""

import numpy as np

from unlearn.measures.inputs import HELD_OUT_SPLITS, Column, EvaluationInputs, Measure

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
        description="right on held-out examples of retained classes",
    ),
}


def accuracy(inputs: EvaluationInputs) -> dict[str, float]:
    """Compute accuracy on the retain set and on the forget set."""
    return {
        "retain_accuracy": _share_correct(inputs, inputs.retain, inputs.labels),
        "forget_accuracy": _share_correct(inputs, inputs.forget, inputs.labels),
        "forget_accuracy_true": _share_correct(inputs, inputs.forget, inputs.labels_true),
    }


MEASURE = Measure(
    fn=accuracy,
    columns=COLUMNS,
    needs="outputs",
    summary="retain accuracy (RA) and forget accuracy (FA)",
    paper="RUM, SURE",
    core=True,
)


def held_out_accuracy(inputs: EvaluationInputs) -> dict[str, float]:
    """Compute accuracy on held-out examples: all, and those of the forget set's classes."""
    # Classes as trained, of the forget set; held-out examples have published labels only.
    in_forget_classes = np.isin(inputs.labels_true[inputs.held_out], np.unique(inputs.labels[inputs.forget]))
    return {
        "accuracy": _share_correct(inputs, inputs.held_out, inputs.labels_true),
        "class_accuracy": _share_correct(inputs, inputs.held_out[in_forget_classes], inputs.labels_true),
    }


MEASURE_HELD_OUT = Measure(
    fn=held_out_accuracy,
    columns=COLUMNS_HELD_OUT,
    needs="outputs",
    summary="accuracy on unseen data, and on unseen data of the forgotten classes (utility, CTA)",
    paper="RUM, SURE",
    core=True,
    splits=HELD_OUT_SPLITS,
)


def kept_class_accuracy(inputs: EvaluationInputs) -> dict[str, float]:
    """Compute accuracy on held-out examples of the classes that the retain set has."""
    # A class that is forgotten whole is not among them.
    in_retain_classes = np.isin(inputs.labels_true[inputs.held_out], np.unique(inputs.labels[inputs.retain]))
    return {"kept_class_accuracy": _share_correct(inputs, inputs.held_out[in_retain_classes], inputs.labels_true)}


MEASURE_KEPT = Measure(
    fn=kept_class_accuracy,
    columns=COLUMNS_KEPT,
    needs="outputs",
    summary="accuracy on unseen data of the retained classes: utility where whole classes are forgotten",
    paper="RSU",
    splits=HELD_OUT_SPLITS,
)


def _share_correct(inputs: EvaluationInputs, rows: np.ndarray, labels: np.ndarray) -> float:
    return float(inputs.judged.correct(rows, labels).mean()) if len(rows) else float("nan")
