"""Time the proxies of one original on one CPU core, each with a small part of its work, and count their operations."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from memscore.pipeline.config import build_inversion_options
from memscore.pipeline.inversion_jobs import compute_inversion_chunk
from memscore.pipeline.jobs import build_model, read_recipe
from memscore.pipeline.network_times import (
    FIRST_IMAGES,
    NetworkTimes,
    ShowTiming,
    count_work,
    explain_timing_error,
    load_sample,
    time_call,
)
from memscore.pipeline.proxy_jobs import HOLDOUT_CONFIGS
from memscore.pipeline.runner import Bank
from memscore.pipeline.work import NO_WORK, Work
from memscore.proxies.collectors import build_epoch_means
from memscore.proxies.gradient_inversion import gradient_inversion
from memscore.proxies.holdout_retraining import build_fine_tuning_recipe, fine_tune, select_held_out_rows
from memscore.proxies.registry import EVERY_EPOCH, FINISHED_WEIGHTS, INVERSION, PROXIES
from memscore.proxies.storage import CANDIDATES_PER_FILE, INVERSIONS
from memscore.training.numerics import float32_matmul, single_threaded
from memscore.training.recipes import count_steps

PROXY_BUDGET_S = 1.0  # of the timed part of a proxy
TIMED_ITERATIONS = 2  # of an inversion
TRAINING_PASSES = {
    "holdout": 1.0,
    "holdout-test": 1.0,
    "curvature-sign": 2.0,
    "curvature-rademacher": 11.0,
    "aum": 0.4,
    "el2n": 0.4,
    "grand": 4.0,
    "inversion": 12.0,
    "inversion-gain": 12.0,
}
"""How many training steps a proxy is about as long as, for one image; it decides how many images are timed."""


@dataclass(frozen=True, kw_only=True)
class TimedPart:
    """A small part of a proxy's work.

    Attributes:
        run: computes it.
        scale: how many such parts are the whole.
        beside: work that is not timed here.
    """

    run: Callable[[], object]
    scale: float
    beside: Work = NO_WORK


def time_proxies(
    bank: Bank, names: Sequence[str], times: NetworkTimes, show: ShowTiming = lambda line: None
) -> dict[str, Work]:
    """Time some proxies of one original on one core; TimingError if one raises an exception."""
    work, device = {}, torch.device("cpu")
    with single_threaded(), float32_matmul(device):
        for name in names:
            # distances between stored embeddings take no time to speak of
            if PROXIES[name].stage == FINISHED_WEIGHTS and name not in HOLDOUT_CONFIGS and name not in INVERSIONS:
                work[name] = NO_WORK
                continue
            what = f"proxy {name} on {bank.store.manifest.architecture}"
            started = time.perf_counter()
            with explain_timing_error(what):
                affordable = PROXY_BUDGET_S / max(TRAINING_PASSES[name] * times.trained_image.core_s, 1e-9)
                part = prepare_part(bank, name, times, max(FIRST_IMAGES, int(affordable)))
                counted = count_work(part.run)
                work[name] = replace(counted, core_s=time_call(part.run)) * part.scale + part.beside
            show(f"timing proxy {name}: {time.perf_counter() - started:.1f} s")
    return work


def prepare_part(bank: Bank, name: str, times: NetworkTimes, affordable: int) -> TimedPart:
    """Prepare a part of a proxy of at most so many images: a batch of fine-tuning, iterations, or an epoch's end."""
    store, recipe, n_train = bank.store, read_recipe(bank.store), len(bank.splits.train)
    # an untrained network takes as long as a trained one
    model, rng = build_model(store, "size", 0, torch.device("cpu")), np.random.default_rng(0)
    if name in HOLDOUT_CONFIGS:
        config = HOLDOUT_CONFIGS[name]
        held_out = len(select_held_out_rows(bank.splits, config, store.manifest.seed))
        batch = min(config.batch, held_out)
        n = min(batch, affordable, n_train)
        short, rows = replace(config, epochs=1, batch=n), np.arange(n)
        data, labels = load_sample(store, bank.splits, model, build_fine_tuning_recipe(config, n))
        # an upper bound: fine-tuning may stop early
        return TimedPart(
            run=lambda: fine_tune(model, data, labels, rows, short, rng), scale=config.epochs * held_out / n
        )
    data, labels = load_sample(store, bank.splits, model, recipe)
    if name in INVERSIONS:
        options = build_inversion_options(bank.config, store.manifest.input_shape)
        candidates = min(options.candidates, n_train)
        n, short_config = (
            min(CANDIDATES_PER_FILE, candidates, affordable, len(labels)),
            replace(options.config, iterations=TIMED_ITERATIONS),
        )
        positions, normalization = torch.arange(n), (store.manifest.mean, store.manifest.std)
        scale = options.iterations / TIMED_ITERATIONS * candidates / n
        # a gain attacks two models of halves, which are trained first
        trained = NO_WORK if name == INVERSION else times.original_step * (2 * count_steps(recipe, 0.5, n_train))
        return TimedPart(
            run=lambda: gradient_inversion(
                *(model, data.take(positions), labels[positions], normalization, short_config, rng),
                chunk=compute_inversion_chunk(model),
            ),
            scale=scale * (1 if name == INVERSION else 2),
            beside=trained,
        )
    # a recipe of one epoch, so that epoch 1 is also the early epoch of the proxies that are computed once
    n = min(n_train, recipe.batch, affordable, len(labels))
    epoch_mean = build_epoch_means([name], model, data, labels[:n], replace(recipe, epochs=1), 1, lambda _: rng)[name]
    epochs = recipe.epochs if PROXIES[name].stage == EVERY_EPOCH else 1
    return TimedPart(run=lambda: epoch_mean(1), scale=n_train / n * epochs)
