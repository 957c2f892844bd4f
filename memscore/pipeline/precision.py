"""What the first models of an arm say about all that are to come: models, hours and disk for a wanted precision.

How many models a wanted precision takes, from what a few models say.

    RMSE(M)^2 = mean q (1 - q) / ((1 - p) M) + mean r (1 - r) / (p M)

over examples: q and r are the chances of being right without and with the example in the training set, p the share of
the examples that a model sees. It is the binomial error of memorization (Feldman & Zhang 2020, equation 1), so it is
what compute_bank_rmse measures; orthogonal designs do better than it says, which only the error between blocks sees.
In iid arms the models without an example are (1 - p) M in the mean only: what is measured divides by each example's own
number and leaves out those with fewer than two, so both differ: at keep 0.7 by some per cent with 32 models, by a
quarter with 5.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from memscore.estimators.memorization import compute_bank_rmse, count_by_membership, sum_variances_from_counts
from memscore.store.shards import build_shard_path, format_model_name, parse_model_index
from memscore.store.store import Store
from memscore.subsets.designs import Arm

FEW = 32
"""Models below which the first estimate is too rough to plan with."""
CAREFUL = 0.9
"""Share of the models thought to be missing that is trained before the next look."""


@dataclass(frozen=True, kw_only=True)
class OutcomeVariance:
    """How undecided models are about an example, mean over examples.

    Attributes:
        out: mean of q (1 - q), over models without the example.
        inside: mean of r (1 - r), over models with it.
    """

    out: float
    inside: float

    def rmse(self, keep: float, models: int) -> float:
        """The error that so many models of an arm with this keep leave."""
        return float(np.sqrt(self.out / ((1 - keep) * models) + self.inside / (keep * models)))


def compute_outcome_variance(
    k_in: np.ndarray, n_in: np.ndarray, k_out: np.ndarray, n_out: np.ndarray
) -> OutcomeVariance:
    """Both means from counts, each example's k (n - k) / (n (n - 1)) being unbiased for its share's p (1 - p).

    Args:
        k_in: int [N], models that held the example and were right.
        n_in: int [N], models that held it.
        k_out: int [N], models that did not hold it and were right.
        n_out: int [N], models that did not hold it.

    Returns:
        The means over examples with two models or more on each side; NaN without any.
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
    """How many models a plan is made from: one block, or as many whole ones as make 32 models.

    Args:
        arm: the arm.

    Returns:
        Models, in whole blocks.

    >>> [count_first_models(Arm(design=d, block=b)) for d, b in (("orthogonal", 64), ("iid", 1), ("exact", 20))]
    [64, 32, 40]
    """
    return arm.models_per_block * -(-FEW // arm.models_per_block)


def compute_models_needed(spread: OutcomeVariance, arm: Arm, rmse: float) -> int:
    """The smallest whole number of blocks whose predicted error is at most this.

    Args:
        spread: of the arm's models.
        arm: the arm.
        rmse: wanted, above 0.

    Returns:
        Models, at least one block.
    """
    return _whole((spread.rmse(arm.keep, 1) / rmse) ** 2, arm.models_per_block)


def rescale_models_needed(models: int, measured: float, arm: Arm, rmse: float) -> int:
    """The same from an error that was measured with some models, since it falls with the root of their number.

    Args:
        models: that are there.
        measured: the error with them.
        arm: the arm.
        rmse: wanted, above 0.

    Returns:
        Models in whole blocks, at least one.
    """
    return _whole(models * (measured / rmse) ** 2, arm.models_per_block)


def choose_next_model_count(arm: Arm, done: int, needed: int, most: int) -> int:
    """How far to train before the error is measured again: nine tenths of the way, then step by step.

    Args:
        arm: the arm.
        done: models that were looked at.
        needed: models that are thought to be needed; anything if nothing is known.
        most: a ceiling.

    Returns:
        A number of models above done, of whole blocks, or most.

    >>> [choose_next_model_count(Arm(), done, 640, 10_000) for done in (64, 576, 640)]
    [576, 640, 704]
    """
    step = count_first_models(arm)
    return min(max(done + step, int(CAREFUL * needed) // step * step), most)


def _whole(models: float, block: int) -> int:
    """Rounded up to blocks; one block where nobody is undecided. Less than a millionth of a model is rounding."""
    return max(int(np.ceil((models - 1e-6) / block)), 1) * block


DEFAULT_RMSES = (0.05, 0.03, 0.02)
"""Errors that are looked up where the user names none."""
BYTES = 24 * 2**20  # of two blocks as read
WEIGHED = 4  # shards whose size is looked at


@dataclass(frozen=True, kw_only=True)
class ModelRequirement:
    """What one wanted error takes.

    Attributes:
        rmse: wanted.
        models: in all, whole blocks.
        hours: until those that are missing are trained.
        bytes: of the shards of all of them.
    """

    rmse: float
    models: int
    hours: float
    bytes: float


@dataclass(frozen=True, kw_only=True)
class PrecisionForecast:
    """What the first models of an arm say.

    Attributes:
        arm: the design.
        models: how many of the first models are valid.
        variance: how undecided they are.
        rmse: the error of memorization from them alone.
        stored: models of the arm on file when this was made.
        seconds: of one worker for one model; NaN where no receipt says.
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
        """What this error takes."""
        models = max(
            compute_models_needed(self.variance, self.arm, rmse), self.models
        )  # fewer would do, but these are there
        hours = self.seconds * max(models - self.stored, 0) / self.workers / 3600
        return ModelRequirement(rmse=rmse, models=models, hours=hours, bytes=models * self.bytes)


@dataclass(frozen=True, kw_only=True)
class ForecastCheck:
    """A plan beside what came of it.

    Attributes:
        suffix: of the arm's scores.
        planned_from: models that the plan was made from.
        wish: the wanted error, if any.
        models_predicted: for that error; None without a wish.
        models: that there are.
        rmse_predicted: for so many; of as many as the plan was made from, their own.
        rmse: measured.
        more: models in all that would meet the wish, by the error that was measured; None if it is met.
    """

    suffix: str
    planned_from: int
    wish: float | None
    models_predicted: int | None
    models: int
    rmse_predicted: float
    rmse: float
    more: int | None


def check_forecast(plan: PrecisionForecast, suffix: str, models: int, rmse: float, wish: float | None) -> ForecastCheck:
    """Compare an outlook with the arm that came of it.

    Args:
        plan: made from the arm's first models.
        suffix: of the arm's scores.
        models: that there are now.
        rmse: measured on them.
        wish: the wanted error, if any.

    Returns:
        Both.
    """
    met = wish is None or rmse <= wish
    return ForecastCheck(
        suffix=suffix,
        planned_from=plan.models,
        wish=wish,
        models_predicted=None if wish is None else compute_models_needed(plan.variance, plan.arm, wish),
        models=models,
        rmse_predicted=plan.rmse if models == plan.models else plan.variance.rmse(plan.arm.keep, models),
        rmse=rmse,
        more=None if met or wish is None else rescale_models_needed(models, rmse, plan.arm, wish),
    )


def forecast_precision(store: Store, arm: Arm, workers: int) -> PrecisionForecast | None:
    """Read the first models of an arm.

    Args:
        store: open; those models were trained, or failed.
        arm: on file.
        workers: how many train at once.

    Returns:
        What they say; None if too few are valid for any example to have two models on each side.
    """
    every = find_stored_models(store, arm)
    first = [index for index in every if index < count_first_models(arm)]
    if not first:
        return None
    tally = read_membership_counts(store, arm, first)
    spread = compute_outcome_variance(*tally)
    if np.isnan(spread.out):
        return None
    receipts, names = store.receipts(), [format_model_name(arm.name, index) for index in first]
    seconds = [receipts[name]["seconds"] for name in names if name in receipts and "restored" not in receipts[name]]
    sizes = [len(store.folder.read(build_shard_path(arm.name, index))) for index in first[:WEIGHED]]
    return PrecisionForecast(
        arm=arm,
        models=len(first),
        variance=spread,
        rmse=compute_rmse_from_counts(tally),
        stored=len(every),
        seconds=float(np.mean(seconds)) if seconds else float("nan"),
        workers=max(workers, 1),
        bytes=float(np.mean(sizes)),
    )


def find_stored_models(store: Store, arm: Arm) -> list[int]:
    """Models of an arm that have a shard, rising; damaged ones are taken for good, unless they were set aside."""
    names = (name.removesuffix(".parquet") for name in store.folder.names("shards"))
    return sorted(index for name in names if (index := parse_model_index(name, arm.name)) is not None)


def read_membership_counts(store: Store, arm: Arm, models: Sequence[int]) -> np.ndarray:
    """How often each training example was right and in, in, right and out, and out.

    Args:
        store: open.
        arm: on file.
        models: indices, rising, at least one.

    Returns:
        int64 [4, N]; those of disjoint sets of models add.
    """
    blocks = store.read_blocks(arm.name, models, ["correct", "member"], max_bytes=BYTES)
    return np.concatenate(
        [count_by_membership(block.columns["correct"], block.columns["member"]) for block in blocks], axis=1
    )


def compute_rmse_from_counts(tally: np.ndarray) -> float:
    """The bank's root mean square error from such a tally; NaN where no example has two models on each side."""
    return compute_bank_rmse([sum_variances_from_counts(*tally)])
