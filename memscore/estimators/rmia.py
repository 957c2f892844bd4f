"""RMIA: how much training raises an example's probability, against a population.

    LR(x, z) = [p(x|t) / p(x)] / [p(z|t) / p(z)],    score(x) = Pr_z[ LR(x, z) > gamma ]

Zarifzadeh et al. 2024 (ICML), equations 2-4; p(x|t) is target t's probability of the label, z the validation examples,
on which no model of a bank was trained. p(x) comes from models other than the target:

    online    (p_in + p_out) / 2,     the means over models trained on x and over models trained without it
    offline   ((1 + a) p_out + (1 - a)) / 2,     p_in approximated by a p_out + 1 - a

and p(z) the same of its out-models: online p_out, since no model was trained on z, offline the same formula.

The pairs are never computed: LR(x, z) > gamma where the ratio of z is below that of x divided by gamma, so one sort of
the z's and one search per x count them, ties not counted: O((N + Z) log Z) instead of N Z.

For one target the score is therefore a step function of the ratio p(x|t) / p(x), with as many steps as there are z's:
the most exposed examples, above all z's, tie at 1. The ratio puts examples in the same order, and breaks these ties.
Its log was published as BASE (Lassila et al. 2025), which needs no population. So whatever depends on the order of one
target's examples (ROC curves, areas, rates) is computed from the ratio. Above 1 the target gives the label more
probability than p(x): the threshold of RMIA's attack success, which is fixed and not fitted to any score. A mean over
targets is of the ratio and not of its log: the ratio is at most 2 (offline 2 / (1 - a)), and one target that fails on
the example adds 0 to the sum, not a log of any size.

Every model in turn is the target; from the others one is dropped as in lira.py, so that the numbers of in- and
out-models do not reveal membership. A probability of 0 is an ordinary value: which models count is read from the
memberships, not from the probabilities. In a ratio, probabilities below the smallest normal number of float64 count as
that number: where the target and all others say 0 the ratio is 1, no evidence, and every log ratio is finite.

Differs from the research code: gamma 1 and the plain softmax, as in its later versions; means are not trimmed. Its
tempered and Taylor softmax need all logits, of which a bank stores three numbers: these options are rejected.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from memscore.choices import validate_choice
from memscore.estimators.shadow_moments import find_in_surplus, find_next_on_side
from memscore.units import format_count

KINDS = ("online", "offline")
SIGNALS = ("softmax", "taylor-softmax", "sm-softmax", "sm-taylor-softmax")
SMALLEST_PROBABILITY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True, kw_only=True)
class RmiaConfig:
    """The form of p(x), and the ratio above which an example exceeds a population example.

    Attributes:
        kind: "online" or "offline", the form of p(x).
        gamma: above 0, the ratio that LR(x, z) must exceed.
        offline_a: a of the offline form, in [0, 1]; the default is CIFAR-10's in the paper's code.
        signal: "softmax"; the other names are known, and rejected because they need all logits.
        temperature: of the softmax; 1, for the same reason.
    """

    kind: str = "online"
    gamma: float = 1.0
    offline_a: float = 0.3
    signal: str = "softmax"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        validate_choice("kind of RMIA", self.kind, KINDS)
        if validate_choice("signal of RMIA", self.signal, SIGNALS) != "softmax" or self.temperature != 1:
            raise ValueError(
                f"RMIA's signal {self.signal!r} at temperature {self.temperature:g} needs all logits of a model, and a "
                "bank keeps the label's probability only; use signal 'softmax' at temperature 1"
            )
        if not self.gamma > 0:
            raise ValueError(f"gamma is a ratio above 0, got {self.gamma:g}; 1 and 2 are usual")
        if not 0 <= self.offline_a <= 1:
            raise ValueError(f"offline_a lies between 0 and 1, got {self.offline_a:g}; 0.3 is the paper's for CIFAR-10")


def rmia_population(confidence: np.ndarray, config: RmiaConfig) -> np.ndarray:
    """Compute each target's ratios on the population, sorted for rmia.

    Args:
        confidence: float [M, Z], logit confidence of model m in population example z's label; no model was
            trained on any of them.
        config: the attack.

    Returns:
        float64 [M, Z], p(z|t) / p(z) for every model as target, each row sorted; NaN last, where a confidence is.

    Raises:
        ValueError: the population is empty, or there is one model only, so that the target has no others.
    """
    models, size = confidence.shape
    if models < 2 or size < 1:
        raise ValueError(
            f"RMIA compares with validation examples under other models, got {format_count(size, 'example')} and "
            f"{format_count(models, 'model')}; use "
            "a bank of 2 models or more that was begun with a validation set"
        )
    # No model was trained on z, so all other models are its out-models, and none needs to be dropped. The maximum is
    # for rounding: a sum of probabilities minus one of them may be just below 0.
    p = _probability(confidence)
    others = np.maximum(p.sum(0) - p, 0) / (models - 1)
    return np.sort(_compute_ratio(p, _reference_probability(others, others, config)), axis=1)


def rmia_ratio(confidence: np.ndarray, member: np.ndarray, keep: float, config: RmiaConfig) -> np.ndarray:
    """Compute p(x|t) / p(x) of each example, for every target; its log is the score of BASE.

    Args:
        confidence: float [M, N], logit confidence of model m in example n's label.
        member: bool [M, N], example n was in model m's training set.
        keep: the arm's keep fraction; decides which side loses the extra model.
        config: the attack.

    Returns:
        float64 [M, N], above 0 and finite, higher for members; NaN where a required side has no model.
    """
    # means over the shadows of each target, [M, N]; the dropped shadow is an in-model where drop_in, else an out-model
    p, drop_in = _probability(confidence), find_in_surplus(member, keep)
    p_out = _mean_without_target(p, ~member, ~drop_in)
    p_in = _mean_without_target(p, member, drop_in) if config.kind == "online" else p_out
    return _compute_ratio(p, _reference_probability(p_in, p_out, config))


def rmia(
    confidence: np.ndarray, member: np.ndarray, population: np.ndarray, keep: float, config: RmiaConfig
) -> np.ndarray:
    """Compute the fraction of the population that an example exceeds, for every target.

    Args:
        confidence: float [M, N], logit confidence of model m in example n's label.
        member: bool [M, N], example n was in model m's training set.
        population: from rmia_population, same models and config.
        keep: the arm's keep fraction; decides which side loses the extra model.
        config: the attack.

    Returns:
        float64 [M, N] in [0, 1], higher for members; NaN where a required side has no model.
    """
    return count_exceeded(rmia_ratio(confidence, member, keep, config), population, config)


def count_exceeded(ratios: np.ndarray, population: np.ndarray, config: RmiaConfig) -> np.ndarray:
    """Compute the fraction of each target's population that its ratios exceed.

    Args:
        ratios: float [M, N], from rmia_ratio.
        population: float [M, Z], from rmia_population.
        config: the attack.

    Returns:
        float64 [M, N] in [0, 1]; NaN where a ratio is.
    """
    # LR(x, z) > gamma where the ratio of z is below that of x / gamma: a search in each target's sorted ratios
    return np.stack([compute_share_below(z, x / config.gamma) for x, z in zip(ratios, population, strict=True)])


def external_rmia_population(target: np.ndarray, confidence: np.ndarray, config: RmiaConfig) -> np.ndarray:
    """Compute rmia_population for one target outside the bank.

    Args:
        target: float [Z], the target's logit confidence in the population's labels.
        confidence: float [M, Z], the bank's.
        config: the attack.

    Returns:
        float64 [Z], sorted.
    """
    p_out = _probability(confidence).mean(0)
    return np.sort(_compute_ratio(_probability(target), _reference_probability(p_out, p_out, config)))


def external_rmia_ratio(
    target: np.ndarray, confidence: np.ndarray, member: np.ndarray, config: RmiaConfig
) -> np.ndarray:
    """Compute each example's p(x|t) / p(x) for one target outside the bank; its log is the score of BASE.

    No model is dropped: the number trained on an example does not depend on this target's training set.

    Args:
        target: float [N], the target's logit confidence.
        confidence: float [M, N], the bank's.
        member: bool [M, N], of the bank.
        config: the attack.

    Returns:
        float64 [N], above 0 and finite, higher for members; NaN where a required side is empty.
    """
    p = _probability(confidence)
    p_out = _divide_by_count(np.where(member, 0, p).sum(0), (~member).sum(0))
    p_in = _divide_by_count(np.where(member, p, 0).sum(0), member.sum(0)) if config.kind == "online" else p_out
    return _compute_ratio(_probability(target), _reference_probability(p_in, p_out, config))


def external_rmia(
    target: np.ndarray, confidence: np.ndarray, member: np.ndarray, population: np.ndarray, config: RmiaConfig
) -> np.ndarray:
    """Compute each example's score for one target outside the bank.

    Args:
        target: float [N], the target's logit confidence.
        confidence: float [M, N], the bank's.
        member: bool [M, N], of the bank.
        population: from external_rmia_population, same target and config.
        config: the attack.

    Returns:
        float64 [N] in [0, 1], higher for members; NaN where a required side is empty.
    """
    return compute_share_below(population, external_rmia_ratio(target, confidence, member, config) / config.gamma)


def compute_share_below(ordered: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Compute the fraction of sorted values below each bound; equal values are not below.

    Args:
        ordered: [Z], sorted, NaN last and not counted.
        bounds: [N].

    Returns:
        float64 [N] in [0, 1]; NaN where the bound is NaN or there are no values.

    >>> compute_share_below(np.array([1.0, 2.0, 2.0, 3.0]), np.array([2.0, 2.5, np.nan]))
    array([0.25, 0.75,  nan])
    """
    defined = ordered[: len(ordered) - int(np.isnan(ordered).sum())]
    if not len(defined):
        return np.full(len(bounds), np.nan)
    return np.where(np.isnan(bounds), np.nan, np.searchsorted(defined, bounds, side="left") / len(defined))


def _probability(confidence: np.ndarray) -> np.ndarray:
    """Compute p_y from its log-odds, in float64: above 0 down to -745."""
    p: np.ndarray = expit(confidence.astype(np.float64))
    return p


def _reference_probability(p_in: np.ndarray, p_out: np.ndarray, config: RmiaConfig) -> np.ndarray:
    """Compute p(x) from the means of models trained on x and of models trained without it."""
    # offline p_in is approximated by a p_out + 1 - a, so its mean with p_out is this sum over 2
    a = config.offline_a
    reference: np.ndarray = ((1 + a) * p_out + (1 - a) if config.kind == "offline" else p_in + p_out) / 2
    return reference


def _mean_without_target(p: np.ndarray, side: np.ndarray, drop: np.ndarray) -> np.ndarray:
    """Compute one side's mean [M, N] without the target and, where `drop`, its next model."""
    # the whole side's sum and count, less the target's and the dropped model's, which are 0 on the other side
    values = np.where(side, p, 0)
    dropped = np.where(drop, find_next_on_side(p, side), 0)
    return _divide_by_count(np.maximum(values.sum(0) - values - dropped, 0), side.sum(0) - side - drop.astype(np.int64))


def _divide_by_count(total: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Divide sums by counts; NaN where the count is 0."""
    mean: np.ndarray = np.where(n > 0, total / np.maximum(n, 1), np.nan)
    return mean


def _compute_ratio(p: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Divide by the reference, both at least the smallest normal float64; NaN where either is."""
    # 0 / 0 and p / 0 would leave examples without a score where the others' certainty is complete
    ratio: np.ndarray = np.maximum(p, SMALLEST_PROBABILITY) / np.maximum(reference, SMALLEST_PROBABILITY)
    return ratio
