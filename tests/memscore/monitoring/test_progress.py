"""Progress of a run: results are counted, reported every second and stored, and a report never ends the run."""

import errno
import io
import threading
import time
from collections import Counter
from dataclasses import replace

import pytest

from cluster.pool import Failure, SerialPool
from memscore.monitoring.heartbeat import read_heartbeat
from memscore.monitoring.progress import MonitoredPool, monitor_pool
from memscore.monitoring.prometheus import COUNTERS, GAUGES, compute_counters, compute_gauges
from memscore.pipeline.config import BankConfig
from memscore.pipeline.jobs import BankJob, OriginalJob
from memscore.pipeline.map_reduce import BlockJob
from memscore.pipeline.runner import estimate
from memscore.tables.progress_bar import ProgressBar, format_counts
from tests.fixtures import banks
from tests.fixtures.command import SERIAL, SMALL, contents, here
from tests.fixtures.opened import open_bank
from tests.memscore.monitoring.test_status import make_heartbeat

ARM = banks.ARM["name"]


class FixedPool:
    """A pool with fixed results."""

    workers = 2

    def __init__(self, outcomes, setbacks=None):
        self.outcomes = outcomes
        self.setbacks = Counter(setbacks or {})

    def run(self, fn, jobs, shared=None):
        for job in jobs:
            yield job, self.outcomes[job]


def make_receipt(model, **more):
    return {"model": model, "diverged": False, "seconds": 1.0, "accuracy": {"test": 0.9}} | more


def make_job(*models):
    return BankJob(store="s", arm=ARM, models=models, events=False, device="cpu")


def make_receipts(*models):
    return [make_receipt(f"{ARM}-{index:05d}") for index in models]


def test_everything_that_passes_is_counted_once_and_passed_on_unchanged(tmp_path):
    """Models 0 to 2 are on file; 3 and 4 are new, 5 diverged, 6 and 7 failed, and 2 came again for its events."""
    store = banks.bank(tmp_path / "bank")
    for index in (3, 4):
        store.write_shard(f"{ARM}-{index:05d}", ARM, banks.shard(index))
    size = sum(banks.path_of(store, f"shards/{ARM}-0000{index}.parquet").stat().st_size for index in (2, 3, 4))
    for index in (3, 4):
        banks.path_of(store, f"shards/{ARM}-0000{index}.parquet").rename(tmp_path / str(index))
    outcomes = {
        make_job(3, 4): make_receipts(3, 4),
        make_job(5): [make_receipt(f"{ARM}-00005", diverged=True)],
        make_job(6, 7): Failure(error="OSError: no", kind="worker"),
        make_job(2): make_receipts(2),
    }
    pool = MonitoredPool(FixedPool(outcomes, {"worker": 3}), store, {ARM: 8})
    assert pool.update_heartbeat().models == {ARM: 3}
    for index in (3, 4):
        (tmp_path / str(index)).rename(banks.path_of(store, f"shards/{ARM}-0000{index}.parquet"))
    assert list(pool.run(None, outcomes)) == list(outcomes.items())
    heartbeat = pool.update_heartbeat()
    assert (heartbeat.done, heartbeat.total) == (6, 6)
    assert (heartbeat.trained, heartbeat.failed, heartbeat.diverged) == (3, 2, 1)
    assert heartbeat.models == {ARM: 5}
    assert heartbeat.retried == {"worker": 3}
    assert heartbeat.bytes == size
    assert heartbeat.rate_per_s > 0
    assert pool.update_heartbeat().bytes == size


def test_bytes_of_shards_wait_for_a_store_that_does_not_answer(tmp_path, monkeypatch, caplog):
    store = banks.bank(tmp_path / "bank")
    sizes = [banks.path_of(store, f"shards/{ARM}-0000{index}.parquet").stat().st_size for index in (0, 1, 2)]
    outcomes = {make_job(0): make_receipts(0), make_job(1, 2): make_receipts(1, 2)}
    pool = MonitoredPool(FixedPool(outcomes), store, {ARM: 8})

    def fail(store, models):
        raise OSError("the network is down")

    run = pool.run(None, outcomes)
    with monkeypatch.context() as patch:
        patch.setattr("memscore.monitoring.progress.sum_shard_sizes", fail)
        next(run)
        heartbeat = pool.update_heartbeat()
        # all that needs no store is up to date, and shown
        assert (heartbeat.done, heartbeat.trained, heartbeat.bytes) == (1, 1, 0)
        pool.update_heartbeat()
    assert [record.message.count("the network is down") for record in caplog.records] == [1]
    next(run)
    assert pool.update_heartbeat().bytes == sum(sizes)
    assert pool.update_heartbeat().bytes == sum(sizes)


def test_originals_and_proxies_are_phases_of_their_own(tmp_path):
    store = banks.bank(tmp_path / "bank")
    jobs = {
        OriginalJob(store="s", index=i, evaluate=False, device="cpu"): [make_receipt("original-00000")] for i in (0, 1)
    }
    pool = MonitoredPool(FixedPool({**jobs, make_job(3): make_receipts(3)}), store, {ARM: 8})
    run = pool.run(None, jobs)
    next(run)
    next(run)  # the first is counted once it was asked for the next
    heartbeat = pool.update_heartbeat()
    assert (heartbeat.phase, heartbeat.total, heartbeat.trained, heartbeat.eta_s) == ("originals", 2, 0, None)
    assert list(run) == []
    assert list(pool.run(None, [make_job(3)]))
    assert (pool.update_heartbeat().done, pool.update_heartbeat().total, pool.update_heartbeat().trained) == (1, 1, 1)


def test_blocks_that_are_scored_pass_and_are_no_models(tmp_path):
    made = {BlockJob(start=0, stop=5): 1, BlockJob(start=5, stop=9): Failure(error="no", kind="worker")}
    with MonitoredPool(FixedPool(made), banks.bank(tmp_path / "bank"), {ARM: 4}) as pool:
        assert dict(pool.run(None, list(made))) == made
        heartbeat = pool.update_heartbeat()
    assert (heartbeat.phase, heartbeat.done, heartbeat.total, heartbeat.failed, heartbeat.line) == (
        "models",
        0,
        0,
        0,
        "",
    )


def test_the_rate_falls_while_nothing_ends(tmp_path):
    pool = MonitoredPool(
        FixedPool({make_job(i): make_receipts(i) for i in range(3, 9)}), banks.bank(tmp_path / "bank"), {ARM: 9}
    )
    run = pool.run(None, [make_job(i) for i in range(3, 9)])
    for _ in range(3):
        next(run)
    first = pool.update_heartbeat()
    time.sleep(0.2)
    later = pool.update_heartbeat()
    assert later.rate_per_s < first.rate_per_s
    assert later.eta_s > first.eta_s
    slept = 2 / later.rate_per_s - 2 / first.rate_per_s  # two models since the first of more than there are workers
    assert 0.2 <= slept < 2  # the rest is a busy machine's


def test_the_record_is_there_from_the_beginning_and_has_how_it_ended(tmp_path):
    store = banks.bank(tmp_path / "bank")
    with MonitoredPool(FixedPool({}), store, {ARM: 8}):
        assert read_heartbeat(store.folder).state == "running"
        assert read_heartbeat(store.folder).is_fresh()
    assert read_heartbeat(store.folder).state == "ended"
    assert not read_heartbeat(store.folder).is_fresh()
    with pytest.raises(ValueError, match="bad"), MonitoredPool(FixedPool({}), store, {"iid-k0.500": 4}):
        raise ValueError("bad")
    assert read_heartbeat(store.folder).state == "stopped"
    assert read_heartbeat(store.folder).planned == {ARM: 8, "iid-k0.500": 4}  # what an earlier command requested stays


def test_a_listener_that_fails_gives_one_warning_and_the_others_are_called(tmp_path, monkeypatch, caplog):
    heartbeats = []

    def fail(heartbeat):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("memscore.monitoring.progress.TICK_S", 0.01)
    with MonitoredPool(
        FixedPool({make_job(3): make_receipts(3)}),
        banks.bank(tmp_path / "bank"),
        {ARM: 8},
        listeners=[fail, heartbeats.append],
    ) as pool:
        assert list(pool.run(None, [make_job(3)]))
        while len(heartbeats) < 5:
            time.sleep(0.01)
    assert [record.message.count("No space left") for record in caplog.records] == [1]
    assert heartbeats[-1].state == "ended"
    assert heartbeats[-1].trained == 1
    assert not any(thread.name == "memscore-monitor" for thread in threading.enumerate())


def test_monitoring_changes_no_bit_of_a_bank(tmp_path):
    """The same plan with and without a monitored pool: shards and scores are the same files."""
    plan = {"train_limit": 200, "epochs": 2, "design": "exact", "block": 8, "models": 8, "originals": 0}
    heartbeats = []

    class Display:
        show_heartbeat = staticmethod(heartbeats.append)

    bare = open_bank(BankConfig(store=str(tmp_path / "bare"), **plan))
    estimate(bare, SerialPool())
    seen = open_bank(BankConfig(store=str(tmp_path / "seen"), **plan))
    with monitor_pool(seen, SerialPool(), Display(), None) as pool:
        estimate(seen, pool, on_forecast=pool.wrap_on_forecast(lambda *arguments: None))
    assert contents(tmp_path / "seen") == contents(tmp_path / "bare")
    assert heartbeats[-1].trained == heartbeats[-1].done == heartbeats[-1].total == 8
    assert heartbeats[-1].models == heartbeats[-1].planned == {"exact-k0.500-b8": 8}


def test_a_command_in_a_log_ends_with_a_line_and_has_no_carriage_return(tmp_path, capsys):
    code, output = here(f"{SMALL} {SERIAL} --store {tmp_path / 'store'}", capsys)
    assert code == 0
    assert "\r" not in output
    assert "\x1b" not in output
    [line] = [line for line in output.splitlines() if line.startswith("models 16/16, ")]
    assert "0 failed; ended after " in line


def format_lines(heartbeats, update_s=5.0, repeat_s=60.0):
    stream = io.StringIO()
    bar = ProgressBar("models", stream, update_s, repeat_s)
    for heartbeat in heartbeats:
        bar.show_heartbeat(heartbeat)
    return stream.getvalue().splitlines()


def test_a_log_gets_a_line_only_so_often_and_one_at_the_end():
    running = [make_heartbeat(done=done, total=90, trained=done) for done in range(90)]
    ended = make_heartbeat(state="ended", done=90, total=90, trained=90, failed=2)
    assert len(format_lines([*running, ended])) == 1
    every = format_lines([*running, ended], update_s=0, repeat_s=0)
    assert len(every) == 91
    assert every[-1] == "models 90/90, 2 failed; ended after 1 min"


def test_a_run_without_progress_repeats_its_line_rarely():
    still = [make_heartbeat(done=1, total=2)] * 10
    assert len(format_lines(still, update_s=0, repeat_s=1000)) == 1
    assert len(format_lines(still, update_s=0, repeat_s=0)) == 10


def test_the_line_has_rate_time_left_failures_and_workers():
    heartbeat = make_heartbeat(
        rate_per_s=0.5, eta_s=3700.0, failed=1, retried={"node": 2, "worker": 1}, workers=8, busy=7
    )
    assert (
        format_counts(heartbeat)
        == "1800 an hour, 61.7 min left, 1 failed, tried again: 2 node, 1 worker, 7 of 8 workers"
    )
    assert (
        format_counts(replace(heartbeat, busy=None, retried={}, rate_per_s=None, eta_s=None)) == "1 failed, 8 workers"
    )


def test_every_value_that_is_published_is_described_with_its_tag():
    heartbeat = make_heartbeat(
        models={ARM: 3}, planned={ARM: None}, rmse={ARM: 0.1}, rate_per_s=1.0, eta_s=2.0, busy=1, total=3
    )
    for values, table in ((compute_counters(heartbeat), COUNTERS), (compute_gauges(heartbeat), GAUGES)):
        assert set(values) == set(table)
        assert all(isinstance(value, dict) == (table[name][1] is not None) for name, value in values.items())
    assert compute_gauges(heartbeat)["models_planned"] == {}  # an error was requested
    unknown = compute_gauges(replace(heartbeat, rate_per_s=None, eta_s=None, busy=None))
    assert not {"models_per_hour", "eta_seconds", "workers_busy"} & set(unknown)
