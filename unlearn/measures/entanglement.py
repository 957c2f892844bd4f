"""Entanglement score (ES) of forget and retain set, from embeddings.

    ES = ( mean_R ||phi_i - mu_R||^2 + mean_F ||phi_j - mu_F||^2 ) / ( (||mu_R - mu||^2 + ||mu_F - mu||^2) / 2 )

RUM eq. 2, after Goldblum et al. 2020; phi embeddings, mu the mean over all of R and F. High is entangled, and hard to
unlearn. For theta_o it is a property of the forget set; for theta_u it shows whether unlearning has separated the two
sets where theta_r has not.

Differs from the released code, whose mu is the unweighted mean of mu_R and mu_F, which gives 2 (r^2 + f^2) / (r + f)^2
times as much (1.751 for 3,000 of 45,000), and whose set means are means of batch means. Compare within one convention.
"""

import numpy as np

from unlearn.measures.inputs import Column, EvaluationInputs, Measure

COLUMNS = {
    "entanglement": Column(
        best="oracle",
        unit="ratio",
        ideal="theta_r's",
        description="ES of forget and retain set, by the model's embeddings",
    ),
    "entanglement_original": Column(
        best="none", unit="ratio", ideal="none: of the forget set", description="ES by the embeddings of theta_o"
    ),
}


def entanglement(inputs: EvaluationInputs) -> dict[str, float]:
    """Compute ES from the embeddings of the judged model and of theta_o."""
    return {
        name: entanglement_score(outputs.embeddings[inputs.retain], outputs.embeddings[inputs.forget])
        for name, outputs in (("entanglement", inputs.judged), ("entanglement_original", inputs.theta_o))
    }


MEASURE = Measure(
    fn=entanglement, columns=COLUMNS, needs="outputs", summary="ES of forget set and retain set", paper="RUM", core=True
)


def entanglement_score(retain: np.ndarray, forget: np.ndarray) -> float:
    """Compute ES of two sets of embeddings.

    Args:
        retain: float [r, E].
        forget: float [f, E].

    Returns:
        At least 0, higher is more entangled; NaN where a set is empty or the two means are equal.
    """
    if not len(retain) or not len(forget):
        return float("nan")
    n_retain, n_forget = len(retain), len(forget)
    # In float64: the two means may be close, and `between` is made of their differences.
    mean_retain, mean_forget = (part.mean(0, dtype=np.float64) for part in (retain, forget))
    # mu, the mean over examples, not over the two means as in the released code.
    mean_all = (n_retain * mean_retain + n_forget * mean_forget) / (n_retain + n_forget)
    within = _mean_squared_distance(retain, mean_retain) + _mean_squared_distance(forget, mean_forget)
    between = float(((mean_retain - mean_all) ** 2).sum() + ((mean_forget - mean_all) ** 2).sum()) / 2
    return within / between if between > 0 else float("nan")


def _mean_squared_distance(part: np.ndarray, mean: np.ndarray) -> float:
    """Compute the mean squared distance from the mean, in blocks of rows."""
    # Blocks bound the memory of the float64 differences, which for all rows at once would be twice the embeddings'.
    blocks = np.array_split(part, len(part) // 512 + 1)
    return sum(float(((block - mean) ** 2).sum()) for block in blocks) / len(part)
