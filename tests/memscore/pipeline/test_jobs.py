"""What workers store: the same bits alone, in stacks, twice and after a stop; diverged models; originals."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from memscore.pipeline import train_bank
from memscore.pipeline.config import BankConfig
from memscore.pipeline.jobs import BankJob, OriginalJob, build_model, compute_job_key, read_recipe, run_job
from memscore.pipeline.originals import build_missing_originals
from memscore.pipeline.runner import estimate
from memscore.pipeline.train_bank import build_shared_data, train_missing
from memscore.store.store import Store
from memscore.subsets.designs import Arm
from memscore.training.numerics import single_threaded
from tests.fixtures.opened import open_bank

PLAN = BankConfig(data="digits", train_limit=200, epochs=3, design="exact", block=8, models=16, originals=1)


class InOrder:
    """The shortest pool, so that these tests need no other package."""

    def __init__(self):
        self.jobs = []

    def run(self, fn, jobs, shared=None):
        for job in jobs:
            self.jobs.append(job)
            yield job, fn(job, shared)


def open_small_bank(tmp_path, plan=PLAN, name="store"):
    bank = open_bank(replace(plan, store=str(tmp_path / name)))
    arm = bank.arms[0]
    bank.store.add_arm({"name": arm.name, "design": arm.design, "keep": arm.keep, "block": arm.block, "clusters": None})
    return bank, build_shared_data(bank.splits, None)


def read_files(store, kind="shards"):
    return {name: bytes(store.folder.read(f"{kind}/{name}")) for name in store.folder.names(kind)}


def test_a_shard_is_the_same_bytes_alone_and_in_any_stack(tmp_path):
    banks = {size: open_small_bank(tmp_path, name=f"by{size}") for size in (1, 3, 16)}
    for size, (bank, shared) in banks.items():
        order = list(range(16)) if size != 3 else list(range(15, -1, -1))
        for start in range(0, 16, size):
            group = tuple(order[start : start + size])
            run_job(BankJob(store=bank.store.url, arm=bank.arms[0].name, models=group, events=True), shared)
    first, *others = ((read_files(bank.store), read_files(bank.store, "events")) for bank, _ in banks.values())
    assert [len(kind) for kind in first] == [16, 16]
    assert all(other == first for other in others)


@pytest.mark.parametrize(
    "change",
    [
        {"arch": "cnn-4-8"},
        {"arch": "mlp-20", "precision": "bfloat16"},
        {"arch": "mlp-20", "precision": "bfloat16-products"},
    ],
    ids=lambda change: change.get("precision", change["arch"]),
)
def test_a_model_has_the_same_bytes_whatever_came_before_it_and_beside_it(tmp_path, change):
    plan = replace(PLAN, epochs=1, recipe="digits", **change)
    (first, shared), (second, _) = open_small_bank(tmp_path, plan, "first"), open_small_bank(tmp_path, plan, "second")
    run_job(BankJob(store=first.store.url, arm=first.arms[0].name, models=(0, 1, 2)), shared)
    run_job(BankJob(store=second.store.url, arm=second.arms[0].name, models=(2,)), shared)
    shard = f"{first.arms[0].name}-00002.parquet"
    assert read_files(first.store)[shard] == read_files(second.store)[shard]


def test_a_second_run_trains_nothing_and_a_larger_one_only_the_rest(tmp_path):
    bank, shared = open_small_bank(tmp_path)
    pool = InOrder()
    assert train_missing(bank.store, bank.arms, 8, shared, pool).trained == 8
    before = read_files(bank.store)
    assert train_missing(bank.store, bank.arms, 8, shared, pool).trained == 0
    assert train_missing(bank.store, bank.arms, 16, shared, pool).trained == 8
    after = read_files(bank.store)
    assert len(after) == 16
    assert all(after[name] == content for name, content in before.items())


def test_a_damaged_shard_is_named_quarantined_and_trained_again(tmp_path):
    bank, shared = open_small_bank(tmp_path)
    train_missing(bank.store, bank.arms, 8, shared, InOrder())
    before = read_files(bank.store)
    path = tmp_path / "store" / "shards" / f"{bank.arms[0].name}-00003.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)
    summary = train_missing(bank.store, bank.arms, 8, shared, InOrder())
    assert list(summary.damaged) == [f"shards/{bank.arms[0].name}-00003.parquet"]
    assert summary.trained == 1
    assert read_files(bank.store) == before
    assert len(list((tmp_path / "store" / "damaged").iterdir())) == 1


def test_a_diverged_model_is_recorded_and_never_trained_again(tmp_path):
    bank, shared = open_small_bank(tmp_path, replace(PLAN, lr=1e30))
    pool = InOrder()
    summary = train_missing(bank.store, bank.arms, 8, shared, pool)
    assert summary.shards == {bank.arms[0].name: {}}
    assert len(summary.diverged) == 8
    trained = len(pool.jobs)
    assert train_missing(bank.store, bank.arms, 8, shared, pool).diverged == summary.diverged
    assert len(pool.jobs) == trained
    with pytest.raises(ValueError, match="every model diverged; try a smaller --lr"):
        estimate(bank, pool, lambda done, total, line: None)


def test_a_job_says_when_it_cannot_see_the_store(tmp_path):
    _, shared = open_small_bank(tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"not visible from node .* use a path that every node shares, or s3://"
    ):
        run_job(BankJob(store=str(tmp_path / "elsewhere"), arm="iid-k0.700", models=(0,)), shared)


def test_a_stack_splits_into_its_models():
    job = BankJob(store="s", arm="a", models=(3, 5), events=True)
    assert job.split() == [replace(job, models=(3,)), replace(job, models=(5,))]


def test_the_oracle_of_an_empty_forget_set_is_the_original(tmp_path):
    bank, shared = open_small_bank(tmp_path)
    [job] = build_missing_originals(bank.config, bank.store, 1, "cpu")
    train_missing(bank.store, [], 0, shared, InOrder(), originals=[job])
    keys = [compute_job_key(bank.store, job)]
    assert keys == [compute_job_key(bank.store, OriginalJob(store=bank.store.url, index=0, removed=()))]
    assert bank.store.has_weights(keys[0])
    removed = OriginalJob(store=bank.store.url, index=0, removed=(4, 9))
    assert compute_job_key(bank.store, removed) not in keys
    run_job(removed, shared)
    events = bank.store.read_events(compute_job_key(bank.store, removed))
    assert (events["visits"] == 0).nonzero()[0].tolist() == [4, 9]


def test_an_originals_outputs_are_what_its_weights_give(tmp_path):
    bank, shared = open_small_bank(tmp_path)
    [job] = build_missing_originals(replace(bank.config, evaluation_events=True), bank.store, 1, "cpu")
    train_missing(bank.store, [], 0, shared, InOrder(), originals=[job])
    key = compute_job_key(bank.store, job)
    logits, embeddings = (np.array(table) for table in bank.store.read_outputs(key))
    model = build_model(bank.store, "other", 7, torch.device("cpu"))
    model.load_state_dict(bank.store.read_weights(key))
    with single_threaded(), torch.no_grad():
        manifest = bank.store.manifest
        pixels = (torch.from_numpy(shared.images).float() / 255 - manifest.mean[0]) / manifest.std[0]
        model.eval()
        torch.testing.assert_close(torch.from_numpy(logits), model(pixels))
        torch.testing.assert_close(torch.from_numpy(embeddings), model.body(pixels))
    evaluated = bank.store.read_events(f"{key}-evaluation")
    assert (evaluated["visits"] == 3).all()


def test_events_requested_later_come_from_the_same_training(tmp_path):
    bank, shared = open_small_bank(tmp_path)
    train_missing(bank.store, bank.arms, 8, shared, InOrder())
    before = read_files(bank.store)
    summary = train_missing(bank.store, bank.arms, 8, shared, InOrder(), events=True)
    assert summary.trained == 8
    assert read_files(bank.store) == before
    table = bank.store.read_events(f"{bank.arms[0].name}-00000")
    member = Store.open(bank.store.url).read_blocks(bank.arms[0].name, [0], ["member"])
    assert ((table["visits"] > 0) == next(iter(member)).columns["member"][0]).all()


def test_every_model_of_an_arm_takes_the_same_number_of_full_batches(tmp_path):
    bank, shared = open_small_bank(tmp_path)
    train_missing(bank.store, bank.arms, 8, shared, InOrder(), events=True)
    visits = [bank.store.read_events(f"{bank.arms[0].name}-{i:05d}")["visits"].sum() for i in range(8)]
    recipe = read_recipe(bank.store)
    assert set(visits) == {round(recipe.epochs * 0.5 * 200 / recipe.batch) * recipe.batch}


def test_block_after_block_is_trained_and_no_job_contains_parts_of_two(tmp_path, monkeypatch):
    bank, shared = open_small_bank(tmp_path)
    other = Arm(design="exact", keep=0.25, block=8)
    bank.store.add_arm({"name": other.name, "design": "exact", "keep": 0.25, "block": 8, "clusters": None})
    monkeypatch.setattr(train_bank, "choose_models_per_job", lambda store, device: 5)
    pool, first = InOrder(), bank.arms[0]
    run_job(BankJob(store=bank.store.url, arm=first.name, models=(2, 9)), shared)  # as a stop might leave it
    train_missing(bank.store, [first, other], 16, shared, pool)
    groups = [(0, 1, 3, 4, 5), (6, 7)], [(0, 1, 2, 3, 4), (5, 6, 7)], [(8, 10, 11, 12, 13), (14, 15)]
    groups += ([(8, 9, 10, 11, 12), (13, 14, 15)],)
    expected = [(name, g) for name, part in zip([first.name, other.name] * 2, groups, strict=True) for g in part]
    assert [(job.arm, job.models) for job in pool.jobs] == expected


def test_an_arm_is_reported_once_its_first_models_are_done_and_before_the_others_are(tmp_path, monkeypatch):
    bank, shared = open_small_bank(tmp_path)
    monkeypatch.setattr(train_bank, "choose_models_per_job", lambda store, device: 8)
    seen = []

    def on_first_models(arm):
        seen.append((arm.name, len(bank.store.folder.names("shards"))))

    train_missing(bank.store, bank.arms, 24, shared, InOrder(), on_first_models=on_first_models)
    assert seen == []  # fewer than 32 are planned
    train_missing(bank.store, bank.arms, 48, shared, InOrder(), on_first_models=on_first_models)
    assert seen == [(bank.arms[0].name, 32)]
    train_missing(bank.store, bank.arms, 48, shared, InOrder(), on_first_models=on_first_models)
    assert seen[1:] == [(bank.arms[0].name, 48)]


def test_a_batch_larger_than_a_subset_is_refused_before_anything_starts(tmp_path):
    with pytest.raises(ValueError, match="a batch of 100 is larger than the smallest subset"):
        open_small_bank(tmp_path, replace(PLAN, batch=100), "never")  # what a subset has on average
    with pytest.raises(ValueError, match="a batch of 101 is larger than a subset, about 100 of 200 examples"):
        open_small_bank(tmp_path, replace(PLAN, batch=101), "never")
    assert not (tmp_path / "never").exists()


def test_receipts_have_what_each_model_predicts_correctly(tmp_path):
    bank, shared = open_small_bank(tmp_path)
    train_missing(bank.store, bank.arms, 8, shared, InOrder())
    receipts = bank.store.receipts()
    assert len(receipts) == 8
    block = next(iter(bank.store.read_blocks(bank.arms[0].name, [0], ["member", "correct"])))
    member, correct = block.columns["member"][0], block.columns["correct"][0]
    receipt = receipts[f"{bank.arms[0].name}-00000"]
    assert receipt["n_members"] == member.sum()
    assert receipt["accuracy"]["members"] == pytest.approx(correct[member].mean())
    assert receipt["accuracy"]["left_out"] == pytest.approx(correct[~member].mean())
    assert np.isfinite(receipt["seconds"])
