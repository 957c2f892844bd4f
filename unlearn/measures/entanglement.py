"""How entangled the forget and the retain set are where the last layer reads them.

    ES = ( mean_R ||phi_i - mu_R||^2 + mean_F ||phi_j - mu_F||^2 ) / ( (||mu_R - mu||^2 + ||mu_F - mu||^2) / 2 )

RUM eq. 2, after Goldblum et al. 2020; phi embeddings, mu the mean over all of R and F. High is entangled, and hard to
unlearn. Of theta_o it is a property of the forget set; of theta_u it says whether unlearning has drawn the two apart
where theta_r has not.

Differs from the released code, whose mu is the unweighted mean of mu_R and mu_F, which gives 2 (r^2 + f^2) / (r + f)^2
times as much (1.751 for 3,000 of 45,000), and whose set means are means of batch means. Compare within one convention.
"""

import numpy as np

from unlearn.measures.inputs import Column, EvaluationInputs

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


def entanglement(case: EvaluationInputs) -> dict[str, float]:
    """ES by the judged model and by theta_o."""
    return {
        name: entanglement_score(views.embeddings[case.retain], views.embeddings[case.forget])
        for name, views in (("entanglement", case.judged), ("entanglement_original", case.theta_o))
    }


def entanglement_score(retain: np.ndarray, forget: np.ndarray) -> float:
    """ES of two sets of embeddings.

    Args:
        retain: float [r, E].
        forget: float [f, E].

    Returns:
        At least 0, higher is more entangled; NaN where a set is empty or the two means are one.
    """
    if not len(retain) or not len(forget):
        return float("nan")
    kept, dropped = len(retain), len(forget)
    mean_kept, mean_dropped = (part.mean(0, dtype=np.float64) for part in (retain, forget))
    middle = (kept * mean_kept + dropped * mean_dropped) / (kept + dropped)
    within = _spread(retain, mean_kept) + _spread(forget, mean_dropped)
    between = float(((mean_kept - middle) ** 2).sum() + ((mean_dropped - middle) ** 2).sum()) / 2
    return within / between if between > 0 else float("nan")


def _spread(part: np.ndarray, mean: np.ndarray) -> float:
    """Mean squared distance from the mean, a block of rows at a time."""
    blocks = np.array_split(part, len(part) // 512 + 1)
    return sum(float(((block - mean) ** 2).sum()) for block in blocks) / len(part)
