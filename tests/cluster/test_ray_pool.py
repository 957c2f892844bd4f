"""What only processes can do: die, hang, be lost with their node, run out of memory."""

import importlib
import json
import logging
import os
import re
import signal
import socket
import time
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from cluster.pool import Failure, RepeatedFailure
from tests.fixtures import jobs

pytestmark = pytest.mark.ray


@pytest.fixture
def ray_pool(ray_cluster):
    from cluster.ray_pool import RayPool

    return RayPool


def wait_for(condition, limit_s=20.0):
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, f"not true within {limit_s} s"
        time.sleep(0.05)


def has_ended(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_killed_worker_s_job_runs_again(ray_pool, tmp_path):
    mark = tmp_path / "slow.mark"

    def kill():
        wait_for(mark.exists)
        os.kill(int(mark.read_text().split()[1]), signal.SIGKILL)

    killer = Thread(target=kill)
    killer.start()
    pool = ray_pool(workers=1)
    outcomes = dict(pool.run(jobs.note_node_and_sleep, ["slow", "quick"], shared=str(tmp_path)))
    killer.join()
    assert outcomes == {"slow": "again", "quick": "first"}
    assert pool.setbacks == {"worker": 1}


@pytest.mark.slow
def test_a_job_on_a_lost_node_runs_again_and_that_is_not_counted(run_alone, tmp_path):
    output = run_alone("-m", "tests.fixtures.lose_a_node", str(tmp_path), "node", limit_s=150)
    assert json.loads(output) == {
        "outcomes": {"slow": "again"} | {f"quick{k}": "first" for k in range(20)},
        "setbacks": {"node": 1},
        "before": 2,
        "after": 1,
    }


@pytest.mark.slow
def test_a_dead_worker_on_a_node_that_lives_is_told_from_a_lost_node(run_alone, tmp_path):
    report = json.loads(run_alone("-m", "tests.fixtures.lose_a_node", str(tmp_path), "worker", limit_s=150))
    assert report["outcomes"]["slow"] == "again"
    assert (report["setbacks"], report["after"]) == ({"worker": 1}, 2)


def test_a_stack_that_kills_its_workers_is_split_and_only_the_faulty_part_fails(ray_pool, monkeypatch):
    """After three deaths, as is promised; here after two, since each costs seconds."""
    from cluster import ray_scheduler

    assert ray_scheduler.MAX_ATTEMPTS == 3
    monkeypatch.setattr("cluster.ray_scheduler.MAX_ATTEMPTS", 2)
    pool = ray_pool(workers=2)
    outcomes = dict(pool.run(jobs.die_if_faulty, [jobs.Stack((0, 1), faulty=1), jobs.Stack((3, 4))]))
    failure = outcomes.pop(jobs.Stack((1,), faulty=1))
    assert outcomes == {jobs.Stack((0,), faulty=1): (0,), jobs.Stack((3, 4)): (3, 4)}
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.attempts) == ("worker", 2)
    assert failure.error.startswith("its worker process died: killed by a signal")
    assert "SYSTEM_ERROR" in failure.traceback  # Ray's own description
    assert pool.setbacks == {"worker": 4}  # two as a stack, two as a part


def test_a_job_past_its_deadline_is_killed_and_counted(ray_pool, monkeypatch):
    monkeypatch.setattr("cluster.ray_scheduler.MAX_ATTEMPTS", 2)
    pool = ray_pool(workers=2, deadline_s=0.5)
    outcomes = dict(pool.run(jobs.hang_always, range(5)))
    failure = outcomes.pop(0)
    assert outcomes == {job: job for job in range(1, 5)}
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.attempts) == ("deadline", 2)
    assert pool.setbacks == {"deadline": 2}


def test_a_process_that_lost_its_gpu_is_replaced_and_its_job_runs_elsewhere(ray_pool, tmp_path, caplog):
    pool = ray_pool(workers=2)
    outcomes = dict(pool.run(jobs.lose_gpu_once, range(12), shared=str(tmp_path)))
    assert outcomes == {job: job for job in range(12)}
    assert pool.setbacks == {"gpu": 1}
    assert [r.getMessage().partition(" lost its GPU ")[2] for r in caplog.records if r.name.startswith("cluster")] == [
        "(AcceleratorError: CUDA error: an illegal memory access was encountered); it is replaced"
    ]


def test_gpu_out_of_memory_halves_the_workers_until_the_jobs_fit(ray_pool, tmp_path):
    pool = ray_pool(workers=2)
    assert sorted(pool.run(jobs.greedy, range(6), shared=str(tmp_path))) == [(job, job) for job in range(6)]
    assert 1 <= pool.setbacks["memory"] <= 2  # once halved there is one worker, and no other uses the GPU


def test_a_stack_that_never_fits_is_split_then_fails(ray_pool, monkeypatch):
    monkeypatch.setattr("cluster.ray_scheduler.MAX_ATTEMPTS", 1)
    pool = ray_pool(workers=1)
    outcomes = dict(pool.run(jobs.never_fits, [jobs.Stack((0, 1), faulty=1)]))
    failure = outcomes.pop(jobs.Stack((1,), faulty=1))
    assert outcomes == {jobs.Stack((0,), faulty=1): 1}
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.error) == ("memory", "OutOfMemoryError: CUDA out of memory")


def test_new_workers_know_what_an_exception_told_about_their_predecessors(ray_pool):
    pool = ray_pool(workers=2)
    assert sorted(pool.run(jobs.fail_unless_told, range(6))) == [(job, job) for job in range(6)]
    assert 1 <= pool.setbacks["worker"] <= 2  # once for each worker that did not know
    before = pool.setbacks["worker"]
    assert sorted(pool.run(jobs.fail_unless_told, range(2))) == [(job, job) for job in range(2)]
    assert pool.setbacks["worker"] == before


@pytest.mark.slow
def test_one_gpu_has_one_worker_that_keeps_what_is_shared_and_a_job_that_does_not_fit_is_split(run_alone):
    report = json.loads(run_alone("-m", "tests.fixtures.one_gpu"))
    assert report == {
        "workers": 1,
        "seen": ["0"],
        "processes": 1,
        "copies": 1,
        "parts": [[6], [7], [8], [9]],
        "memory": 1,
        "halves": 2,
        "share": [["0", "0.5"]],
        "searched": ["GPU 0, 0.5 of it"] * 2,
    }


def test_workers_see_no_gpu_and_use_one_thread_and_end_with_the_run(ray_pool):
    outcomes = [outcome for _, outcome in ray_pool(workers=2).run(jobs.environment, range(4))]
    assert {(cuda, threads) for cuda, threads, _ in outcomes} == {("", "1")}
    wait_for(lambda: all(has_ended(pid) for _, _, pid in outcomes))


def test_a_pool_that_was_entered_keeps_its_workers_between_runs_and_no_longer(ray_pool):
    shared = {"images": np.arange(5.0)}
    with ray_pool(workers=1) as pool:

        def pids():
            return {outcome[2] for _, outcome in pool.run(jobs.environment, range(3), shared)}

        first = pids()
        assert list(pool.run(jobs.add_shared, range(3), shared)) == [(0, (0, False)), (1, (1, False)), (2, (2, False))]
        assert list(pool.run(jobs.add_shared, [1], {"images": np.array([0, 7])})) == [(1, (7, False))]
        assert pids() == first
        os.kill(min(first), signal.SIGKILL)
        wait_for(lambda: has_ended(min(first)))
        later = pids()
        assert pool.setbacks == {}  # it died between two runs, without a job
    assert not later & first
    wait_for(lambda: all(has_ended(pid) for pid in later))


def test_a_warning_is_logged_by_the_driver_while_the_job_still_works(ray_pool, tmp_path):
    """Both workers warn ten times a second of the same thing: the driver logs it once."""
    messages = []

    class RecordingHandler(logging.Handler):
        def emit(self, record):
            messages.append(record.getMessage())
            (tmp_path / "received").touch()

    logger, handler = logging.getLogger("cluster"), RecordingHandler()
    logger.addHandler(handler)
    try:
        outcomes = dict(ray_pool(workers=2).run(jobs.warn_until_received, ["a", "b"], shared=str(tmp_path)))
    finally:
        logger.removeHandler(handler)
    assert outcomes == {"a": "received", "b": "received"}
    assert len(messages) == 1
    assert re.fullmatch(rf"memscore-worker-\d+ on host {socket.gethostname()}: cannot write [ab]", messages[0])


def test_no_log_buffer_is_left_in_the_cluster(ray_pool, tmp_path):
    (tmp_path / "received").touch()
    with ray_pool(workers=1, name="buffered") as pool:
        assert list(pool.run(jobs.warn_until_received, ["a"], shared=str(tmp_path))) == [("a", "received")]
        first = pool._log_collector.buffer
        assert list(pool.run(jobs.warn_until_received, ["a"], shared=str(tmp_path))) == [("a", "received")]
        assert pool._log_collector.buffer is first
    assert pool._log_collector._buffer is None


def test_a_log_buffer_that_is_lost_is_warned_of_once_and_jobs_go_on(ray_pool, tmp_path, caplog):
    import ray

    with ray_pool(workers=1) as pool:
        ray.kill(pool._log_collector.buffer, no_restart=True)
        assert dict(pool.run(jobs.slow_double, range(4))) == {0: 0, 1: 2, 2: 4, 3: 6}
    messages = [record.getMessage() for record in caplog.records if record.name == "cluster.log_forwarding"]
    assert messages == ["warnings of the workers are no longer forwarded, their log buffer was lost; jobs go on"]


def test_leaving_a_run_early_kills_the_jobs_in_flight(ray_pool, tmp_path):
    run = ray_pool(workers=2).run(jobs.note_node_and_sleep, ["quick", "slow"], shared=str(tmp_path))
    assert next(run) == ("quick", "first")
    mark = tmp_path / "slow.mark"
    wait_for(mark.exists)
    run.close()
    wait_for(lambda: has_ended(int(mark.read_text().split()[1])), limit_s=5)


def test_a_result_that_cannot_be_sent_is_that_job_s_failure(ray_pool):
    outcomes = dict(ray_pool(workers=1).run(jobs.unsendable, [0, 1, 2]))
    failure = outcomes.pop(1)
    assert outcomes == {0: 0, 2: 2}
    assert isinstance(failure, Failure)
    assert failure.kind == "exception"
    assert "pickle" in failure.error


def test_an_exception_that_cannot_be_pickled_still_stops_the_run(ray_pool):
    from cluster.pool import RunStopped

    with pytest.raises(RunStopped, match="StubbornError: /store: 7"):
        list(ray_pool(workers=1).run(jobs.stop_stubbornly, [7]))


def test_a_share_of_a_gpu_that_no_node_has_is_refused_at_once(ray_pool):
    with pytest.raises(ValueError, match=r"0\.5 GPU a worker, but no node has more than 0; use 0 to train on CPUs"):
        ray_pool(gpus_per_worker=0.5)


def test_a_function_that_workers_cannot_import_is_reported_at_once(ray_pool, tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text("def job(job, shared): return job")
    monkeypatch.syspath_prepend(tmp_path)
    only_here = importlib.import_module("only_here")
    with pytest.raises(RuntimeError, match="job's function: ModuleNotFoundError: No module named 'only_here'"):
        list(ray_pool(workers=1).run(only_here.job, [1]))


@pytest.mark.parametrize("workers", [0, -2])
def test_fewer_than_one_worker_is_refused(ray_pool, workers):
    with pytest.raises(ValueError, match=f"workers must be 1 or more, got {workers}"):
        ray_pool(workers=workers)


def test_a_worker_that_no_node_has_room_for_is_given_up_on(ray_pool):
    memory = 2**45  # no node has as much; Ray counts in ten-thousandths of a byte, so 2**60 would come round to 0
    pool = ray_pool(workers=1, memory_per_worker=memory, wait_s=0.5)
    with pytest.raises(TimeoutError, match=r"no worker could be placed for 0\.5 s"):
        list(pool.run(jobs.double, [1]))


def test_of_more_workers_than_fit_plans_count_those_that_fit(ray_pool):
    """That 100 are still requested, so that nodes come, is tested in test_ray_scheduler.py."""
    assert ray_pool(workers=100).workers == 2


def test_without_a_number_there_is_a_worker_a_cpu(ray_pool):
    assert ray_pool().workers == 2


@pytest.mark.slow
def test_a_run_whose_jobs_all_end_their_worker_stops_after_three_of_them(ray_pool):
    """Each with all its attempts, which take seconds: eight are enough, here of three each."""
    outcomes = []
    with pytest.raises(RepeatedFailure, match=r"the first 3 jobs \(9 attempts\) all failed .* its worker process died"):
        outcomes.extend(ray_pool(workers=2).run(jobs.always_die, range(16)))
    assert [failure.attempts for _, failure in outcomes] == [3, 3, 3]
