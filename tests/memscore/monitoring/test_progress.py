"""What a run says of itself: counted as it passes, told every second, kept in the store, and never in the way."""

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
from memscore.pipeline.runner import estimate, open_bank
from memscore.tables.progress_bar import ProgressBar, format_counts
from tests.fixtures import banks
from tests.fixtures.command import SERIAL, SMALL, contents, here
from tests.memscore.monitoring.test_status import beat

ARM = banks.ARM["name"]


class Given:
    """A pool that has the outcomes already."""

    workers = 2

    def __init__(self, outcomes, setbacks=None):
        self.outcomes = outcomes
        self.setbacks = Counter(setbacks or {})

    def run(self, fn, jobs, shared=None):
        for job in jobs:
            yield job, self.outcomes[job]


def receipt(model, **more):
    return {"model": model, "diverged": False, "seconds": 1.0, "accuracy": {"test": 0.9}} | more


def job_of(*models):
    return BankJob(store="s", arm=ARM, models=models, events=False, device="cpu")


def of(*models):
    return [receipt(f"{ARM}-{index:05d}") for index in models]


def test_everything_that_passes_is_counted_once_and_handed_on_as_it_is(tmp_path):
    """Models 0 to 2 are on file; 3 and 4 are new, 5 diverged, 6 and 7 failed, and 2 came again for its events."""
    store = banks.bank(tmp_path / "bank")
    for index in (3, 4):
        store.write_shard(f"{ARM}-{index:05d}", ARM, banks.shard(index))
    size = sum(banks.path_of(store, f"shards/{ARM}-0000{index}.parquet").stat().st_size for index in (2, 3, 4))
    for index in (3, 4):
        banks.path_of(store, f"shards/{ARM}-0000{index}.parquet").rename(tmp_path / str(index))
    outcomes = {
        job_of(3, 4): of(3, 4),
        job_of(5): [receipt(f"{ARM}-00005", diverged=True)],
        job_of(6, 7): Failure(error="OSError: no", kind="worker"),
        job_of(2): of(2),
    }
    watch = MonitoredPool(Given(outcomes, {"worker": 3}), store, {ARM: 8})
    assert watch.beat().models == {ARM: 3}
    for index in (3, 4):
        (tmp_path / str(index)).rename(banks.path_of(store, f"shards/{ARM}-0000{index}.parquet"))
    assert list(watch.run(None, outcomes)) == list(outcomes.items())
    said = watch.beat()
    assert (said.done, said.total) == (6, 6)
    assert (said.trained, said.failed, said.diverged) == (3, 2, 1)
    assert said.models == {ARM: 5}
    assert said.retried == {"worker": 3}
    assert said.bytes == size
    assert said.rate_per_s > 0
    assert watch.beat().bytes == size


def test_originals_and_proxies_are_phases_of_their_own(tmp_path):
    store = banks.bank(tmp_path / "bank")
    jobs = {OriginalJob(store="s", index=i, evaluate=False, device="cpu"): [receipt("original-00000")] for i in (0, 1)}
    watch = MonitoredPool(Given({**jobs, job_of(3): of(3)}), store, {ARM: 8})
    run = watch.run(None, jobs)
    next(run)
    next(run)  # the first is counted once it was asked for the next
    said = watch.beat()
    assert (said.phase, said.total, said.trained, said.eta_s) == ("originals", 2, 0, None)
    assert list(run) == []
    assert list(watch.run(None, [job_of(3)]))
    assert (watch.beat().done, watch.beat().total, watch.beat().trained) == (1, 1, 1)


def test_blocks_that_are_scored_pass_and_are_no_models(tmp_path):
    made = {BlockJob(start=0, stop=5): 1, BlockJob(start=5, stop=9): Failure(error="no", kind="worker")}
    with MonitoredPool(Given(made), banks.bank(tmp_path / "bank"), {ARM: 4}) as watch:
        assert dict(watch.run(None, list(made))) == made
        said = watch.beat()
    assert (said.phase, said.done, said.total, said.failed, said.line) == ("models", 0, 0, 0, "")


def test_the_rate_falls_while_nothing_ends(tmp_path):
    watch = MonitoredPool(Given({job_of(i): of(i) for i in range(3, 9)}), banks.bank(tmp_path / "bank"), {ARM: 9})
    run = watch.run(None, [job_of(i) for i in range(3, 9)])
    for _ in range(3):
        next(run)
    first = watch.beat()
    time.sleep(0.2)
    later = watch.beat()
    assert later.rate_per_s < first.rate_per_s
    assert later.eta_s > first.eta_s
    slept = 2 / later.rate_per_s - 2 / first.rate_per_s  # two models since the first of more than there are workers
    assert 0.2 <= slept < 2  # the rest is a busy machine's


def test_the_record_is_there_from_the_beginning_and_says_how_it_ended(tmp_path):
    store = banks.bank(tmp_path / "bank")
    with MonitoredPool(Given({}), store, {ARM: 8}):
        assert read_heartbeat(store.folder).state == "running"
        assert read_heartbeat(store.folder).fresh()
    assert read_heartbeat(store.folder).state == "ended"
    assert not read_heartbeat(store.folder).fresh()
    with pytest.raises(ValueError, match="bad"), MonitoredPool(Given({}), store, {"iid-k0.500": 4}):
        raise ValueError("bad")
    assert read_heartbeat(store.folder).state == "stopped"
    assert read_heartbeat(store.folder).planned == {ARM: 8, "iid-k0.500": 4}  # what an earlier command asked for stays


def test_who_cannot_be_told_is_warned_of_once_and_the_others_are_told(tmp_path, monkeypatch, caplog):
    heard = []

    def full(beat):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("memscore.monitoring.progress.TICK_S", 0.01)
    with MonitoredPool(
        Given({job_of(3): of(3)}), banks.bank(tmp_path / "bank"), {ARM: 8}, tell=[full, heard.append]
    ) as watch:
        assert list(watch.run(None, [job_of(3)]))
        while len(heard) < 5:
            time.sleep(0.01)
    assert [record.message.count("No space left") for record in caplog.records] == [1]
    assert heard[-1].state == "ended"
    assert heard[-1].trained == 1
    assert not any(thread.name == "memscore-watch" for thread in threading.enumerate())


def test_watching_changes_no_bit_of_a_bank(tmp_path):
    """The same plan with and without a watch: shards and scores are the same files."""
    plan = {"train_limit": 200, "epochs": 2, "design": "exact", "block": 8, "models": 8, "originals": 0}
    told = []

    class Heard:
        beat = staticmethod(told.append)

    bare = open_bank(BankConfig(store=str(tmp_path / "bare"), **plan))
    estimate(bare, SerialPool())
    seen = open_bank(BankConfig(store=str(tmp_path / "seen"), **plan))
    with monitor_pool(seen, SerialPool(), Heard(), None) as watch:
        estimate(seen, watch, on_forecast=watch.wrap_on_forecast(lambda *found: None))
    assert contents(tmp_path / "seen") == contents(tmp_path / "bare")
    assert told[-1].trained == told[-1].done == told[-1].total == 8
    assert told[-1].models == told[-1].planned == {"exact-k0.500-b8": 8}


def test_a_command_in_a_log_ends_with_a_line_and_has_no_carriage_return(tmp_path, capsys):
    code, said = here(f"{SMALL} {SERIAL} --store {tmp_path / 'store'}", capsys)
    assert code == 0
    assert "\r" not in said
    assert "\x1b" not in said
    [line] = [line for line in said.splitlines() if line.startswith("models 16/16, ")]
    assert "0 failed; ended after " in line


def lines_of(beats, every_s=5.0, still_s=60.0):
    stream = io.StringIO()
    meter = ProgressBar("models", stream, every_s, still_s)
    for said in beats:
        meter.beat(said)
    return stream.getvalue().splitlines()


def test_a_log_gets_a_line_only_so_often_and_one_at_the_end():
    running = [beat(done=done, total=90, trained=done) for done in range(90)]
    ended = beat(state="ended", done=90, total=90, trained=90, failed=2)
    assert len(lines_of([*running, ended])) == 1
    every = lines_of([*running, ended], every_s=0, still_s=0)
    assert len(every) == 91
    assert every[-1] == "models 90/90, 2 failed; ended after 1 min 0 s"


def test_a_run_that_stands_still_repeats_itself_rarely():
    still = [beat(done=1, total=2)] * 10
    assert len(lines_of(still, every_s=0, still_s=1000)) == 1
    assert len(lines_of(still, every_s=0, still_s=0)) == 10


def test_the_line_says_rate_time_left_failures_and_workers():
    said = beat(rate_per_s=0.5, eta_s=3700.0, failed=1, retried={"node": 2, "worker": 1}, workers=8, busy=7)
    assert (
        format_counts(said) == "1800 an hour, 1 h 1 min left, 1 failed, tried again: 2 node, 1 worker, 7 of 8 workers"
    )
    assert format_counts(replace(said, busy=None, retried={}, rate_per_s=None, eta_s=None)) == "1 failed, 8 workers"


def test_every_number_that_is_told_is_announced_and_has_the_tag_that_was():
    said = beat(models={ARM: 3}, planned={ARM: None}, rmse={ARM: 0.1}, rate_per_s=1.0, eta_s=2.0, busy=1, total=3)
    for told, table in ((compute_counters(said), COUNTERS), (compute_gauges(said), GAUGES)):
        assert set(told) == set(table)
        assert all(isinstance(value, dict) == (table[name][1] is not None) for name, value in told.items())
    assert compute_gauges(said)["models_planned"] == {}  # a precision was asked for
    unknown = compute_gauges(replace(said, rate_per_s=None, eta_s=None, busy=None))
    assert not {"models_per_hour", "eta_seconds", "workers_busy"} & set(unknown)
