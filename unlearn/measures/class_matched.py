"""Whether the forget set is answered as badly as unseen examples of its classes: what can be told without an oracle.

    reference = sum_c (share of class c in F) error_c,   class_matched_gap = |error_F - reference|

(Kurmanji et al. 2023, the criterion of SCRUB+R.) error_c is over held-out examples of class c; of a class of which no
example stays it is 1, for who never saw a class does not answer with it: held-out examples would be forgotten along
with the others, and to do nothing would look as good as to forget all. Where examples of it stay, only the class mix is
alike: of memorized examples an oracle gets more wrong than of their classes, of typical ones fewer, so that the ideal
is the oracle's own gap, which nobody knows who has not retrained; the criterion takes it to be 0.
"""

import numpy as np

from unlearn.measures.inputs import Column, EvaluationInputs

COLUMNS = {
    "class_matched_error": Column(
        best="oracle",
        unit="share",
        ideal="theta_r's",
        description="wrong on held-out examples, in the forget set's class mix; 1 of a class of which none stays",
    ),
    "class_matched_gap": Column(
        best="oracle", unit="share", ideal="theta_r's", description="distance of the forget error to that"
    ),
}


def class_matched(case: EvaluationInputs) -> dict[str, float]:
    """Both; NaN where a class of the forget set has no held-out example, and some of it stay."""
    mix = np.bincount(case.labels[case.forget])
    truth = case.labels_true[case.held_out]
    wrong = ~case.judged.correct(case.held_out, case.labels_true)
    there, missed = np.bincount(truth, minlength=len(mix)), np.bincount(truth[wrong], minlength=len(mix))
    wanted = np.flatnonzero(mix)
    gone = ~np.isin(wanted, case.labels[case.retain])
    if not (len(wanted) and (gone | (there[wanted] > 0)).all()):
        return dict.fromkeys(COLUMNS, float("nan"))
    errors = np.where(gone, 1, missed[wanted] / np.maximum(there[wanted], 1))
    reference = float((mix[wanted] / mix.sum()) @ errors)
    error = 1 - float(case.judged.correct(case.forget, case.labels).mean())
    return {"class_matched_error": reference, "class_matched_gap": abs(error - reference)}
