"""The interface of a pool, tested on both pools."""

from collections.abc import Iterator

import numpy as np
import pytest

from cluster.pool import Failure, FailureCounter, Pool, RepeatedFailure, RunStopped, SerialPool, format_error
from tests.fixtures import jobs


@pytest.fixture(scope="module", params=["serial", pytest.param("ray", marks=pytest.mark.ray)])
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    """A pool of each kind, used for run after run, also after one that was stopped."""
    if request.param == "serial":
        with SerialPool() as pool:
            yield pool
        return
    request.getfixturevalue("ray_cluster")
    from cluster.ray_pool import RayPool

    with RayPool(workers=2) as pool:
        yield pool


def test_each_job_comes_back_once_with_its_result(pool):
    """Equal jobs are different jobs."""
    assert sorted(pool.run(jobs.double, [4, 0, 1, 1, 2, 1])) == [(job, 2 * job) for job in (0, 1, 1, 1, 2, 4)]


def test_a_job_that_raises_is_a_failure_and_the_others_go_on(pool):
    outcomes = dict(pool.run(jobs.double_or_raise, range(6)))
    failure = outcomes.pop(3)
    assert outcomes == {job: 2 * job for job in (0, 1, 2, 4, 5)}
    assert isinstance(failure, Failure)
    assert (failure.error, failure.kind, failure.attempts) == ("ValueError: three is not allowed", "exception", 1)
    assert "double_or_raise" in failure.traceback


def test_sys_exit_and_exceptions_that_are_no_exception_are_failures_and_the_others_go_on(pool):
    outcomes = dict(pool.run(jobs.end_in_other_ways, ["a", "sys.exit", "other", "generator", "b"]))
    assert (outcomes.pop("a"), outcomes.pop("b")) == ("a", "b")
    assert {job: (failure.error, failure.kind) for job, failure in outcomes.items()} == {
        "sys.exit": ("SystemExit: 5", "exception"),
        "other": ("NoException: not one of Exception", "exception"),
        "generator": ("GeneratorExit", "exception"),
    }
    assert "end_in_other_ways" in outcomes["sys.exit"].traceback


def test_a_run_stops_where_its_first_jobs_all_fail_in_the_same_way(pool):
    """Numbers, addresses and quoted names differ from job to job."""
    outcomes = []
    with pytest.raises(
        RepeatedFailure, match=r"first \d jobs.* all failed in the same way.*ValueError: .*--keep-going"
    ):
        outcomes.extend(pool.run(jobs.always_raise, range(400)))
    # a job that another worker has tried too counts twice
    assert sum(outcome.attempts for _, outcome in outcomes) in {8, 9}
    assert all(isinstance(outcome, Failure) for _, outcome in outcomes)
    assert list(pool.run(jobs.double, [5])) == [(5, 10)]


def test_a_run_goes_on_once_a_job_has_succeeded(pool):
    outcomes = dict(pool.run(jobs.raise_from_the_second_on, range(20)))
    assert len(outcomes) == 20
    assert outcomes.pop(0) == 0
    assert all(isinstance(outcome, Failure) for outcome in outcomes.values())


def test_a_run_that_is_to_keep_going_tries_every_job():
    outcomes = list(SerialPool(keep_going=True).run(jobs.always_raise, range(20)))
    assert [job for job, _ in outcomes] == list(range(20))


@pytest.mark.parametrize(
    ("outcomes", "n_workers", "n_counted"),
    [
        ([Failure(error=f"ValueError: {k}") for k in range(30)], 10, 20),
        ([Failure(error="died", kind="worker", attempts=3)] * 30, 2, 3),
        ([Failure(error="lost", kind="node", attempts=10)] * 30, 2, 3),
        ([Failure(error="a"), *[Failure(error="b")] * 29], 2, None),
        ([Failure(error="a", kind="memory"), *[Failure(error="a")] * 29], 2, None),
        ([*[Failure(error="a")] * 7, "result", *[Failure(error="a")] * 22], 2, None),
    ],
)
def test_failures_are_counted_by_attempts_while_all_are_the_same(outcomes, n_workers, n_counted):
    counter = FailureCounter(lambda: n_workers, keep_going=False)
    recorded = []

    def record_all():
        for outcome in outcomes:
            recorded.append(outcome)
            counter.record(outcome)

    if n_counted is None:
        record_all()
    else:
        with pytest.raises(RepeatedFailure):
            record_all()
    assert len(recorded) == (n_counted or len(outcomes))


def test_ctrl_c_in_a_serial_job_reaches_the_caller():
    def interrupt(job, shared):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(SerialPool().run(interrupt, range(3)))


def test_shared_arrays_arrive_read_only_and_stay_writeable_here(pool):
    images = np.arange(4, dtype=np.float32)
    outcomes = dict(pool.run(jobs.add_shared, range(4), shared={"images": images}))
    assert outcomes == {job: (float(job), False) for job in range(4)}
    assert images.flags.writeable


def test_an_exception_that_stops_the_run_reaches_the_caller_as_it_was(pool):
    with pytest.raises(jobs.StoreGone, match="the disk is full"):
        list(pool.run(jobs.stop_at_three, range(200)))
    assert list(pool.run(jobs.double, [5])) == [(5, 10)]


def test_no_jobs_give_nothing(pool):
    assert list(pool.run(jobs.double, [])) == []


def test_serial_pool_runs_in_order_and_as_jobs_are_read():
    seen = []

    def job_source():
        for job in range(3):
            seen.append(job)
            yield job

    run = SerialPool().run(jobs.double, job_source())
    assert next(run) == (0, 0)
    assert seen == [0]
    assert SerialPool().workers == 1


def test_serial_pool_shares_the_memory_of_arrays():
    images = np.zeros(3)

    def address(job, shared):
        return shared.__array_interface__["data"][0]

    assert next(SerialPool().run(address, [0], shared=images))[1] == images.__array_interface__["data"][0]


def test_format_error_folds_a_message():
    assert format_error(ValueError("keep must lie\n  between 0 and 1")) == "ValueError: keep must lie between 0 and 1"
    assert format_error(KeyError()) == "KeyError"
    assert format_error(RunStopped(28, "no space")) == "RunStopped: [Errno 28] no space"


def test_a_serial_run_whose_process_lost_its_gpu_stops_after_the_second_job():
    outcomes = []
    with pytest.raises(
        RunStopped, match=r"lost its GPU, in 2 jobs in a row \(Accel.*triggered in job 1\); .*run the same"
    ):
        outcomes.extend(SerialPool().run(jobs.always_lose_gpu, range(30)))
    assert [job for job, _ in outcomes] == [0, 1]
    assert all(isinstance(outcome, Failure) for _, outcome in outcomes)


def test_a_serial_run_goes_on_where_the_gpu_works_again():
    outcomes = dict(SerialPool().run(jobs.lose_gpu_at_odd, range(10)))
    assert [job for job, outcome in outcomes.items() if isinstance(outcome, Failure)] == [1, 3, 5, 7, 9]
