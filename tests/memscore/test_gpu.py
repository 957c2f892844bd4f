"""The same jobs on a GPU: skipped where there is none."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from memscore.estimation import open_bank
from memscore.filling import shared_of
from memscore.jobs import BankJob, OriginalJob, key_of, work
from memscore.plan import Plan

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here"),
]
PLAN = Plan(data="digits", design="exact", block=8, models=8, originals=1)


@pytest.fixture
def banks(tmp_path):
    def both(plan):
        made = {}
        for device in ("cpu", "cuda"):
            bank = open_bank(replace(plan, store=str(tmp_path / device)))
            arm = bank.arms[0]
            record = {"name": arm.name, "design": arm.design, "keep": arm.keep, "block": arm.block, "clusters": None}
            bank.store.add_arm(record)
            shared = shared_of(bank.splits, None)
            job = BankJob(store=bank.store.url, arm=arm.name, models=tuple(range(8)), events=True, device=device)
            receipts = work(job, shared)
            made[device] = (bank, shared, receipts)
        return made

    return both


@pytest.mark.parametrize(
    "change",
    [{}, {"arch": "cnn-8-16", "recipe": "digits"}, {"arch": "cnn-8-16", "recipe": "digits", "precision": "bfloat16"}],
    ids=["stack", "network", "bfloat16"],
)
def test_a_gpu_trains_models_as_good_as_a_cpu_does(banks, change):
    made = banks(replace(PLAN, **change))
    test = {d: np.array([r["accuracy"]["test"] for r in receipts]) for d, (_, _, receipts) in made.items()}
    assert min(r["accuracy"]["members"] for r in made["cuda"][2]) > 0.97
    se = np.sqrt(test["cpu"].var(ddof=1) / 8 + test["cuda"].var(ddof=1) / 8)
    assert abs(test["cpu"].mean() - test["cuda"].mean()) < 4 * max(se, 1 / 400)  # one test image is 1/400


def test_membership_and_visits_are_the_same_on_a_gpu(banks):
    made = banks(replace(PLAN, epochs=2))
    seen = {}
    for device, (bank, _, _) in made.items():
        block = next(iter(bank.store.blocks(bank.arms[0].name, list(range(8)), ["member"])))
        visits = [bank.store.read_events(f"{bank.arms[0].name}-{i:05d}")["visits"] for i in range(8)]
        seen[device] = (block.columns["member"], np.stack(visits))
    assert all(np.array_equal(a, b) for a, b in zip(seen["cpu"], seen["cuda"], strict=True))


def test_an_original_is_trained_on_a_gpu(banks):
    bank, shared, _ = banks(replace(PLAN, epochs=2))["cuda"]
    job = OriginalJob(store=bank.store.url, index=0, evaluate=True, device="cuda")
    [receipt] = work(job, shared)
    logits, _ = bank.store.read_outputs(key_of(bank.store, job))
    assert receipt["device"] == torch.cuda.get_device_name()
    right = (logits.argmax(1) == shared.labels)[: len(bank.splits.train)].mean()
    assert right == pytest.approx(receipt["accuracy"]["members"], abs=0.002)
