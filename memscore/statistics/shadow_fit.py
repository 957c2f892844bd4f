"""Whether a model's confidences could be those of one more shadow model, on examples that none was trained on.

    z_i = (phi_i - mean_i) / (s_i sqrt(1 + 1/M)),    s_i^2 = (8 s^2 + SS_i) / (8 + M - 1)

phi_i is the model's confidence in example i, mean_i and SS_i are mean and sum of squared deviations of the M shadow
models', s^2 is the median over examples of SS_i / (M - 1). A model of the shadow models' own architecture and recipe
has a median z near 0 and a spread near 1, but how near depends on data and recipe: all confidences of a model shift
together. So each shadow model is compared with the others in the same way, and the limits are where one more of them
would lie 99.9 % of the time, though never closer than SHIFT and SPREAD.

The constants are from generated data (benchmarks/audit_trust.py): a shift of .4 or a spread of 1.3 leaves LiRA's AUC
within an eighth of its distance from one half, a shift of .8 takes half of it away.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

STRENGTH = 8.0
"""Weight of what is shared by all examples, or usual in all banks, in models, as in LiRA's prior."""
SHIFT = 0.5
"""Smallest limit of |median z|."""
SPREAD = 1.5
"""Smallest limit of the spread, and its reciprocal the largest lower one."""
USUAL_SHIFT_SD = 0.15
"""Standard deviation of the median z between models of one recipe."""
USUAL_SPREAD_SD = 0.1
"""Standard deviation of the logarithm of their spreads."""
LEVEL = 0.999
"""Share of matching models within the limits, where those exceed SHIFT and SPREAD."""
TARGETS = 64
"""Shadow models that are compared with the others, at most."""
LEAST_MODELS = 3
"""Shadow models without which a spread between them is unknown."""
OUTLYING = 5.0
"""Times the usual distance of a shadow model from the others' median, above which it is left out of this check."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Where a value of one more model like the shadow models lies: lower and upper limit."""

    lo: float
    hi: float

    def contain(self, value: float) -> bool:
        """Return whether the value lies within the limits; NaN does not."""
        return self.lo <= value <= self.hi


@dataclass(frozen=True, kw_only=True)
class ShadowFit:
    """How a model's confidences lie among the shadow models'.

    Attributes:
        examples: on which it was compared.
        models: shadow models that it was compared with.
        outlying: positions of shadow models far from all others, which were left out.
        median: of z.
        spread: of z, half the distance between its 16 % and 84 % quantiles: the standard deviation if z is normal.
        median_limits: of the median.
        spread_limits: of the spread.
    """

    examples: int
    models: int
    outlying: tuple[int, ...]
    median: float
    spread: float
    median_limits: Limits
    spread_limits: Limits

    @property
    def fits(self) -> bool:
        """Whether both are within their limits."""
        return self.median_limits.contain(self.median) and self.spread_limits.contain(self.spread)


def compute_limits(values: np.ndarray, least: float, usual_sd: float) -> Limits:
    """Compute a prediction interval for one more value, at least `least` to each side of the mean.

    mean +- t_{nu} s sqrt(1 + 1/n),    s^2 = (8 usual^2 + (n - 1) sd^2) / nu,  nu = 8 + n - 1,  of level LEVEL

    Without the usual standard deviation, which counts as 8 values, three or four values would allow anything.

    Args:
        values: [n], one for each model, n >= 1; without NaN.
        least: smallest distance from the mean.
        usual_sd: what the standard deviation between models usually is.

    Returns:
        The limits.
    """
    n = len(values)
    mean, df = float(values.mean()), STRENGTH + n - 1
    variance = (STRENGTH * usual_sd**2 + ((values - mean) ** 2).sum()) / df
    reach = float(stdtrit(df, (1 + LEVEL) / 2) * np.sqrt(variance * (1 + 1 / n)))
    return Limits(lo=mean - max(reach, least), hi=mean + max(reach, least))


def find_outlying_models(shadows: np.ndarray) -> np.ndarray:
    """Find shadow models whose confidences are far from the median of all, as of one with other outputs.

    Args:
        shadows: float [M, n], confidence of each shadow model.

    Returns:
        Positions of these models, int64, ascending; none of fewer than LEAST_MODELS.
    """
    if len(shadows) < LEAST_MODELS:
        return np.empty(0, np.int64)
    distance = np.median(np.abs(shadows - np.median(shadows, axis=0)), axis=1)
    return np.flatnonzero(distance > OUTLYING * np.median(distance))


def fit_shadows(target: np.ndarray, shadows: np.ndarray) -> ShadowFit | None:
    """Compare a model's confidences with the shadow models', and these with each other.

    Args:
        target: float [n], the model's confidence in examples that neither it nor any shadow model was trained on.
        shadows: float [M, n], theirs.

    Returns:
        The fit; None without examples, or with fewer than LEAST_MODELS shadow models.
    """
    if not len(target):
        return None
    outlying = find_outlying_models(shadows)
    phi = np.delete(shadows, outlying, axis=0).astype(np.float64)
    models = len(phi)
    if models < LEAST_MODELS:
        return None
    mean = phi.mean(0)
    squares = ((phi - mean) ** 2).sum(0)
    median, spread = _summarize(target - mean, squares, models)
    # every shadow model against the others: mean and squares without it, by downdating
    targets = np.unique(np.linspace(0, models - 1, min(models, TARGETS)).astype(np.int64))
    others = []
    for deviation in phi[targets] - mean:
        without = np.maximum(squares - deviation**2 * models / (models - 1), 0)
        others.append(_summarize(deviation * models / (models - 1), without, models - 1))
    medians, spreads = np.array(others).T
    # a spread is a scale, and its limits are symmetric on the logarithm
    log_limits = compute_limits(np.log(spreads), float(np.log(SPREAD)), USUAL_SPREAD_SD)
    return ShadowFit(
        examples=len(target),
        models=models,
        outlying=tuple(outlying.tolist()),
        median=median,
        spread=spread,
        median_limits=compute_limits(medians, SHIFT, USUAL_SHIFT_SD),
        spread_limits=Limits(lo=float(np.exp(log_limits.lo)), hi=float(np.exp(log_limits.hi))),
    )


def _summarize(deviation: np.ndarray, squares: np.ndarray, models: int) -> tuple[float, float]:
    """Return median and spread of z, from deviations from the mean of the models and their sum of squares."""
    # the median over examples, so that a number that is far out widens no other example's scale
    shared = np.median(squares) / (models - 1)
    variance = (STRENGTH * shared + squares) / (STRENGTH + models - 1) * (1 + 1 / models)
    z = np.divide(deviation, np.sqrt(variance), out=np.sign(deviation) * 1e12, where=variance > 0)
    low, median, high = np.quantile(z, (0.16, 0.5, 0.84))
    return float(median), max(float((high - low) / 2), 1e-12)  # its logarithm is taken
