"""The pool that begins in this process and goes on with workers, if its jobs take longer than forecast."""

import time
from contextlib import contextmanager
from dataclasses import replace

import pytest

from cluster.auto_pool import START_S, AutoPool, LateMetrics
from cluster.auto_search import AutoSearch
from cluster.pool import Failure, SerialPool
from cluster.search import SerialSearch
from cluster.search_space import Search

LIMIT_S = 30


class Workers(SerialPool):
    """In place of a Ray pool: it computes here, and records what it was given."""

    workers = 2

    def __init__(self):
        super().__init__()
        self.given, self.opened, self.closed, self.released = [], 0, 0, 0
        self.setbacks, self.busy = {"worker": 1}, 2

    @contextmanager
    def open(self):
        self.opened += 1
        try:
            yield self
        finally:
            self.closed += 1

    def run(self, fn, jobs, shared=None):
        self.given += list(jobs)
        yield from super().run(fn, self.given, shared)

    def release_idle_workers(self):
        self.released += 1


@pytest.fixture
def clock(monkeypatch):
    """Jobs take the seconds that they name, and no time passes."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def sleep(job, shared):
        now[0] += job
        if job == 0.25:
            raise OSError("no")
        return job, shared

    return sleep


def run(fn, jobs, workers, lines=None):
    with AutoPool(workers.open, LIMIT_S, (lines if lines is not None else []).append) as pool:
        outcomes = list(pool.run(fn, jobs, "shared"))
        return pool, outcomes


def test_small_jobs_stay_in_this_process_and_a_failed_one_ends_no_other(clock):
    workers, lines = Workers(), []
    pool, outcomes = run(clock, [1.0, 0.25, 2.0], workers, lines)
    assert [job for job, _ in outcomes] == [1.0, 0.25, 2.0]
    assert outcomes[0][1] == (1.0, "shared")
    assert isinstance(outcomes[1][1], Failure)
    assert (workers.opened, lines) == (0, [])
    assert (pool.workers, pool.busy, pool.setbacks, pool.is_serial) == (1, None, {}, True)


def test_jobs_that_remain_go_to_workers_once_they_would_take_too_long(clock):
    workers, lines = Workers(), []
    jobs = [4.0] * 12
    pool, outcomes = run(clock, jobs, workers, lines)
    assert outcomes == [(4.0, (4.0, "shared"))] * 12
    # the first may have waited for imports; after the second, 10 jobs of 4 s are more than 30 s
    assert (workers.opened, len(workers.given), workers.closed) == (1, 10, 1)
    assert lines == [
        "10 jobs are left and take about 40 s in this process, longer than forecast: starting Ray workers for them"
    ]
    assert (pool.workers, pool.busy, pool.setbacks) == (2, 2, {"worker": 1})


def test_the_first_job_counts_only_if_no_import_takes_as_long(clock):
    workers = Workers()
    run(clock, [START_S - 1, *[0.1] * 50], workers)
    assert not workers.opened
    run(clock, [START_S + 1, *[0.1] * 50], workers)
    assert (workers.opened, len(workers.given)) == (1, 50)


def test_times_of_earlier_runs_count_and_workers_stay_open(clock):
    workers = Workers()
    with AutoPool(workers.open, LIMIT_S, [].append) as pool:
        assert len(list(pool.run(clock, [5.0, 5.0]))) == 2
        assert len(list(pool.run(clock, [5.0] * 7))) == 7
        assert (workers.opened, len(workers.given)) == (1, 7)
        workers.given.clear()
        assert len(list(pool.run(clock, [0.1]))) == 1
        assert (workers.opened, len(workers.given), workers.closed) == (1, 1, 0)
    assert workers.closed == 1


def test_kinds_of_jobs_are_timed_apart(clock):
    """An int in place of a float: a kind that is quick, of which many are left."""
    workers = Workers()
    run(clock, [5.0, 5.0, 5.0, *[0] * 1000], workers)
    assert not workers.opened


def test_without_workers_the_run_goes_on_here(clock):
    lines = []

    @contextmanager
    def fail():
        raise RuntimeError("no port")
        yield

    with AutoPool(fail, LIMIT_S, lines.append) as pool:
        assert [job for job, _ in pool.run(clock, [9.0] * 8)] == [9.0] * 8
        assert pool.is_serial
    assert len(lines) == 2
    assert lines[1] == "no workers (RuntimeError: no port); going on in this process"


def test_a_ctrl_c_while_workers_start_ends_the_run(clock):
    @contextmanager
    def interrupt():
        raise KeyboardInterrupt
        yield

    with AutoPool(interrupt, LIMIT_S, [].append) as pool, pytest.raises(KeyboardInterrupt):
        list(pool.run(clock, [9.0] * 8))


def test_what_stops_the_run_reaches_the_caller(clock):
    class DiskFullError(OSError):
        stops_the_run = True

    def fail(job, shared):
        raise DiskFullError("full")

    with AutoPool(Workers().open, LIMIT_S, [].append) as pool, pytest.raises(DiskFullError):
        list(pool.run(fail, [1.0, 2.0]))


def test_metrics_are_published_once_there_are_workers(clock):
    published = []

    class Metrics:
        def __init__(self):
            published.append("created")

        def publish(self, counters, gauges):
            published.append((counters, gauges))

    with AutoPool(Workers().open, 1, [].append) as pool:
        metrics = LateMetrics(pool, Metrics)
        metrics.publish({"a": 1}, {})
        list(pool.run(clock, [5.0] * 4))
        metrics.publish({"a": 2}, {})
        metrics.publish({"a": 3}, {})
    assert published == ["created", ({"a": 2}, {}), ({"a": 3}, {})]


@pytest.fixture
def search_times(monkeypatch):
    """Evaluations take the seconds of their job."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def evaluate(job, values, shared):
        now[0] += job
        return {"objective": values["x"]}

    return evaluate


def search_twice(evaluate, seconds):
    """Two searches, one after the other; return the pool's workers, lines, backends of each, and configurations."""
    workers, lines, tunes, results = Workers(), [], [], []

    class Tune(SerialSearch):
        def search(self, fn, searches, shared, on_result, **options):
            tunes.append(len(searches))
            super().search(fn, searches, shared, on_result, **options)

    search = Search(name="a", space={"x": ("uniform", 0.0, 1.0)}, budget=12, job=seconds)
    with AutoPool(workers.open, LIMIT_S, lines.append) as pool:
        backend = AutoSearch(pool, Tune)
        for each in (search, replace(search, name="b")):
            backend.search(evaluate, [each], None, lambda *result: results.append(result), sampler="random")
        assert backend.enumerate_configs(search, sampler="random") == SerialSearch().enumerate_configs(
            search, sampler="random"
        )
    return workers, lines, tunes, [(search.name, values) for search, values, _ in results]


def test_a_search_ends_where_it_began_and_the_next_one_is_in_workers(search_times):
    workers, lines, tunes, slow = search_twice(search_times, 4.0)
    assert (workers.opened, tunes) == (1, [1])
    assert [line.partition(" are left")[0] for line in lines] == ["10 configurations", "12 jobs"]
    workers, lines, tunes, quick = search_twice(search_times, 0.1)
    assert (workers.opened, tunes, lines) == (0, [], [])
    assert slow == quick
    assert len(quick) == 24
