"""Whole runs with workers that fail, in a simulated cluster: a job's time and outcome depend on worker and job."""

import math
import random
from collections import Counter
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from cluster.pool import Failure, RunStopped
from tests.fixtures.jobs import Stack

GPU_ERROR = "AcceleratorError: CUDA error: an illegal memory access was encountered"
START_S, JOB_S, FAIL_S = 5.0, 40.0, 0.1


@dataclass(eq=False)
class SimulatedWorker:
    """A process in one place; `broken` is for good."""

    place: tuple[str, str]
    number: int
    broken: bool = False


class Broken(Exception):
    """What a worker with a broken GPU raises."""


@dataclass
class SimulatedCluster:
    """Replaces Ray and the clock; behave(worker, job) gives a result, or raises what the worker returns or dies of."""

    behave: object
    places: list[tuple[str, str]]
    now: float = 0.0
    due: dict = field(default_factory=dict)
    outcomes: dict = field(default_factory=dict)
    workers: list = field(default_factory=list)
    killed: list = field(default_factory=list)
    calls: Counter = field(default_factory=Counter)
    job_s: object = lambda worker, job: JOB_S
    fail_s: object = lambda worker, job: FAIL_S
    start_s: object = lambda worker: START_S

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds

    def wait(self, refs, num_returns=1, timeout=0):
        if timeout:
            first = min(self.due[ref] for ref in refs)
            self.now = max(self.now, min(first, self.now + timeout))
        return [ref for ref in refs if self.due[ref] <= self.now], []

    def get(self, ref):
        outcome = self.outcomes.pop(ref)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def nodes(self):
        return [{"NodeID": node, "Alive": True} for node, _ in self.places]

    def kill(self, actor, no_restart):
        self.killed.append(actor.worker)

    def is_initialized(self):
        return True

    def start_worker(self):
        taken = {worker.place for worker in self.workers if worker not in self.killed}
        worker = SimulatedWorker(next(place for place in self.places if place not in taken), len(self.workers))
        self.workers.append(worker)
        gpus = (worker.place[1],) if worker.place[1] else ()
        info = SimpleNamespace(node=worker.place[0], gpus=gpus, label=f"worker {worker.number}")
        start = SimpleNamespace(remote=lambda: self.call(self.start_s(worker), info))
        run_job = SimpleNamespace(remote=lambda job: self.call(*self.run_job(worker, job)))
        return SimpleNamespace(worker=worker, start=start, run_job=run_job)

    def call(self, seconds, outcome):
        ref = len(self.due)
        self.due[ref], self.outcomes[ref] = self.now + seconds, outcome
        return ref

    def run_job(self, worker, job):
        from ray.exceptions import RayActorError

        from cluster.ray_worker import RemoteError

        self.calls[job] += 1
        try:
            return self.job_s(worker, job), self.behave(worker, job)
        except Broken:
            worker.broken = True
            return FAIL_S, RemoteError(GPU_ERROR, "", gpu_memory=False, broken_gpu=True, stop=None)
        except ValueError as error:
            return self.fail_s(worker, job), RemoteError(f"ValueError: {error}", "", gpu_memory=False, stop=None)
        except RayActorError as error:
            return FAIL_S, error


@pytest.fixture
def run_jobs(monkeypatch):
    """Run jobs to their end; gives the outcomes by job, the cluster and the setbacks."""
    from cluster import faulty_workers, ray_nodes, ray_scheduler
    from cluster.ray_scheduler import JobScheduler, SchedulerConfig

    def run(behave, jobs, places=(("a", "0"), ("a", "1")), **options):
        cluster = SimulatedCluster(behave, list(places), **options)
        for module in (ray_scheduler, ray_nodes):
            monkeypatch.setattr(module, "ray", cluster)
        for module in (ray_scheduler, faulty_workers):
            monkeypatch.setattr(module, "time", cluster)
        config = SchedulerConfig(
            start_worker=cluster.start_worker,
            workers=None,
            count_fitting=lambda: len(cluster.places),
            deadline_s=1e6,
            wait_s=math.inf,
            setbacks=Counter(),
            whole_gpus=True,
        )
        scheduler, outcomes = JobScheduler(config, jobs), []
        while scheduler.is_open() and scheduler.stop is None:
            assert cluster.now < 1e6, "the run does not end"
            scheduler.scale_workers()
            scheduler.assign_jobs()
            outcomes += scheduler.poll()
        scheduler.close()
        if scheduler.stop is not None:
            raise scheduler.stop
        assert len(cluster.workers) == len(set(cluster.killed))  # none is left
        assert len(outcomes) == len(dict(outcomes))  # each job once
        return dict(outcomes), cluster, config.setbacks

    return run


def list_failures(outcomes):
    return {job: outcome for job, outcome in outcomes.items() if isinstance(outcome, Failure)}


@pytest.mark.parametrize("breaking", [{0}, {0, 1}, {5, 17}])
def test_a_worker_that_lost_its_gpu_is_replaced_and_no_job_is_lost(run_jobs, caplog, breaking):
    left = set(breaking)

    def behave(worker, job):
        if job in left or worker.broken:
            left.discard(job)
            raise Broken
        return 2 * job

    outcomes, cluster, setbacks = run_jobs(behave, range(30))
    assert outcomes == {job: 2 * job for job in range(30)}
    assert setbacks == {"gpu": len(breaking)}
    assert len(cluster.workers) == 2 + len(breaking)
    messages = [record.getMessage() for record in caplog.records]
    assert [text.split(" ", 2)[2] for text in messages] == [f"lost its GPU ({GPU_ERROR}); it is replaced"] * len(
        breaking
    )


def test_a_job_that_breaks_every_gpu_is_one_failure_and_harms_no_other(run_jobs):
    def behave(worker, job):
        if job == 3 or worker.broken:
            raise Broken
        return job

    outcomes, cluster, setbacks = run_jobs(behave, range(30))
    failures = list_failures(outcomes)
    assert list(failures) == [3]
    assert (failures[3].kind, failures[3].attempts) == ("worker", 3)
    assert failures[3].error == f"its worker lost its GPU: {GPU_ERROR}"
    assert setbacks == {"gpu": 3}
    assert set(cluster.calls.values()) == {1, 3}


@pytest.mark.parametrize("n_workers", [1, 2, 5])
def test_a_run_whose_jobs_all_lose_their_gpu_is_stopped(run_jobs, n_workers):
    calls = []

    def behave(worker, job):
        calls.append(job)
        raise Broken

    with pytest.raises(RunStopped, match=r"^workers lost their GPU 12 times, and no job has ended .*illegal memory"):
        run_jobs(behave, range(300), [("a", str(gpu)) for gpu in range(n_workers)])
    assert len(calls) <= 12 + n_workers


def test_a_stack_that_breaks_every_gpu_is_split_and_only_the_faulty_part_fails(run_jobs):
    def behave(worker, job):
        if job.faulty in job.models or worker.broken:
            raise Broken
        return job.models

    jobs = [Stack((0, 1, 2), faulty=1), *(Stack((k,)) for k in range(10, 30))]
    outcomes, _, _ = run_jobs(behave, jobs)
    assert list(list_failures(outcomes)) == [Stack((1,), faulty=1)]
    assert len(outcomes) == 23


def test_a_gpu_that_is_broken_for_good_costs_no_job_and_is_left_alone_at_last(run_jobs, caplog):
    """Its workers fail at once, and so draw far more jobs than the others."""

    def behave(worker, job):
        if worker.place == ("a", "0"):
            raise Broken
        return job

    outcomes, cluster, setbacks = run_jobs(behave, range(100))
    assert not list_failures(outcomes)
    # so many workers start until four jobs have succeeded on the other GPU, of which three were lost on this one
    assert setbacks["gpu"] == pytest.approx(4 * JOB_S / START_S, abs=3)
    assert len([r for r in caplog.records if "nothing runs there until the run ends" in r.getMessage()]) == 1
    assert set(cluster.calls.values()) == {1, 2}  # no job comes to that GPU again


def test_a_job_that_a_broken_gpu_lost_waits_for_another_one(run_jobs):
    """Two jobs on two GPUs, of which one is broken: three attempts there would take far less than one job elsewhere."""

    def behave(worker, job):
        if worker.place == ("a", "0"):
            raise Broken
        return job

    outcomes, cluster, _ = run_jobs(behave, range(2))
    assert outcomes == {0: 0, 1: 1}
    assert cluster.calls.total() == 3


def test_a_worker_on_which_every_job_raises_is_replaced_after_three(run_jobs, caplog):
    def behave(worker, job):
        if worker.number == 0:
            raise ValueError("no space left in /scratch")
        return job

    outcomes, cluster, setbacks = run_jobs(behave, range(30))
    assert len(list_failures(outcomes)) == 2  # the third was tried again
    assert len(cluster.workers) == 3
    assert setbacks == {"exception": 1}
    assert [record.getMessage() for record in caplog.records] == [
        "worker 0 raised in its last 3 jobs, the last of which another worker has done "
        "(ValueError: no space left in /scratch); it is replaced"
    ]


@pytest.mark.parametrize("n_workers", [1, 2, 5])
def test_where_all_jobs_raise_nothing_is_replaced(run_jobs, n_workers):
    def behave(worker, job):
        raise ValueError("wrong labels")

    outcomes, cluster, _ = run_jobs(behave, range(100), [("a", str(k)) for k in range(n_workers)])
    assert len(list_failures(outcomes)) == 100
    assert len(cluster.workers) == n_workers
    assert cluster.calls.total() <= 100 + n_workers
    assert cluster.now < 30


@pytest.mark.parametrize("n_workers", [1, 2, 5])
def test_faulty_jobs_side_by_side_cost_no_worker(run_jobs, n_workers):
    """All of them come to the one that is free, while the others take long with sound ones."""

    def behave(worker, job):
        if 5 <= job < 25:
            raise ValueError("wrong labels")
        return job

    outcomes, cluster, _ = run_jobs(behave, range(50), [("a", str(k)) for k in range(n_workers)])
    assert sorted(list_failures(outcomes)) == list(range(5, 25))
    assert len(cluster.workers) == n_workers
    assert cluster.now <= START_S + JOB_S * (math.ceil(30 / n_workers) + 2)


def test_a_rare_faulty_job_costs_nothing(run_jobs):
    def behave(worker, job):
        if job % 10 == 7:
            raise ValueError("wrong labels")
        return job

    outcomes, cluster, setbacks = run_jobs(behave, range(200))
    assert len(list_failures(outcomes)) == 20
    assert (len(cluster.workers), setbacks, set(cluster.calls.values())) == (2, {}, {1})


def test_a_single_worker_is_never_replaced_for_exceptions(run_jobs):
    def behave(worker, job):
        if job > 3:
            raise ValueError("no space left")
        return job

    outcomes, cluster, setbacks = run_jobs(behave, range(20), [("a", "0")])
    assert len(list_failures(outcomes)) == 16
    assert (len(cluster.workers), setbacks) == (1, {})


def test_a_place_where_every_job_raises_gets_no_more_of_them(run_jobs, caplog):
    def behave(worker, job):
        if worker.place == ("a", "0"):
            raise ValueError("no space left")
        return job

    outcomes, cluster, _ = run_jobs(behave, range(100))
    assert len(list_failures(outcomes)) == 3 * 2  # three workers there, of whose three jobs each one was saved
    assert len(cluster.workers) == 2 + 2
    assert "nothing runs there until the run ends" in caplog.records[-1].getMessage()


def test_exceptions_at_random_replace_a_bounded_number_of_workers(run_jobs):
    rng = random.Random(0)

    def behave(worker, job):
        if rng.random() < 0.5:
            raise ValueError("the licence server is busy")
        return job

    outcomes, cluster, _ = run_jobs(behave, range(3000), [("a", str(k)) for k in range(4)])
    assert 1200 < len(list_failures(outcomes)) < 1600
    assert 4 + 5 <= len(cluster.workers) <= 4 + 10 + 3  # some that never had a success


def test_one_node_of_many_costs_its_workers_three_jobs_each(run_jobs):
    places = [(f"node{k // 8}", str(k % 8)) for k in range(200)]

    def behave(worker, job):
        if worker.place[0] == "node3":
            raise ValueError("libcuda.so.1: cannot open shared object file")
        return job

    outcomes, cluster, _ = run_jobs(behave, range(2000), places)
    # eight GPUs, each with three workers of whose three jobs one was saved
    assert len(list_failures(outcomes)) == 8 * 3 * 2
    assert cluster.now < 1.2 * (START_S + JOB_S * 2000 / 192)


def test_a_worker_goes_on_if_the_one_that_tries_its_job_dies(run_jobs):
    """Three jobs raise; the worker that tries the third dies of it, which shows nothing of the first one."""
    from ray.exceptions import RayActorError

    calls = Counter()

    def behave(worker, job):
        calls[job] += 1
        if job == 3 and calls[job] == 2:
            raise RayActorError
        if job in {0, 2, 3}:
            raise ValueError("wrong labels")
        return job

    outcomes, _, setbacks = run_jobs(behave, range(12), job_s=lambda worker, job: JOB_S if job == 1 else 1.0)
    assert sorted(list_failures(outcomes)) == [0, 2, 3]
    assert (setbacks, outcomes[3].attempts) == ({"exception": 1, "worker": 1}, 3)


def test_a_worker_goes_on_if_no_other_is_left_to_try_its_job(run_jobs):
    """The other one's long job raises, and from then on nobody can tell; no job is left waiting."""

    def behave(worker, job):
        raise ValueError("wrong labels")

    outcomes, cluster, setbacks = run_jobs(behave, range(10), fail_s=lambda worker, job: JOB_S if job == 1 else FAIL_S)
    assert len(list_failures(outcomes)) == 10
    assert (len(cluster.workers), setbacks) == (2, {"exception": 1})


def test_a_worker_goes_on_if_others_die_of_its_job_until_that_is_given_up(run_jobs):
    from ray.exceptions import RayActorError

    calls = Counter()

    def behave(worker, job):
        calls[job] += 1
        if job == 3 and calls[job] > 1:
            raise RayActorError
        if job in {0, 2, 3}:
            raise ValueError("wrong labels")
        return job

    outcomes, cluster, _ = run_jobs(behave, range(24))
    assert (outcomes[3].kind, outcomes[3].attempts) == ("worker", 3)
    assert cluster.now < JOB_S * (20 / 2 + 2)  # both workers had their part of the others


def test_a_failing_worker_waits_for_one_that_is_starting(run_jobs):
    def behave(worker, job):
        if worker.number == 0:
            raise ValueError("no space left")
        return job

    outcomes, _, _ = run_jobs(behave, range(30), start_s=lambda worker: 30.0 if worker.number == 1 else START_S)
    assert len(list_failures(outcomes)) == 2


def test_a_worker_that_fails_itself_does_not_judge_another_one(run_jobs):
    """Two of three fail at once, while the third one is in a long job."""

    def behave(worker, job):
        if worker.number < 2:
            raise ValueError("no space left")
        return job

    outcomes, cluster, _ = run_jobs(behave, range(30), [("a", "0"), ("a", "1"), ("a", "2")])
    assert len(list_failures(outcomes)) == 2 * 2
    assert len(cluster.workers) == 3 + 2


def test_a_worker_that_has_begun_to_fail_does_not_judge_another_one(run_jobs):
    """Two of three do a job each and nothing after it, one of them more slowly."""
    done = Counter()

    def behave(worker, job):
        if worker.number < 2 and done[worker.number]:
            raise ValueError("no space left")
        done[worker.number] += 1
        return job

    places = [("a", "0"), ("a", "1"), ("a", "2")]
    outcomes, cluster, _ = run_jobs(behave, range(60), places, fail_s=lambda worker, job: 1.0 + worker.number)
    assert len(list_failures(outcomes)) == 2 * 2
    assert len(cluster.workers) == 3 + 2


def test_most_of_a_cluster_may_be_unable_to_work(run_jobs):
    """Workers that never did a job are replaced beyond the bound, and their places left alone."""
    places = [("bad", str(k)) for k in range(6)] + [("good", "0"), ("good", "1")]

    def behave(worker, job):
        if worker.place[0] == "bad":
            raise ValueError("no space left")
        return job

    outcomes, cluster, _ = run_jobs(behave, range(200), places)
    assert len(list_failures(outcomes)) == 6 * 3 * 2
    assert len(cluster.workers) == 8 + 6 * 2
