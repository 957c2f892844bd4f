"""What a run would cost, before it is started: models, time and disk."""

import time
from dataclasses import dataclass

import torch

from memscore.estimation import Bank
from memscore.filling import group_size, shared_of
from memscore.observing import observe
from memscore.recipes import steps as steps_of
from memscore.subsets import Arm, membership
from memscore.trainee import assign, forward, new_model, on_device, recipe_of
from memscore.training import exact_products, one_thread, train

TRIED = 20  # steps, timed and scaled to the whole training
ROW_BYTES = 17.0  # row, member, correct and three float32 numbers, before compression


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What is still to be done for a plan.

    Attributes:
        planned: models of the arm.
        there: how many of them the store holds.
        originals: models trained on everything, those in the store included.
        seconds: of one core for one model of the arm.
        workers: how many train at once.
        bytes: of all shards and of the originals' outputs.
    """

    planned: int
    there: int
    originals: int
    seconds: float
    workers: int
    bytes: float

    @property
    def wall_s(self) -> float:
        """Seconds until the missing models are trained; an original costs as much as 1 / keep of a model or less."""
        return self.seconds * (self.planned - self.there + self.originals) / self.workers


def forecast(bank: Bank, workers: int) -> Forecast:
    """Time a few steps of one job here, in one thread on the CPU; nothing is written.

    Args:
        bank: from open_bank, which need not have begun its store.
        workers: how many will train at once.

    Returns:
        The forecast.
    """
    manifest, arm = bank.store.manifest, bank.arm
    begun = bank.store.folder.exists("manifest.json") and arm.name in bank.store.arms()
    there = sum(index < bank.count for index in bank.store.finished(arm.name, verify=False)) if begun else 0
    outputs = bank.plan.originals * manifest.n_rows * 4.0 * (manifest.n_classes + 128)
    return Forecast(
        planned=bank.count,
        there=there,
        originals=bank.plan.originals,
        seconds=seconds_a_model(bank),
        workers=workers,
        bytes=bank.count * ROW_BYTES * manifest.n_rows + outputs,
    )


def seconds_a_model(bank: Bank) -> float:
    """One core's time for one model: a few steps of a job, scaled, and one evaluation."""
    store, device = bank.store, torch.device("cpu")
    recipe, n_train, size = recipe_of(store), len(bank.splits.train), group_size(store)
    shared = shared_of(bank.splits, None)
    like = Arm(design="iid", keep=bank.arm.keep)  # subsets of the same size, whatever the design
    with one_thread(), exact_products(device):
        models = [new_model(store, "size", m, device) for m in range(size)]
        data, labels = on_device(store, shared.images, shared.labels, models[0], recipe, device)
        member = membership(like, range(size), n_train, seed=0)
        assignments = [assign(store, "size", *own) for own in zip(range(size), models, member, strict=True)]
        train(assignments, data, labels, recipe, 2)
        started = time.perf_counter()
        train(assignments, data, labels, recipe, TRIED)
        step_s = (time.perf_counter() - started) / TRIED / size
        started = time.perf_counter()
        observe(forward(models[0], recipe), data, labels)
        return step_s * steps_of(recipe, bank.arm.keep, n_train) + time.perf_counter() - started
