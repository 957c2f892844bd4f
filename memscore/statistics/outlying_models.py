"""Models whose outputs or accuracy lie far from those of the other models of a bank.

A model that did not converge, or whose outputs are on another scale, is a shadow of all others: it widens every
distribution that an attack fits, so an attack may find nothing although the other models leak. Finite numbers do not
show as diverged. Here a few numbers of each model are compared with their median over all models:

    a = asinh(phi),  phi the logit confidence of one model on one example     (logarithmic in size, linear near 0)

    confidence   mean of a              size        mean of |a|
    spread       log of the sd of a     agreement   artanh of the correlation of a with its mean over the other models
    accuracy     asin sqrt of the share of right predictions, of members and of left-out examples

    z = (x - median) / max(1.4826 median |x - median|, floor)

asinh bounds what one outlying number does: 10^6 in one of 400 examples moves the mean by .04, and 30 times larger
outputs of a model move it by 3.4. All numbers come from sums over examples, which add over blocks.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

SIGNALS = ("logit_confidence", "gap", "top_gap")
"""Columns of outputs, the first that a bank stores is compared."""
MAX_EXAMPLES = 20_000
"""Training examples whose outputs are compared; of more, evenly chosen ones, so that a large bank costs no more."""
FEWEST_MODELS = 4
"""With fewer models than this there is no majority to compare with."""

FLOORS = {
    "confidence": 0.05,
    "size": 0.05,
    "spread": 0.1,
    "agreement": 0.05,
    "accuracy_members": 0.03,
    "accuracy_left_out": 0.03,
}
"""Least scale of each measure, so that models that hardly differ are not far from each other."""


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """One measure in which a model is far from the others.

    Attributes:
        measure: a key of FLOORS.
        value: of the model: confidence and size as a logit confidence, spread as the sd of a, agreement as a
            correlation, accuracies as shares.
        median: of all models, in the same unit.
        z: how many scales it is from the median, on the scale of the equations above.
    """

    measure: str
    value: float
    median: float
    z: float


@dataclass(frozen=True, kw_only=True)
class OutlyingModel:
    """A model far from the others: its position among them, and the measures, the farthest first."""

    position: int
    deviations: tuple[Deviation, ...]


def sum_model_outputs(columns: Mapping[str, np.ndarray], step: int = 1) -> np.ndarray:
    """Sum what the measures of each model need, over one block of examples.

    Args:
        columns: member and correct, bool [M, n], and any of SIGNALS, float [M, n], finite.
        step: outputs of every step-th example are summed.

    Returns:
        float64 [11, M]; sums of disjoint blocks of the same models add. Those of outputs are 0 without a signal.
    """
    member, correct = columns["member"], columns["correct"]
    models = len(member)
    sums = np.zeros((11, models))
    sums[:4] = (correct & member).sum(1), member.sum(1), (correct & ~member).sum(1), (~member).sum(1)
    signal = next((columns[name] for name in SIGNALS if name in columns), None)
    if signal is not None:
        a = np.arcsinh(signal[:, ::step].astype(np.float64))
        # the mean of the other models on each example, so that a model is not compared with itself
        others = (a.sum(0) - a) / max(models - 1, 1)
        sums[4:] = (
            np.full(models, a.shape[1]),
            *(term.sum(1) for term in (a, np.abs(a), a * a, others, others * others, a * others)),
        )
    return sums


def measure_models(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Compute the measures of each model from the sums of all blocks.

    Args:
        sums: float64 [11, M], from sum_model_outputs.

    Returns:
        By the keys of FLOORS float64 [M], on the scale on which they are compared; NaN over no examples. Those of
        outputs are missing where no signal was summed.
    """
    right_in, n_in, right_out, n_out, n, total, size, squares, others, others_squares, products = sums
    with np.errstate(invalid="ignore", divide="ignore"):
        measures = {
            "accuracy_members": np.arcsin(np.sqrt(right_in / n_in)),
            "accuracy_left_out": np.arcsin(np.sqrt(right_out / n_out)),
        }
        if n.any():
            variance = np.maximum(squares / n - (total / n) ** 2, 0)
            others_variance = np.maximum(others_squares / n - (others / n) ** 2, 0)
            covariance = products / n - total / n * others / n
            # rounding leaves a variance of 1e-16 to equal numbers, which are correlated with nothing
            scale = np.sqrt(variance * others_variance)
            correlation = np.where(scale > 1e-9, covariance / scale, 0.0)
            measures |= {
                "confidence": total / n,
                "size": size / n,
                "spread": np.log(np.sqrt(variance) + 0.01),  # constant outputs are a spread of .01, not of 0
                "agreement": np.arctanh(np.clip(correlation, -0.999, 0.999)),
            }
    return measures


def compute_limit(models: int) -> float:
    """Compute the z above which a model is far from the others.

    6 + 48 / M + max(0, log2(M / 256)): the scale from few models is uncertain, and of many models the farthest is
    farther. Without floors one measure names a model of M normal values in .8 % of draws for M = 4, .2 % for 8, .05 %
    for 16 and none of 31,000 for 256; of values from Student's t with 10 degrees of freedom in at most 2.5 %.

    Args:
        models: M.

    Returns:
        The limit.
    """
    return 6 + 48 / models + max(0.0, float(np.log2(models / 256)))


def find_outlying_models(sums: np.ndarray) -> list[OutlyingModel]:
    """Find the models that lie far from the others in any measure, the farthest first.

    Args:
        sums: float64 [11, M], from sum_model_outputs, over all examples.

    Returns:
        Empty where no model does, and for fewer than FEWEST_MODELS models.
    """
    models = sums.shape[1]
    if models < FEWEST_MODELS:
        return []
    found: dict[int, list[Deviation]] = {}
    for name, values in measure_models(sums).items():
        defined = values[~np.isnan(values)]
        if len(defined) < FEWEST_MODELS:
            continue
        median = float(np.median(defined))
        scale = max(1.4826 * float(np.median(np.abs(defined - median))), FLOORS[name])
        z = (values - median) / scale
        # NaN, a side without examples, is not above the limit
        for position in np.flatnonzero(np.abs(z) > compute_limit(models)).tolist():
            value = convert_to_unit(name, float(values[position]))
            deviation = Deviation(measure=name, value=value, median=convert_to_unit(name, median), z=float(z[position]))
            found.setdefault(position, []).append(deviation)
    outlying = [
        OutlyingModel(position=position, deviations=tuple(sorted(deviations, key=lambda each: -abs(each.z))))
        for position, deviations in found.items()
    ]
    return sorted(outlying, key=lambda model: -abs(model.deviations[0].z))


def convert_to_unit(name: str, value: float) -> float:
    """Convert a measure from the scale on which it is compared to the unit in which it is reported.

    Args:
        name: a key of FLOORS.
        value: on the scale of measure_models.

    Returns:
        A logit confidence, an sd, a correlation or a share.
    """
    if name in {"confidence", "size"}:
        return float(np.sinh(value))
    if name == "spread":
        return float(np.exp(value) - 0.01)
    return float(np.tanh(value)) if name == "agreement" else float(np.sin(value) ** 2)
