"""Gini coefficient of the loss over the forget set, and over the retain set.

    G = sum_i (2 i - n - 1) x_(i) / (n sum_i x_i),   x = cross-entropy, in rising order

SCALE section 4 and Table 3 track the coefficient of a proxy's values over unlearning steps: if a few examples have most
of the total, they form a tail that is not forgotten. Their proxy is holdout retraining, which trains the model again;
the loss needs no training and is not negative, so it is used here (for other values call
memscore.statistics.inequality.gini). SCALE calls a lower coefficient after unlearning good; here the ideal is
theta_r's.
"""

from memscore.statistics.inequality import gini
from unlearn.measures.inputs import Column, EvaluationInputs, Measure

COLUMNS = {
    "gini_forget": Column(
        best="oracle", unit="Gini", ideal="theta_r's", description="unevenness of the loss, forget set"
    ),
    "gini_retain": Column(
        best="oracle", unit="Gini", ideal="theta_r's", description="unevenness of the loss, retain set"
    ),
}


def loss_gini(inputs: EvaluationInputs) -> dict[str, float]:
    """Compute both in [0, 1 - 1/n], higher is more uneven; NaN where a set is empty or all its losses are 0."""
    return {
        name: gini(-inputs.judged.label_log_probabilities(rows, inputs.labels))
        for name, rows in (("gini_forget", inputs.forget), ("gini_retain", inputs.retain))
    }


MEASURE = Measure(
    fn=loss_gini,
    columns=COLUMNS,
    needs="outputs",
    summary="inequality of the loss over examples",
    paper="SCALE",
    core=True,
)
