"""What a user's network draws follows the model's own seed: alone, in any company, in any order, serial and on Ray."""

import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from cluster.pool import Failure, SerialPool
from memscore.models.architectures import Classifier
from memscore.pipeline.config import BankConfig
from memscore.pipeline.jobs import (
    ORIGINAL,
    BankJob,
    OriginalJob,
    build_model,
    compute_job_key,
    make_training_run,
    run_job,
)
from memscore.pipeline.train_bank import build_shared_data
from memscore.seeds import torch_seed
from tests.fixtures.opened import open_bank

PLAN = BankConfig(
    data="digits", train_limit=120, epochs=3, batch=20, lr=0.05, design="exact", block=8, models=8, originals=1,
    recipe="digits", arch="tests.memscore.pipeline.test_network_randomness:noisy",
)  # fmt: skip


class Noise(nn.Module):
    """Draws from each global generator, also in evaluation mode."""

    def forward(self, images):
        # ruff: ignore[numpy-legacy-random] - a user's network may
        scale = 1 + 0.1 * np.random.randn() + 0.1 * random.gauss(0, 1)
        return images * scale + 0.1 * torch.randn_like(images)


class DropPath(nn.Module):
    """Leaves out whole images in training, by Python's generator."""

    def forward(self, images):
        return images if not self.training else images * torch.tensor([[float(random.random() < 0.9)] for _ in images])


def noisy(shape, n_classes):
    body = nn.Sequential(nn.Flatten(), Noise(), nn.Linear(math.prod(shape), 16), DropPath(), nn.ReLU(), nn.Dropout(0.5))
    return Classifier(body, nn.Linear(16, n_classes))


@pytest.fixture
def open_noisy_bank(tmp_path):
    """Return a function: an open bank of a network that draws, and what its jobs share."""

    def open_one(name):
        bank = open_bank(replace(PLAN, store=str(tmp_path / name)))
        arm = bank.arms[0]
        record = {"name": arm.name, "design": arm.design, "keep": arm.keep, "block": arm.block, "clusters": None}
        bank.store.add_arm(record)
        return bank.store, arm.name, build_shared_data(bank.splits, None)

    return open_one


def read_files(store, *kinds):
    return {(kind, name): store.folder.read(f"{kind}/{name}") for kind in kinds for name in store.folder.names(kind)}


def test_models_are_the_same_in_any_order_company_and_process_state(open_noisy_bank):
    results = {}
    for name, jobs in {
        "together": [(0, 1, 2, 3)],
        "reversed": [(3,), (2,), (1,), (0,)],
        "some": [(2, 0), (3, 1)],
    }.items():
        store, arm, shared = open_noisy_bank(name)
        for models in jobs:
            torch.rand(len(name)), random.random()
            run_job(BankJob(store=store.url, arm=arm, models=models, events=True), shared)
        results[name] = read_files(store, "shards", "events")
    assert len(results["together"]) == 8
    assert results["together"] == results["reversed"] == results["some"]


def test_models_draw_otherwise_than_each_other_and_than_none(open_noisy_bank, monkeypatch):
    store, arm, shared = open_noisy_bank("noisy")
    run_job(BankJob(store=store.url, arm=arm, models=(0, 1)), shared)
    other, arm, shared = open_noisy_bank("one seed")

    # the same models, but both draw from the seed of model 0
    def derive(root, purpose, arm_name="", index=0):
        return torch_seed(root, purpose, arm_name, 0 if purpose in ("network", "evaluation") else index)

    monkeypatch.setattr("memscore.pipeline.jobs.torch_seed", derive)
    run_job(BankJob(store=other.url, arm=arm, models=(0, 1)), shared)
    first, second = (f"{arm}-{i:05d}.parquet" for i in range(2))
    assert store.folder.read(f"shards/{first}") == other.folder.read(f"shards/{first}")
    assert store.folder.read(f"shards/{second}") != other.folder.read(f"shards/{second}")


def test_an_original_is_the_same_model_whatever_is_computed_beside_it(open_noisy_bank):
    results, events = {}, {}
    for name, options in {
        "alone": {},
        "evaluated": {"evaluate": True},
        "el2n": {"proxies": ("el2n",)},
        "proxies": {"evaluate": True, "proxies": ("curvature-sign", "el2n", "aum")},
    }.items():
        store, _, shared = open_noisy_bank(name)
        job = OriginalJob(store=store.url, index=0, **options)
        [receipt] = run_job(job, shared)
        assert not receipt["diverged"]
        key = compute_job_key(store, job)
        results[name] = read_files(store, "weights", "outputs") | {"events": store.folder.read(f"events/{key}.parquet")}
        events[name] = {n.removeprefix(key): store.read_events(n) for n in (f"{key}-el2n",) if store.has_events(n)}
    assert len(results["alone"]) == 3
    assert results["alone"] == results["evaluated"] == results["el2n"] == results["proxies"]
    [alone], [beside] = events["el2n"].values(), events["proxies"].values()
    assert all(np.array_equal(alone[column], beside[column]) for column in alone)


def test_an_oracle_draws_from_its_original_s_seed(open_noisy_bank):
    store, _, _ = open_noisy_bank("oracle")
    model = build_model(store, ORIGINAL, 2, torch.device("cpu"))
    runs = [
        make_training_run(store, ORIGINAL, index, model, np.arange(4) < size)
        for index, size in ((2, 4), (2, 3), (3, 4))
    ]
    seeds = [run.network_seed for run in runs]
    assert seeds[0] == seeds[1] != seeds[2]


@pytest.mark.ray
def test_ray_workers_leave_the_shards_of_the_serial_pool(open_noisy_bank, ray_cluster):
    from cluster.ray_pool import RayPool

    results = {}
    for name, pool in {"serial": SerialPool(), "ray": RayPool(2)}.items():
        store, arm, shared = open_noisy_bank(name)
        jobs = [BankJob(store=store.url, arm=arm, models=(k, k + 1)) for k in (0, 2, 4)]
        outcomes = [outcome for _, outcome in pool.run(run_job, jobs, shared)]
        assert not [outcome for outcome in outcomes if isinstance(outcome, Failure)]
        results[name] = read_files(store, "shards")
    assert len(results["serial"]) == 6
    assert results["serial"] == results["ray"]
