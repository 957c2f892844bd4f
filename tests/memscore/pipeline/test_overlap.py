"""Models are built and written beside the training on a GPU: the same bytes, order and errors as one after the other.

A GPU's engine takes its steps here without a graph, and the threads are forced.
"""

import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch

from memscore.models.architectures import build_network
from memscore.pipeline import jobs
from memscore.pipeline.background_writer import BackgroundWriter
from memscore.pipeline.jobs import BankJob, train_subset_models
from memscore.store.store import Store
from memscore.training import engines
from tests.fixtures.proxied import open_small_bank

CPU = torch.device("cpu")


class WriteRefused(OSError):
    """A write whose error stops the run."""

    stops_the_run = True


@pytest.fixture
def open_overlap_bank(tmp_path, monkeypatch):
    """Open a bank of convolutional networks that are trained one after the other, as on one stream of a GPU."""
    monkeypatch.setattr(jobs, "select_engine", partial(engines.select_engine, capture=False))
    monkeypatch.setattr(engines, "STREAM_COUNTS", (1,))

    def open_bank(name, arch="cnn-4"):
        bank, shared = open_small_bank(
            tmp_path / name, arch=arch, recipe="digits", epochs=1, design="exact", block=8, models=8
        )
        arm = bank.arms[0]
        bank.store.add_arm({
            "name": arm.name,
            "design": arm.design,
            "keep": arm.keep,
            "block": arm.block,
            "clusters": None,
        })

        def run(models, overlap=True):
            job = BankJob(store=bank.store.url, arm=arm.name, models=tuple(models), events=True)
            return train_subset_models(job, shared, bank.store, CPU, {}, overlap=overlap)

        return bank.store, run

    return open_bank


def read_all(store):
    return {
        f"{kind}/{name}": store.folder.read(f"{kind}/{name}")
        for kind in ("shards", "events")
        for name in store.folder.names(kind)
    }


def test_shards_and_events_are_the_same_bytes_with_threads_and_without(open_overlap_bank):
    (plain, run_plain), (beside, run_beside) = open_overlap_bank("plain"), open_overlap_bank("beside")
    without, with_threads = run_plain(range(4), overlap=False), run_beside(range(4))
    assert len(read_all(plain)) == 8
    assert read_all(beside) == read_all(plain)
    for receipt in (*without, *with_threads):
        assert receipt.pop("seconds") > 0
    assert with_threads == without


def test_a_cpu_starts_no_thread(open_overlap_bank, monkeypatch):
    _, run = open_overlap_bank("store")
    monkeypatch.setattr(jobs, "ThreadPoolExecutor", None)
    assert len(run(range(2), overlap=None)) == 2


def test_a_users_network_is_built_in_no_thread(open_overlap_bank):
    """It may draw from any generator of the process, as the network that trains meanwhile may."""
    _, run = open_overlap_bank("store", arch=f"{__name__}:build_in_main_thread")
    assert len(run(range(2))) == 2


def build_in_main_thread(shape, n_classes):
    assert threading.current_thread() is threading.main_thread()
    return build_network("cnn-4", shape, n_classes, seed=0)


def test_the_next_model_is_built_and_the_last_one_written_while_one_trains(open_overlap_bank, monkeypatch):
    """Each training waits until the next model is built and the one before is written: nothing else lets it end."""
    _, run = open_overlap_bank("store")
    built, written = ([threading.Event() for _ in range(5)] for _ in range(2))
    threads = []
    train, build, write = jobs.train, jobs.build_model, jobs.write_results
    number = iter(range(4))

    def build_and_tell(store, arm, index, device, **options):
        model = build(store, arm, index, device, **options)
        threads.append(("build", index, threading.current_thread() is threading.main_thread()))
        built[index].set()
        return model

    def write_and_tell(store, name, *arguments):
        write(store, name, *arguments)
        threads.append(("write", int(name[-5:]), threading.current_thread() is threading.main_thread()))
        written[int(name[-5:])].set()

    def train_beside(*arguments, **options):
        k = next(number)
        assert k == 3 or built[k + 1].wait(20)
        assert k == 0 or written[k - 1].wait(20)
        train(*arguments, **options)

    for name, function in (("train", train_beside), ("build_model", build_and_tell), ("write_results", write_and_tell)):
        monkeypatch.setattr(jobs, name, function)
    assert len(run(range(4))) == 4
    in_main = {(what, k): main for what, k, main in threads}
    assert in_main == {("build", k): k == 0 for k in range(4)} | {("write", k): False for k in range(4)}


def test_a_receipt_is_written_before_its_shard_and_models_in_order(open_overlap_bank, monkeypatch):
    _, run = open_overlap_bank("store")
    order, receipt, shard = [], Store.write_receipt, Store.write_shard

    def write_receipt(store, name, *arguments):
        order.append(("receipt", name))
        receipt(store, name, *arguments)

    def write_shard(store, name, *arguments):
        order.append(("shard", name))
        return shard(store, name, *arguments)

    monkeypatch.setattr(Store, "write_receipt", write_receipt)
    monkeypatch.setattr(Store, "write_shard", write_shard)
    names = [receipt["model"] for receipt in run(range(3))]
    assert order == [(kind, name) for name in names for kind in ("receipt", "shard")]


@pytest.mark.parametrize("refused", [1, 2])
def test_a_write_that_fails_ends_the_job_with_its_own_error(open_overlap_bank, monkeypatch, refused):
    store, run = open_overlap_bank("store")
    write = Store.write_shard

    def fail(store, name, *arguments):
        if name.endswith(f"{refused:05d}"):
            raise WriteRefused("the disk is full")
        return write(store, name, *arguments)

    monkeypatch.setattr(Store, "write_shard", fail)
    with pytest.raises(WriteRefused, match="the disk is full"):
        run(range(3))
    assert len(store.folder.names("shards")) == refused


@pytest.mark.parametrize("place", ["build_model", "train"])
def test_models_before_one_that_fails_are_stored(open_overlap_bank, monkeypatch, place):
    store, run = open_overlap_bank("store")
    function, calls = getattr(jobs, place), iter(range(9))

    def fail(*arguments, **options):
        if next(calls) == 2:
            raise ArithmeticError("the third one fails")
        return function(*arguments, **options)

    monkeypatch.setattr(jobs, place, fail)
    with pytest.raises(ArithmeticError, match="the third one fails"):
        run(range(4))
    assert len(store.folder.names("shards")) == 2


def test_no_more_than_two_groups_of_models_are_in_memory(open_overlap_bank, monkeypatch):
    _, run = open_overlap_bank("store")
    build, models, most = jobs.build_model, weakref.WeakSet(), []

    def count(*arguments, **options):
        model = build(*arguments, **options)
        models.add(model)
        most.append(len(models))
        return model

    monkeypatch.setattr(jobs, "build_model", count)
    run(range(8))
    assert len(most) == 8
    assert max(most) <= 4  # those that train, the next, the first that the engine was selected by, one being replaced


@pytest.mark.parametrize("stops", [False, True])
def test_of_two_errors_the_one_that_stops_the_run_is_raised_and_none_is_lost(stops):
    def fail():
        raise WriteRefused("the disk is full") if stops else OSError("the disk is full")

    def write_and_fail():
        with ThreadPoolExecutor(1) as threads, BackgroundWriter(threads) as writer:
            writer.run(fail)
            raise ArithmeticError("training failed")

    with pytest.raises(WriteRefused if stops else ArithmeticError) as raised:
        write_and_fail()
    if stops:
        assert isinstance(raised.value.__context__, ArithmeticError)
    else:
        assert raised.value.__notes__ == [
            "and the results of the model before it could not be written: the disk is full"
        ]
