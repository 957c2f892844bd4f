"""Forecast the seconds of one core that a run of estimate takes, cheaply: they decide where its jobs run."""

import logging
import math
from dataclasses import replace

import numpy as np
import torch

from memscore.models.architectures import count_parameters
from memscore.pipeline.config import build_inversion_options
from memscore.pipeline.dry_run import SCORED_CELLS_PER_S, MissingModels, count_missing_models, estimate_cost
from memscore.pipeline.jobs import OriginalJob, build_model, compute_job_key, read_recipe
from memscore.pipeline.network_times import TimingError, time_network
from memscore.pipeline.proxy_jobs import build_proxy_jobs, is_proxy_stored
from memscore.pipeline.proxy_times import time_proxies
from memscore.pipeline.runner import Bank
from memscore.proxies.registry import select_proxies
from memscore.training.recipes import count_steps

_log = logging.getLogger(__name__)
FLOPS = 5e11  # floating-point operations in a second, more than a core of today reaches


def forecast_bank(bank: Bank, limit_s: float) -> float:
    """Forecast the seconds of one core that a run takes; where they are `limit_s` or more, a lower bound is enough.

    Writes nothing; the store need not exist. With --until-rmse only the models known to be needed are counted. NaN,
    with a warning, if the network or a proxy raises an exception.
    """
    # Its jobs will raise it too, and each such failure is recorded, while the others are done.
    try:
        return forecast_seconds(bank, limit_s)
    except TimingError as error:
        _log.warning("%s", error)
        return math.nan


def forecast_seconds(bank: Bank, limit_s: float) -> float:
    """Forecast as forecast_bank; TimingError if the network or a proxy raises an exception."""
    missing, (n_train, _, _) = count_missing_models(bank, 1), bank.store.manifest.split_sizes
    seconds = missing.planned * n_train / SCORED_CELLS_PER_S
    times = None
    if missing.planned > missing.stored or missing.originals:
        # A large network or data set is recognised without a step, which could take seconds itself.
        bound_s = seconds + compute_least_seconds(bank, missing)
        if bound_s >= limit_s:
            return bound_s
        without_proxies = replace(bank, config=replace(bank.config, proxies=()))
        times = time_network(bank.store, bank.splits)
        seconds += estimate_cost(without_proxies, 1, missing, times=times).trained.core_s
    for name in find_missing_proxies(bank, missing):
        # one after the other, since timing them all can take seconds
        if seconds < limit_s:
            times = times or time_network(bank.store, bank.splits)
            seconds += missing.all_originals * time_proxies(bank, [name], times)[name].core_s
    return seconds


def compute_least_seconds(bank: Bank, missing: MissingModels) -> float:
    """Compute a lower bound of the seconds of training: each weight is read at least once for each example.

    That is one multiplication and one addition in the forward pass, and twice as many in the backward pass.
    """
    recipe, (n_train, _, _) = read_recipe(bank.store), bank.store.manifest.split_sizes
    steps = float(np.mean([count_steps(recipe, arm.keep, n_train) for arm in bank.arms]))
    all_steps = (missing.planned - missing.stored) * steps + missing.originals * count_steps(recipe, 1.0, n_train)
    predictions = (missing.planned - missing.stored + missing.originals) * bank.store.manifest.n_rows
    weights = count_parameters(build_model(bank.store, "size", 0, torch.device("cpu")))
    return weights * (6.0 * recipe.batch * all_steps + 2.0 * predictions) / FLOPS


def find_missing_proxies(bank: Bank, missing: MissingModels) -> tuple[str, ...]:
    """Find the selected proxies that an original lacks."""
    store, names = bank.store, select_proxies(bank.config.proxies)
    if missing.originals or not names:
        return names
    # those that only training gives are stored, or the original would be missing
    keys = {i: compute_job_key(store, OriginalJob(store=store.url, index=i)) for i in range(bank.config.originals)}
    inversion = build_inversion_options(bank.config, store.manifest.input_shape)
    jobs = build_proxy_jobs(store, bank.splits, names, keys, inversion)
    return tuple(dict.fromkeys(job.proxy for job in jobs if not is_proxy_stored(store, job)))
