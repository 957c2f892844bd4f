"""A bank that goes on with another engine than it was begun with: models, receipts, and what the user is told."""

import io
from dataclasses import replace
from unittest import mock

import pytest
from rich.console import Console

from cluster.pool import Failure, SerialPool
from memscore.models import compiled_convolutions
from memscore.models.compiled_convolutions import find_processor
from memscore.monitoring.status import compute_bank_status
from memscore.pipeline.config import BankConfig
from memscore.pipeline.jobs import BankJob, run_job
from memscore.pipeline.runner import estimate
from memscore.pipeline.train_bank import build_shared_data
from memscore.store import engine_counts
from memscore.store.engine_counts import count_engines
from memscore.tables.status_table import print_status
from tests.fixtures.opened import open_bank

pytestmark = pytest.mark.skipif(isinstance(find_processor(), str), reason="this processor runs torch's own layers")

COMPILED = "single, compiled convolutions"
PLAIN = "single, convolutions not compiled because a test says so"
CONFIG = BankConfig(data="digits", train_limit=120, arch="cnn-4", epochs=1, design="iid", models=2, originals=0)


def without_compiled_convolutions():
    return mock.patch.object(compiled_convolutions, "find_processor", return_value="a test says so")


def format_status(store):
    text = io.StringIO()
    print_status(Console(width=400, file=text), compute_bank_status(store))
    return text.getvalue()


@pytest.fixture(scope="module")
def continued_bank(tmp_path_factory):
    """A bank of two models of torch's own layers, then two of compiled ones; and the heading's notes of each run."""
    config, notes = replace(CONFIG, store=str(tmp_path_factory.mktemp("bank") / "s")), []
    with without_compiled_convolutions():
        bank = open_bank(config)
        notes.append(bank.notes)
        estimate(bank, SerialPool())
    for count in (2, 4, 4):
        bank = open_bank(replace(config, models=count))
        notes.append(bank.notes)
        estimate(bank, SerialPool())
    return bank, notes


def test_the_receipt_says_which_kernel_trained_a_model(continued_bank):
    receipts = continued_bank[0].store.receipts()
    assert [receipts[name]["engine"] for name in sorted(receipts)] == [PLAIN, PLAIN, COMPILED, COMPILED]


def test_who_continues_with_another_kernel_is_told_before(continued_bank):
    first, whole, continued, again = ([note for note in notes if "engine" in note] for notes in continued_bank[1])
    assert (first, whole, again) == ([], [], [])
    [note] = continued
    assert note.startswith(f"new models are trained by another engine ({COMPILED}) than stored ones ({PLAIN})")


def test_status_names_a_bank_of_two_engines(continued_bank):
    store = continued_bank[0].store
    assert count_engines(store.folder) == {PLAIN: 2, COMPILED: 2}
    assert f"engines more than one trained these models, with other roundings: {COMPILED} (2); {PLAIN} (2)" in (
        format_status(store)
    )


def test_of_a_large_bank_the_first_and_last_receipts_are_among_those_read(continued_bank, monkeypatch):
    monkeypatch.setattr(engine_counts, "RECEIPTS_READ", 2)
    assert count_engines(continued_bank[0].store.folder) == {PLAIN: 1, COMPILED: 1}


def test_a_bank_of_one_engine_has_no_line_about_engines(tmp_path):
    bank = open_bank(replace(CONFIG, store=str(tmp_path / "s")))
    estimate(bank, SerialPool())
    assert "engines" not in format_status(bank.store)


def train_shards(folder, pool, jobs):
    """The shards that a pool leaves of jobs with these models."""
    bank = open_bank(replace(CONFIG, models=3, store=str(folder)))
    arm, shared = bank.arms[0], build_shared_data(bank.splits, None)
    bank.store.add_arm({"name": arm.name, "design": arm.design, "keep": arm.keep, "block": 1, "clusters": None})
    bank_jobs = [BankJob(store=bank.store.url, arm=arm.name, models=models) for models in jobs]
    assert not [result for _, result in pool.run(run_job, bank_jobs, shared) if isinstance(result, Failure)]
    return [bank.store.folder.read(f"shards/{name}") for name in sorted(bank.store.folder.names("shards"))]


def test_models_have_the_same_bits_in_any_company_and_order(tmp_path):
    orders = [((0, 1, 2),), ((2,), (1,), (0,)), ((1,), (0, 2))]
    first, *others = [train_shards(tmp_path / str(k), SerialPool(), jobs) for k, jobs in enumerate(orders)]
    assert len(first) == 3
    assert all(shards == first for shards in others)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_ray_workers_give_the_bits_of_this_process(tmp_path):
    from cluster.ray_pool import RayPool

    jobs = ((0,), (1,), (2,))
    assert train_shards(tmp_path / "ray", RayPool(2), jobs) == train_shards(tmp_path / "here", SerialPool(), jobs)


def test_compiling_is_charged_to_no_model(tmp_path, monkeypatch):
    bank = open_bank(replace(CONFIG, models=1, store=str(tmp_path / "s")))
    monkeypatch.setattr("memscore.pipeline.jobs.compile_convolutions", lambda model, shape: 1000.0)
    arm = bank.arms[0]
    bank.store.add_arm({"name": arm.name, "design": arm.design, "keep": arm.keep, "block": 1, "clusters": None})
    [receipt] = run_job(BankJob(store=bank.store.url, arm=arm.name, models=(0,)), build_shared_data(bank.splits, None))
    assert receipt["seconds"] < -900
