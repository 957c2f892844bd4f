"""What the first models of an arm say about all that are to come: models, hours and disk for a wanted precision."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from memscore.estimators.memorization import bank_rmse, counts, precision_of
from memscore.planner import Spread, first_models, models_after, models_for, spread_of
from memscore.store.shards import model_index, model_name, shard_path
from memscore.store.store import Store
from memscore.subsets.designs import Arm

WISHES = (0.05, 0.03, 0.02)
"""Errors that are looked up where the user names none."""
BYTES = 24 * 2**20  # of two blocks as read
WEIGHED = 4  # shards whose size is looked at


@dataclass(frozen=True, kw_only=True)
class Need:
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
class Outlook:
    """What the first models of an arm say.

    Attributes:
        arm: the design.
        models: how many of the first models are valid.
        spread: how undecided they are.
        rmse: the error of memorization from them alone.
        there: models of the arm on file when this was made.
        seconds: of one worker for one model; NaN where no receipt says.
        workers: how many train at once.
        bytes: of one shard.
    """

    arm: Arm
    models: int
    spread: Spread
    rmse: float
    there: int
    seconds: float
    workers: int
    bytes: float

    def need(self, rmse: float) -> Need:
        """What this error takes."""
        models = max(models_for(self.spread, self.arm, rmse), self.models)  # fewer would do, but these are there
        hours = self.seconds * max(models - self.there, 0) / self.workers / 3600
        return Need(rmse=rmse, models=models, hours=hours, bytes=models * self.bytes)


@dataclass(frozen=True, kw_only=True)
class Kept:
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


def kept_of(plan: Outlook, suffix: str, models: int, rmse: float, wish: float | None) -> Kept:
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
    return Kept(
        suffix=suffix,
        planned_from=plan.models,
        wish=wish,
        models_predicted=None if wish is None else models_for(plan.spread, plan.arm, wish),
        models=models,
        rmse_predicted=plan.rmse if models == plan.models else plan.spread.rmse(plan.arm.keep, models),
        rmse=rmse,
        more=None if met or wish is None else models_after(models, rmse, plan.arm, wish),
    )


def outlook(store: Store, arm: Arm, workers: int) -> Outlook | None:
    """Read the first models of an arm.

    Args:
        store: open; those models were trained, or failed.
        arm: on file.
        workers: how many train at once.

    Returns:
        What they say; None if too few are valid for any example to have two models on each side.
    """
    every = on_file(store, arm)
    first = [index for index in every if index < first_models(arm)]
    if not first:
        return None
    tally = tally_of(store, arm, first)
    spread = spread_of(*tally)
    if np.isnan(spread.out):
        return None
    receipts, names = store.receipts(), [model_name(arm.name, index) for index in first]
    seconds = [receipts[name]["seconds"] for name in names if name in receipts and "restored" not in receipts[name]]
    sizes = [len(store.folder.read(shard_path(arm.name, index))) for index in first[:WEIGHED]]
    return Outlook(
        arm=arm,
        models=len(first),
        spread=spread,
        rmse=rmse_of(tally),
        there=len(every),
        seconds=float(np.mean(seconds)) if seconds else float("nan"),
        workers=max(workers, 1),
        bytes=float(np.mean(sizes)),
    )


def on_file(store: Store, arm: Arm) -> list[int]:
    """Models of an arm that have a shard, rising; damaged ones are taken for good, unless they were set aside."""
    names = (name.removesuffix(".parquet") for name in store.folder.names("shards"))
    return sorted(index for name in names if (index := model_index(name, arm.name)) is not None)


def tally_of(store: Store, arm: Arm, models: Sequence[int]) -> np.ndarray:
    """How often each training example was right and in, in, right and out, and out.

    Args:
        store: open.
        arm: on file.
        models: indices, rising, at least one.

    Returns:
        int64 [4, N]; those of disjoint sets of models add.
    """
    blocks = store.blocks(arm.name, models, ["correct", "member"], max_bytes=BYTES)
    return np.concatenate([counts(block.columns["correct"], block.columns["member"]) for block in blocks], axis=1)


def rmse_of(tally: np.ndarray) -> float:
    """The bank's root mean square error from such a tally; NaN where no example has two models on each side."""
    return bank_rmse([precision_of(*tally)])
