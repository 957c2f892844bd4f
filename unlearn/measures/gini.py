"""How unevenly the loss is spread over the examples that go, and over those that stay.

    G = sum_i (2 i - n - 1) x_(i) / (n sum_i x_i),   x = cross-entropy, in rising order

SCALE section 4 and Table 3 follow, over unlearning steps, the coefficient of a proxy's values: a few examples that
hold most of it are a tail that is not forgotten. Their proxy is holdout retraining, which trains the model again; the
loss needs no training, is nowhere negative, and is the value here (any other is skew.gini(values[rows])). SCALE calls a
lower coefficient after unlearning good; the ideal here is theta_r's.
"""

from memscore.statistics.inequality import gini
from unlearn.measures.inputs import Column, EvaluationInputs

COLUMNS = {
    "gini_forget": Column(
        best="oracle", unit="Gini", ideal="theta_r's", description="unevenness of the loss, forget set"
    ),
    "gini_retain": Column(
        best="oracle", unit="Gini", ideal="theta_r's", description="unevenness of the loss, retain set"
    ),
}


def loss_gini(case: EvaluationInputs) -> dict[str, float]:
    """In [0, 1 - 1/n], higher is more uneven; NaN where a set is empty or has no loss at all."""
    return {
        name: gini(-case.judged.label_log_probabilities(rows, case.labels))
        for name, rows in (("gini_forget", case.forget), ("gini_retain", case.retain))
    }
