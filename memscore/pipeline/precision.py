"""Forecast the precision of memorization from the first models of an arm.

    RMSE(M)^2 = mean q (1 - q) / ((1 - p) M) + mean r (1 - r) / (p M)

over examples: q and r are the probabilities of a correct prediction without and with the example in the training set,
and p is the share of the examples that a model is trained on. It is the binomial error of memorization (Feldman & Zhang
2020, equation 1), so it is what compute_bank_rmse measures; orthogonal designs have a smaller error, which only the
error between blocks shows. In iid arms the models without an example are (1 - p) M only on average: the measured error
divides by each example's own number and leaves out examples with fewer than two, so both differ: at keep 0.7 by some
per cent with 32 models, by a quarter with 5.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from memscore.estimators.memorization import compute_bank_rmse, count_by_membership, sum_variances_from_counts
from memscore.store.shards import build_shard_path, format_model_name, parse_model_index
from memscore.store.store import Store
from memscore.subsets.designs import Arm

MIN_FIRST_MODELS = 32
"""Models below which the first estimate is too imprecise for a forecast."""
SHARE_PER_STEP = 0.9
"""Share of the models that are estimated to be needed after which the error is measured again."""
DEFAULT_RMSES = (0.05, 0.03, 0.02)
"""Errors that are forecast where the user requests none."""
READ_BYTES = 24 * 2**20  # memory for two blocks as read
SHARDS_SAMPLED = 4  # shards whose size is measured


@dataclass(frozen=True, kw_only=True)
class OutcomeVariance:
    """Variance of the models' correctness, mean over examples.

    Attributes:
        out: mean of q (1 - q), over models without the example.
        inside: mean of r (1 - r), over models with it.
    """

    out: float
    inside: float

    def predict_rmse(self, keep: float, models: int) -> float:
        """Predict the error of memorization from so many models of an arm with this keep."""
        return float(np.sqrt(self.out / ((1 - keep) * models) + self.inside / (keep * models)))


def compute_outcome_variance(
    k_in: np.ndarray, n_in: np.ndarray, k_out: np.ndarray, n_out: np.ndarray
) -> OutcomeVariance:
    """Compute both means from counts [N], over examples with two models or more on each side; NaN without any.

    Each example's k (n - k) / (n (n - 1)) is unbiased for p (1 - p).
    """
    defined = (n_in >= 2) & (n_out >= 2)
    if not defined.any():
        return OutcomeVariance(out=float("nan"), inside=float("nan"))
    out, inside = (
        float(np.mean(k[defined] * (n - k)[defined] / (n[defined] * (n[defined] - 1.0))))
        for k, n in ((k_out, n_out), (k_in, n_in))
    )
    return OutcomeVariance(out=out, inside=inside)


def count_first_models(arm: Arm) -> int:
    """Return how many models a forecast needs: whole blocks with at least 32 models.

    >>> [count_first_models(Arm(design=d, block=b)) for d, b in (("orthogonal", 64), ("iid", 1), ("exact", 20))]
    [64, 32, 40]
    """
    return arm.models_per_block * -(-MIN_FIRST_MODELS // arm.models_per_block)


def compute_models_needed(variance: OutcomeVariance, arm: Arm, rmse: float) -> int:
    """Compute the smallest number of models, in whole blocks, whose predicted error is at most this."""
    return _round_up_to_blocks((variance.predict_rmse(arm.keep, 1) / rmse) ** 2, arm.models_per_block)


def rescale_models_needed(models: int, measured: float, arm: Arm, rmse: float) -> int:
    """Compute the same from the error measured with `models`, which falls with the square root of their number."""
    return _round_up_to_blocks(models * (measured / rmse) ** 2, arm.models_per_block)


def choose_next_model_count(arm: Arm, done: int, needed: int, maximum: int) -> int:
    """Choose up to how many models, in whole blocks, to train before the error is measured again.

    Nine tenths of those that are estimated to be `needed` (any number if there is no estimate), then steps.

    >>> [choose_next_model_count(Arm(), done, 640, 10_000) for done in (64, 576, 640)]
    [576, 640, 704]
    """
    step = count_first_models(arm)
    return min(max(done + step, int(SHARE_PER_STEP * needed) // step * step), maximum)


def _round_up_to_blocks(models: float, block: int) -> int:
    """Round up to blocks, at least one; less than a millionth of a model is a rounding error."""
    return max(int(np.ceil((models - 1e-6) / block)), 1) * block


@dataclass(frozen=True, kw_only=True)
class ModelRequirement:
    """What one requested error takes.

    Attributes:
        rmse: requested.
        models: in total, whole blocks.
        hours: until the missing ones are trained.
        bytes: of the shards of all of them.
    """

    rmse: float
    models: int
    hours: float
    bytes: float


@dataclass(frozen=True, kw_only=True)
class PrecisionForecast:
    """Precision of an arm, forecast from its first models.

    Attributes:
        arm: the design.
        models: how many of the first models are valid.
        variance: of their correctness.
        rmse: the error of memorization from them alone.
        stored: stored models of the arm when this was made.
        seconds: of one worker for one model; NaN where no receipt has it.
        workers: how many train at once.
        bytes: of one shard.
    """

    arm: Arm
    models: int
    variance: OutcomeVariance
    rmse: float
    stored: int
    seconds: float
    workers: int
    bytes: float

    def compute_requirement(self, rmse: float) -> ModelRequirement:
        """Compute what this error takes."""
        # fewer may do, but the first models are stored already
        models = max(compute_models_needed(self.variance, self.arm, rmse), self.models)
        hours = self.seconds * max(models - self.stored, 0) / self.workers / 3600
        return ModelRequirement(rmse=rmse, models=models, hours=hours, bytes=models * self.bytes)


@dataclass(frozen=True, kw_only=True)
class ForecastCheck:
    """A forecast beside the result.

    Attributes:
        suffix: of the arm's scores.
        planned_from: models that the forecast was made from.
        wish: the requested error, if any; the field's name is a key of summary.json.
        models_predicted: for that error; None without a request.
        models: number of models now.
        rmse_predicted: for so many; the measured error if the forecast was made from as many.
        rmse: measured.
        more: models in total that would reach the requested error, by the measured one; None if it is reached.
    """

    suffix: str
    planned_from: int
    wish: float | None
    models_predicted: int | None
    models: int
    rmse_predicted: float
    rmse: float
    more: int | None


def check_forecast(
    forecast: PrecisionForecast, suffix: str, models: int, rmse: float, target_rmse: float | None
) -> ForecastCheck:
    """Compare a forecast with the arm after training: the number of models now, and the error measured on them."""
    is_reached = target_rmse is None or rmse <= target_rmse
    return ForecastCheck(
        suffix=suffix,
        planned_from=forecast.models,
        wish=target_rmse,
        models_predicted=None
        if target_rmse is None
        else compute_models_needed(forecast.variance, forecast.arm, target_rmse),
        models=models,
        rmse_predicted=forecast.rmse
        if models == forecast.models
        else forecast.variance.predict_rmse(forecast.arm.keep, models),
        rmse=rmse,
        more=None
        if is_reached or target_rmse is None
        else rescale_models_needed(models, rmse, forecast.arm, target_rmse),
    )


def forecast_precision(store: Store, arm: Arm, workers: int) -> PrecisionForecast | None:
    """Forecast the precision of an arm from its first models.

    None if too few of them are valid for any example to have two models on each side.
    """
    stored = find_stored_models(store, arm)
    first_models = [index for index in stored if index < count_first_models(arm)]
    if not first_models:
        return None
    counts = read_membership_counts(store, arm, first_models)
    variance = compute_outcome_variance(*counts)
    if np.isnan(variance.out):
        return None
    # a restored receipt was written again from a shard, which does not hold its seconds
    receipts, names = store.receipts(), [format_model_name(arm.name, index) for index in first_models]
    seconds = [receipts[name]["seconds"] for name in names if name in receipts and "restored" not in receipts[name]]
    sizes = [len(store.folder.read(build_shard_path(arm.name, index))) for index in first_models[:SHARDS_SAMPLED]]
    return PrecisionForecast(
        arm=arm,
        models=len(first_models),
        variance=variance,
        rmse=compute_rmse_from_counts(counts),
        stored=len(stored),
        seconds=float(np.mean(seconds)) if seconds else float("nan"),
        workers=max(workers, 1),
        bytes=float(np.mean(sizes)),
    )


def find_stored_models(store: Store, arm: Arm) -> list[int]:
    """Find the models of an arm that have a shard, in ascending order; shards are not verified."""
    names = (name.removesuffix(".parquet") for name in store.folder.names("shards"))
    return sorted(index for name in names if (index := parse_model_index(name, arm.name)) is not None)


def read_membership_counts(store: Store, arm: Arm, models: Sequence[int]) -> np.ndarray:
    """Count for each example correct models in, models in, correct models out, models out: int64 [4, N].

    `models` are ascending indices, at least one; counts of disjoint sets of models add up.
    """
    blocks = store.read_blocks(arm.name, models, ["correct", "member"], max_bytes=READ_BYTES)
    return np.concatenate(
        [count_by_membership(block.columns["correct"], block.columns["member"]) for block in blocks], axis=1
    )


def compute_rmse_from_counts(counts: np.ndarray) -> float:
    """Compute the bank's RMSE; NaN where no example has two models on each side."""
    return compute_bank_rmse([sum_variances_from_counts(*counts)])
