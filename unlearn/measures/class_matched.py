"""Distance of the forget error to the error on unseen examples of the same classes: computable without an oracle.

    reference = sum_c (share of class c in F) error_c,   class_matched_gap = |error_F - reference|

(Kurmanji et al. 2023, the criterion of SCRUB+R.) error_c is over held-out examples of class c; it is 1 for a class
without retained examples, since a model that never saw a class does not predict it: otherwise the error on held-out
examples would fall and rise with that on forgotten ones, and no unlearning would look as good as full unlearning. Where
examples of a class are retained, only the class mix is matched: an oracle makes more errors on memorized examples than
on their classes, and fewer on typical ones. So the ideal is the oracle's gap, which is unknown without retraining; the
criterion takes it to be 0.
"""

import numpy as np

from unlearn.measures.inputs import HELD_OUT_SPLITS, Column, EvaluationInputs, Measure

COLUMNS = {
    "class_matched_error": Column(
        best="oracle",
        unit="share",
        ideal="theta_r's",
        description="error on held-out examples in the forget set's class mix; 1 for a class without retained examples",
    ),
    "class_matched_gap": Column(
        best="oracle", unit="share", ideal="theta_r's", description="distance of the forget error to that"
    ),
}


def class_matched(inputs: EvaluationInputs) -> dict[str, float]:
    """Compute both; NaN where a class of the forget set has retained but no held-out examples."""
    # Per class, [K'] up to the largest forgotten class: examples of F, held-out examples, and those misclassified.
    mix = np.bincount(inputs.labels[inputs.forget])
    labels = inputs.labels_true[inputs.held_out]
    wrong = ~inputs.judged.correct(inputs.held_out, inputs.labels_true)
    counts, wrong_counts = np.bincount(labels, minlength=len(mix)), np.bincount(labels[wrong], minlength=len(mix))
    forget_classes = np.flatnonzero(mix)
    without_retain = ~np.isin(forget_classes, inputs.labels[inputs.retain])
    # A class with retained but no held-out examples has no reference, and the whole value none.
    if not (len(forget_classes) and (without_retain | (counts[forget_classes] > 0)).all()):
        return dict.fromkeys(COLUMNS, float("nan"))
    # A model that never saw a class is wrong on it; maximum avoids 0 / 0 there.
    errors = np.where(without_retain, 1, wrong_counts[forget_classes] / np.maximum(counts[forget_classes], 1))
    reference = float((mix[forget_classes] / mix.sum()) @ errors)
    error = 1 - float(inputs.judged.correct(inputs.forget, inputs.labels).mean())
    return {"class_matched_error": reference, "class_matched_gap": abs(error - reference)}


MEASURE = Measure(
    fn=class_matched,
    columns=COLUMNS,
    needs="outputs",
    summary="forget error against that of unseen examples of the same classes, or against 1 where the whole class is"
    " forgotten; needs no oracle",
    paper="Kurmanji et al. 2023",
    splits=HELD_OUT_SPLITS,
)
