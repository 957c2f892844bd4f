"""Small banks with proxies of their originals, and what tests look at in them."""

import subprocess
from dataclasses import replace
from pathlib import Path

import torch

from cluster.pool import SerialPool
from memscore.pipeline.config import Plan, inversion_of
from memscore.pipeline.jobs import OriginalJob, key_of
from memscore.pipeline.originals import fill_from_originals
from memscore.pipeline.runner import open_bank
from memscore.pipeline.train_bank import Filled, shared_of
from memscore.proxies.registry import ALL, chosen
from memscore.proxies.scores import score_proxies
from memscore.proxies.storage import inversion_on_file

ROOT = Path(__file__).parents[2]
PLAN = Plan(
    data="digits",
    train_limit=200,
    epochs=3,
    design="exact",
    block=8,
    models=8,
    originals=2,
    proxies=(ALL, "holdout-test"),
    inversion_candidates=70,
    inversion_iterations=3,
)
SMALL = (
    "--train-limit 200 --epochs 3 --design exact --block 8 --models 8 --originals 2 "
    "--inversion-candidates 70 --inversion-iterations 3"
)
CPU = torch.device("cpu")
SETTINGS = {"candidates": 70, "iterations": 3, "total_variation": 0.001}


def begun(tmp_path, **changes):
    bank = open_bank(replace(PLAN, store=str(tmp_path / "store"), **changes))
    return bank, shared_of(bank.splits, None)


def copy(bank, tmp_path):
    """The same bank in another place, for a test that changes it."""
    there = tmp_path / "copy"
    subprocess.run(["cp", "-r", bank.store.folder.path(""), str(there)], check=True)
    return open_bank(replace(bank.plan, store=str(there)))


def proxied(bank, pool=None):
    """Only the part of `estimate` that is about originals: what failed, and the scores by name."""
    found = Filled()
    shared = shared_of(bank.splits, None)
    keys = fill_from_originals(bank.plan, bank.store, bank.splits, found, shared, pool or SerialPool(), "cpu")
    asked = "inversion" in chosen(bank.plan.proxies)
    names = score_proxies(bank.store, keys, wish_of(bank) if asked else inversion_on_file(bank.store))
    return found, {name: bank.store.read_score(name) for name in names}


def wish_of(bank):
    return inversion_of(bank.plan, (1, 8, 8))


def files(store, kinds=("events", "scores")):
    return {
        f"{kind}/{name}": store.folder.read(f"{kind}/{name}") for kind in kinds for name in store.folder.names(kind)
    }


def receipts(store):
    return {name: store.folder.read(f"receipts/{name}") for name in store.folder.names("receipts")}


def keys_of(bank):
    return [key_of(bank.store, OriginalJob(store=bank.store.url, index=i)) for i in range(bank.plan.originals)]
