"""Measure the precision of memorization, and forecast it from the first models of an arm.

It is the RMSE of the blend of counts and probit (memorization_blend.py), or of the counts where halves of the models
define no blend. The counts' error follows from the variance of the models' correctness:

    RMSE(M)^2 = mean q (1 - q) / ((1 - p) M) + mean r (1 - r) / (p M)

over examples: q and r are the probabilities of a correct prediction without and with the example in the training set,
and p is the share of the examples that a model is trained on. It is the binomial error of memorization (Feldman & Zhang
2020, equation 1), so it is what compute_bank_rmse measures; orthogonal designs have a smaller error, which only blocks
show: the blend's error is measured between them where there are two or more. In iid arms the models without an example
are (1 - p) M only on average: the measured error divides by each example's own number and leaves out examples with
fewer than two, so both differ: at keep 0.7 by some per cent with 32 models, by a quarter with 5. The blend's variances
are taken to change with the number of models as the counts' do, the bias of the probit stays, and each number of models
has the weight that is the best one there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from cluster.pool import Pool
from memscore.estimators.memorization import compute_bank_rmse, count_by_membership, sum_variances_from_counts
from memscore.estimators.memorization_blend import BLEND, BLENDED, BlendFit, BlendSums, fit_blend, sum_for_blend
from memscore.estimators.statistic import compute_tables, compute_weighted_values
from memscore.pipeline.map_reduce import map_blocks
from memscore.pipeline.model_sets import ModelSets, draw_model_sets
from memscore.store.block_reader import Block, split_blocks
from memscore.store.shards import build_shard_path, format_model_name, parse_model_index
from memscore.store.store import Store
from memscore.subsets.designs import Arm

MIN_FIRST_MODELS = 32
"""Models below which the first estimate is too imprecise for a forecast."""
SHARE_PER_STEP = 0.9
"""Share of the models that are estimated to be needed after which the error is measured again."""
COUNTS = next(iter(BLENDED))
"""The score whose error is used where there is no blend."""

INDEPENDENT = "independent models"
"""An RMSE as of models whose subsets are independent: an orthogonal design's is smaller."""
BETWEEN_BLOCKS = "between blocks"
"""An RMSE measured between whole blocks of models, which includes what a design cancels within them."""
DEFAULT_RMSES = (0.05, 0.03, 0.02)
"""Errors that are forecast where the user requests none."""
SHARDS_SAMPLED = 4  # shards whose size is measured
ROUNDING = 1e-9  # share of an error: an exact number of models must not become one more


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


def choose_next_model_count(arm: Arm, done: int, needed: int, maximum: int) -> int:
    """Choose up to how many models, in whole blocks, to train before the error is measured again.

    Nine tenths of those that are estimated to be `needed` (any number if there is no estimate), then steps.

    >>> [choose_next_model_count(Arm(), done, 640, 10_000) for done in (64, 576, 640)]
    [576, 640, 704]
    """
    step = count_first_models(arm)
    return min(max(done + step, int(SHARE_PER_STEP * needed) // step * step), maximum)


@dataclass(frozen=True, kw_only=True)
class MeasuredPrecision:
    """Precision of memorization from some models of an arm, and what it says of other numbers of models.

    Attributes:
        models: their number.
        counts_rmse: error of the counts; NaN where no example has two models on each side.
        blend: the blend of counts and probit; None for a bank without gaps.
        variance: of the models' correctness, for forecasts; without it errors fall with the root of the models.
    """

    models: int
    counts_rmse: float
    blend: BlendFit | None
    variance: OutcomeVariance | None = None

    @property
    def score(self) -> str:
        """The score whose error this is, without the arm's suffix."""
        return COUNTS if self._defined_blend is None else BLEND

    @property
    def estimate(self) -> str:
        """How that error was estimated: BETWEEN_BLOCKS or INDEPENDENT."""
        return BETWEEN_BLOCKS if self._defined_blend is not None and not self.lacks_blocks else INDEPENDENT

    @property
    def rmse(self) -> float:
        """The error of that score; NaN where it is undefined."""
        return self.counts_rmse if self._defined_blend is None else self._defined_blend.rmse

    @property
    def lacks_blocks(self) -> bool:
        """The error is the blend's as of independent models, since there is no second block to compare with."""
        return self._defined_blend is not None and not self._defined_blend.is_between_blocks

    def predict_rmse(self, keep: float, models: int) -> float:
        """Predict the error from so many models of an arm with this keep; from as many as there are, as measured."""
        return self.rmse if models == self.models else self._scale_rmse(keep, models)

    def compute_models_needed(self, arm: Arm, rmse: float) -> int:
        """Compute the smallest number of models, in whole blocks, whose predicted error is at most this."""

        def is_enough(blocks: int) -> bool:
            return self._scale_rmse(arm.keep, blocks * arm.models_per_block) <= rmse * (1 + ROUNDING)

        blocks = 1
        while not is_enough(blocks):
            blocks *= 2
        # the error falls with the number of models: halve the numbers between one that is too few and one that is not
        too_few = blocks // 2
        while blocks - too_few > 1:
            middle = (too_few + blocks) // 2
            too_few, blocks = (too_few, middle) if is_enough(middle) else (middle, blocks)
        return blocks * arm.models_per_block

    @property
    def _defined_blend(self) -> BlendFit | None:
        return None if self.blend is None or np.isnan(self.blend.rmse) else self.blend

    def _scale_rmse(self, keep: float, models: int) -> float:
        """Scale the error to so many models."""
        share = self.models / models
        # in iid arms the measured variance divides by each example's own number of models, which varies
        if self.variance is not None and self.counts_rmse:
            share = (self.variance.predict_rmse(keep, models) / self.counts_rmse) ** 2
        if self._defined_blend is not None:
            return self._defined_blend.predict_rmse(share)
        return self.counts_rmse * float(np.sqrt(share))


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
        measured: precision from those of the first models that are valid.
        stored: stored models of the arm when this was made.
        seconds: of one worker for one model; NaN where no receipt has it.
        workers: how many train at once.
        bytes: of one shard.
    """

    arm: Arm
    measured: MeasuredPrecision
    stored: int
    seconds: float
    workers: int
    bytes: float

    def compute_requirement(self, rmse: float) -> ModelRequirement:
        """Compute what this error takes."""
        # fewer may do, but the first models are stored already
        models = max(self.measured.compute_models_needed(self.arm, rmse), self.measured.models)
        hours = self.seconds * max(models - self.stored, 0) / self.workers / 3600
        return ModelRequirement(rmse=rmse, models=models, hours=hours, bytes=models * self.bytes)


@dataclass(frozen=True, kw_only=True)
class ForecastCheck:
    """A forecast beside the result.

    Attributes:
        suffix: of the arm's scores.
        score: whose error this is, without the suffix.
        planned_score: whose error was forecast; another one only if the first models defined no blend.
        planned_from: models that the forecast was made from.
        wish: the requested error, if any; the field's name is a key of summary.json.
        models_predicted: for that error; None without a request.
        models: number of models now.
        rmse_predicted: for so many; the measured error if the forecast was made from as many.
        rmse: measured.
        more: models in total that would reach the requested error, by the measured one; None if it is reached.
    """

    suffix: str
    score: str
    planned_score: str
    planned_from: int
    wish: float | None
    models_predicted: int | None
    models: int
    rmse_predicted: float
    rmse: float
    more: int | None


def check_forecast(
    forecast: PrecisionForecast, suffix: str, measured: MeasuredPrecision, target_rmse: float | None
) -> ForecastCheck:
    """Compare a forecast with the arm after training: the number of models now, and the error measured on them."""
    is_reached = target_rmse is None or measured.rmse <= target_rmse
    return ForecastCheck(
        suffix=suffix,
        score=measured.score,
        planned_score=forecast.measured.score,
        planned_from=forecast.measured.models,
        wish=target_rmse,
        models_predicted=None
        if target_rmse is None
        else forecast.measured.compute_models_needed(forecast.arm, target_rmse),
        models=measured.models,
        rmse_predicted=forecast.measured.predict_rmse(forecast.arm.keep, measured.models),
        rmse=measured.rmse,
        more=None if is_reached or target_rmse is None else measured.compute_models_needed(forecast.arm, target_rmse),
    )


def forecast_precision(store: Store, arm: Arm, workers: int) -> PrecisionForecast | None:
    """Forecast the precision of an arm from its first models.

    None if too few of them are valid for any example to have two models on each side.
    """
    stored = find_stored_models(store, arm)
    first_models = [index for index in stored if index < count_first_models(arm)]
    if not first_models:
        return None
    measured = measure_precision(store, arm, first_models)
    if np.isnan(measured.rmse):
        return None
    # a restored receipt was written again from a shard, which does not hold its seconds
    receipts, names = store.receipts(), [format_model_name(arm.name, index) for index in first_models]
    seconds = [receipts[name]["seconds"] for name in names if name in receipts and "restored" not in receipts[name]]
    sizes = [len(store.folder.read(build_shard_path(arm.name, index))) for index in first_models[:SHARDS_SAMPLED]]
    return PrecisionForecast(
        arm=arm,
        measured=measured,
        stored=len(stored),
        seconds=float(np.mean(seconds)) if seconds else float("nan"),
        workers=max(workers, 1),
        bytes=float(np.mean(sizes)),
    )


def find_stored_models(store: Store, arm: Arm) -> list[int]:
    """Find the models of an arm that have a shard, in ascending order; shards are not verified."""
    names = (name.removesuffix(".parquet") for name in store.folder.names("shards"))
    return sorted(index for name in names if (index := parse_model_index(name, arm.name)) is not None)


def measure_precision(
    store: Store, arm: Arm, models: Sequence[int], pool: Pool | None = None, *, with_blend: bool = True
) -> MeasuredPrecision:
    """Measure the precision of memorization from some models of an arm, ascending indices, as scoring them would.

    Without the blend only counts are read, in a tenth of the time.
    """
    stored = store.read_shard_columns(arm.name, models[0])
    signals = dict.fromkeys(statistic.signal for statistic in BLENDED.values())
    has_gaps = with_blend and all(signal in stored for signal in signals)
    columns = ["member", *signals] if has_gaps else ["member", "correct"]
    sets = draw_model_sets(store.manifest.seed, arm.name, models, arm) if has_gaps else None
    parts, sums = [], list[BlendSums]()
    for _, (counts, blend_sums) in map_blocks(
        store, arm.name, models, columns, partial(sum_block, sets=sets), pool=pool
    ):
        parts.append(counts)
        sums += blend_sums
    counts = np.concatenate(parts, axis=1)
    return MeasuredPrecision(
        models=len(models),
        counts_rmse=compute_bank_rmse([sum_variances_from_counts(*counts)]),
        blend=None if sets is None else fit_blend(sums, sets.block_share),
        variance=compute_outcome_variance(*counts),
    )


def sum_block(block: Block, sets: ModelSets | None) -> tuple[np.ndarray, list[BlendSums]]:
    """Sum what the precision follows from over one block: membership counts int64 [4, n], and the blend's sums."""
    counts = np.array(count_by_membership(block.columns["correct"], block.columns["member"]))
    if sets is None:
        return counts, []
    # the same parts as scoring has, so that both sum in the same order
    sums = [
        sum_for_blend(
            compute_tables(BLENDED, part.columns),
            compute_weighted_values(BLENDED, sets.weights[sets.fit], part.columns),
            part.columns,
        )
        for part in split_blocks([block])
    ]
    return counts, sums
