"""Time the steps of a stack in both of its precisions, for a dry run: which is faster depends on CPU and network."""

import time
from dataclasses import dataclass, replace

import numpy as np
import torch

from memscore.data.splits import Splits
from memscore.models.architectures import find_mlp_layers
from memscore.pipeline.jobs import build_model, make_training_run, read_recipe
from memscore.pipeline.network_times import ShowTiming, load_sample, time_step
from memscore.pipeline.train_bank import choose_models_per_job
from memscore.store.store import Store
from memscore.training.loop import is_stackable
from memscore.training.numerics import float32_matmul, single_threaded
from memscore.training.recipes import BFLOAT16_PRODUCTS

ROUNDS, BUDGET_S = 5, 2.0  # precisions are timed in turns; after so many seconds no other round begins


@dataclass(frozen=True, kw_only=True)
class PrecisionTimes:
    """Seconds of one core for one step of one model of a stack.

    Attributes:
        float32: in float32.
        bfloat16_products: in bfloat16-products.
        precision: of the bank.
    """

    float32: float
    bfloat16_products: float
    precision: str

    @property
    def gain(self) -> float:
        """How many times as fast bfloat16-products is."""
        return self.float32 / self.bfloat16_products


def time_precisions(store: Store, splits: Splits, show: ShowTiming = lambda line: None) -> PrecisionTimes | None:
    """Time the steps of a bank's stacks on one core of this machine; None where there is no choice, or nothing to time.

    There is a choice where the network trains as a stack with a hidden layer, and no store of float32 exists yet.
    """
    device, recipe = torch.device("cpu"), read_recipe(store)
    if recipe.precision != BFLOAT16_PRODUCTS and store.is_created:
        return None
    with single_threaded(), float32_matmul(device):
        model = build_model(store, "size", 0, device)
        if not is_stackable(model, recipe) or len(find_mlp_layers(model) or ()) < 2:
            return None
        models = [build_model(store, "size", m, device) for m in range(choose_models_per_job(store, "cpu"))]
        data, labels = load_sample(store, splits, model, recipe)
        everyone = np.ones(len(labels), dtype=bool)
        runs = [make_training_run(store, "size", m, network, everyone) for m, network in enumerate(models)]
        show(f"timing {store.manifest.architecture} in {BFLOAT16_PRODUCTS} ...")
        started, seconds = time.perf_counter(), dict[str, list[float]]()
        for _ in range(ROUNDS):
            for precision in ("float32", BFLOAT16_PRODUCTS):
                timed = replace(recipe, precision=precision, batch=min(recipe.batch, len(labels)))
                seconds.setdefault(precision, []).append(time_step(runs, data, labels, timed) / len(runs))
            if time.perf_counter() - started > BUDGET_S:
                break
    float32, rounded = (float(np.median(values)) for values in seconds.values())
    if min(float32, rounded) <= 0:  # steps below the clock's resolution
        return None
    return PrecisionTimes(float32=float32, bfloat16_products=rounded, precision=recipe.precision)
