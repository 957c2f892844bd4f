"""When a job is killed for its time and when the user is told, by a clock of the test's own."""

import math
from collections import Counter
from types import SimpleNamespace

import pytest

MINUTE = 60.0


class Cluster:
    """Stands for Ray and for time: a job is a number of minutes, and each wait is a minute."""

    def __init__(self):
        self.now, self.due, self.killed = 0.0, {}, []
        self.home_lives = True
        self.ends_with = {}  # number of a call -> what it raises or returns; the rest are done

    def monotonic(self):
        return self.now

    def wait(self, refs, num_returns=1, timeout=0):
        self.now += MINUTE if timeout else 0
        return [ref for ref in refs if self.due[ref] <= self.now], []

    def get(self, ref):
        kind, number = ref
        if kind == "start":
            return "node"
        if number in self.ends_with:
            end = self.ends_with.pop(number)
            if isinstance(end, Exception):
                raise end
            return end
        return "done"

    def cluster_resources(self):
        return {"CPU": 4.0, "memory": 8 * 2**30}

    def nodes(self):
        return [{"NodeID": "here", "Alive": self.home_lives}, {"NodeID": "there", "Alive": True}]

    def available_resources(self):
        return {"memory": 2 * 2**30}

    def kill(self, actor, no_restart):
        self.killed.append(actor)

    def hire(self):
        actor = SimpleNamespace(now=self.now)
        actor.start = SimpleNamespace(remote=lambda: self.begin("start", 0))
        actor.run_job = SimpleNamespace(remote=lambda minutes: self.begin("job", minutes))
        return actor

    def begin(self, kind, minutes):
        ref = (kind, len(self.due))
        self.due[ref] = self.now + minutes * MINUTE
        return ref


@pytest.fixture
def ray_run():
    from cluster import ray_scheduler

    return ray_scheduler


@pytest.fixture
def cluster(monkeypatch, ray_run):
    from cluster import ray_scheduler

    made = Cluster()
    monkeypatch.setattr(ray_run, "time", made)
    monkeypatch.setattr(ray_run, "ray", made)
    monkeypatch.setattr(ray_scheduler, "ray", made)
    return made


def outcomes_of(cluster, jobs, workers, limit_min):
    """Outcomes until all are there or the time is up, and the run's setbacks."""
    from cluster.ray_scheduler import JobScheduler, SchedulerConfig

    setbacks = Counter()
    terms = {
        "hire": cluster.hire,
        "wanted": None,
        "fit": lambda: workers,
        "deadline_s": 10 * MINUTE,
        "wait_s": math.inf,
    }
    run = JobScheduler(SchedulerConfig(**terms, setbacks=setbacks), jobs)
    outcomes = []
    while run.open() and cluster.now < limit_min * MINUTE:
        run.scale_workers()
        run.assign_jobs()
        outcomes += run.poll()
    return outcomes, setbacks


def test_first_jobs_that_take_hours_are_not_killed_and_the_user_is_told_ever_more_rarely(cluster, caplog):
    outcomes, setbacks = outcomes_of(cluster, [180, 180], workers=2, limit_min=1000)
    assert outcomes == [(180, "done"), (180, "done")]
    assert (setbacks, cluster.killed) == ({}, [])
    ages = [record.getMessage().split("one for ")[1].split(";")[0] for record in caplog.records]
    assert ages == ["11 min", "23 min", "47 min", "95 min"]
    said = caplog.records[0].getMessage()
    assert said.startswith("jobs running: 2, one for 11 min; finished: 0.")
    assert "press Ctrl-C: what is finished is kept" in said


def test_jobs_that_end_in_time_are_not_worth_a_word(cluster, caplog):
    assert outcomes_of(cluster, [9] * 5, workers=2, limit_min=100)[0] == [(9, "done")] * 5
    assert caplog.records == []


def test_a_first_job_that_hangs_is_killed_once_three_others_say_how_long_one_takes(cluster, ray_run, monkeypatch):
    """Median 2 minutes: killed after 40, which is more than 10."""
    monkeypatch.setattr(ray_run, "MAX_ATTEMPTS", 1)
    outcomes, setbacks = outcomes_of(cluster, [math.inf, 2, 2, 2], workers=2, limit_min=100)
    failure = outcomes.pop()[1]
    assert outcomes == [(2, "done")] * 3
    assert (failure.kind, failure.error, setbacks) == ("deadline", "not done after 2460 s, killed", {"deadline": 1})


def test_no_job_is_killed_in_the_first_ten_minutes_however_short_the_others_were(cluster):
    outcomes, setbacks = outcomes_of(cluster, [10, 0, 0, 0, 0], workers=2, limit_min=100)
    assert sorted(outcomes) == [(0, "done")] * 4 + [(10, "done")]
    assert setbacks == {}


def test_all_workers_hanging_from_the_start_stay_and_are_told_of(cluster, caplog):
    outcomes, setbacks = outcomes_of(cluster, [math.inf] * 4, workers=2, limit_min=300)
    assert (outcomes, setbacks, cluster.killed) == ([], {}, [])
    assert len(caplog.records) == 5


@pytest.mark.parametrize(("keeps", "kept"), [(True, 2), (False, 1)])
def test_a_worker_without_a_job_is_dismissed_unless_the_next_run_is_to_have_it(cluster, keeps, kept):
    from cluster.ray_scheduler import JobScheduler, SchedulerConfig

    terms = {"wanted": None, "fit": lambda: 2, "deadline_s": 10 * MINUTE, "wait_s": math.inf, "setbacks": Counter()}
    run = JobScheduler(SchedulerConfig(hire=cluster.hire, **terms, keeps=keeps), [9, 0])
    while run.open():
        run.scale_workers()
        run.assign_jobs()
        run.poll()
    assert len(cluster.killed) == 2 - kept
    assert len(run.release_idle()) == kept


def made(cluster, fit, jobs, **terms):
    from cluster.ray_scheduler import JobScheduler, SchedulerConfig

    usual = {"wanted": None, "deadline_s": 1000 * MINUTE, "wait_s": math.inf, "setbacks": Counter()}
    return JobScheduler(SchedulerConfig(hire=cluster.hire, fit=fit, **usual | terms), jobs)


def turn(run, cluster):
    """One round of a pool's loop; most jobs that ran at once in it."""
    cluster.now += 2  # more than a tick: the cluster is looked at again
    run.scale_workers()
    run.assign_jobs()
    busy = run.busy()
    run.poll()
    return busy


def begin(run, cluster, rounds=2):
    """The first rounds only start the workers."""
    return [turn(run, cluster) for _ in range(rounds)][-1]


def test_workers_follow_the_nodes_up_and_down(cluster):
    room = 2
    run = made(cluster, lambda: room, [1] * 100)
    assert begin(run, cluster) == 2
    room = 5
    assert begin(run, cluster) == 5
    room = 1
    assert begin(run, cluster, rounds=3) == 1


def test_a_host_out_of_memory_costs_one_worker_and_the_share_grows_with_the_cluster(cluster):
    from ray.exceptions import OutOfMemoryError

    room = 4
    run = made(cluster, lambda: room, [3] * 1000)
    begin(run, cluster)
    cluster.ends_with[max(number for kind, number in cluster.due if kind == "job")] = OutOfMemoryError("low on memory")
    begin(run, cluster, rounds=6)
    assert [turn(run, cluster) for _ in range(3)] == [3, 3, 3]
    assert run.terms.setbacks == {"memory": 1}
    room = 8
    assert begin(run, cluster, rounds=6) == 6


def test_workers_that_are_wanted_and_do_not_fit_yet_do_not_deepen_the_cut(cluster):
    """One of two workers ran out of memory, 100 are wanted: one works on, and half of what a new node brings."""
    from ray.exceptions import OutOfMemoryError

    room = 2
    run = made(cluster, lambda: room, [3] * 1000, wanted=100)
    assert begin(run, cluster, rounds=6) == 2
    cluster.ends_with[max(number for kind, number in cluster.due if kind == "job")] = OutOfMemoryError("low on memory")
    begin(run, cluster, rounds=6)
    assert [turn(run, cluster) for _ in range(3)] == [1, 1, 1]
    assert len(run._idle) + len(run._waited) == 50  # asked for still, so that nodes come
    room = 8
    assert begin(run, cluster, rounds=6) == 4


@pytest.mark.parametrize(("own_gpu", "then", "counted"), [(True, 4, 1), (False, 2, 0)])
def test_a_gpu_of_its_own_leaves_nobody_to_blame_but_the_job(cluster, own_gpu, then, counted):
    from cluster.ray_worker import RemoteError

    run = made(cluster, lambda: 4, [3] * 1000, own_gpu=own_gpu)
    begin(run, cluster)
    full = RemoteError("OutOfMemoryError: CUDA out of memory", "", gpu_memory=True, stop=None)
    cluster.ends_with[max(number for kind, number in cluster.due if kind == "job")] = full
    begin(run, cluster, rounds=6)
    assert [turn(run, cluster) for _ in range(3)] == [then] * 3
    assert run.terms.setbacks == {"memory": 1}
    assert max(task.attempts for task in run._todo) == counted


def test_a_full_cluster_is_told_of_and_given_up(cluster, caplog):
    cluster.hire = lambda: SimpleNamespace(start=SimpleNamespace(remote=lambda: cluster.begin("start", math.inf)))
    run = made(cluster, lambda: 0, [1], wait_s=5 * MINUTE)
    end = (
        "no worker could be placed for 30. s: the cluster has 4 CPUs.*; free are 0 CPUs, 0 GPUs, 2 GiB of memory; wait"
    )
    with pytest.raises(TimeoutError, match=end):
        begin(run, cluster, rounds=100)
    assert [record.getMessage()[:34] for record in caplog.records] == ["no worker is ready after 64 s: the"]


def test_a_run_whose_own_node_is_lost_ends_at_once(cluster):
    from cluster.pool import ClusterLost

    cluster.hire = lambda: SimpleNamespace(start=SimpleNamespace(remote=lambda: cluster.begin("start", math.inf)))
    run = made(cluster, lambda: 0, [1], home="here", wait_s=300)
    begin(run, cluster)
    cluster.home_lives = False
    with pytest.raises(ClusterLost, match="runs on was lost; what is finished is kept"):
        begin(run, cluster)
    assert cluster.now < 300


def test_workers_that_cannot_start_are_tried_for_some_seconds_however_many_they_are(cluster):
    from ray.exceptions import WorkerCrashedError

    from cluster.pool import ClusterLost

    run = made(cluster, lambda: 64, [1] * 100)

    def get(ref):
        raise WorkerCrashedError("it could not start")

    cluster.get = get
    cluster.wait = lambda refs, num_returns=1, timeout=0: (refs, [])
    began = cluster.now
    with pytest.raises(ClusterLost, match="workers cannot start: "):
        begin(run, cluster, rounds=100)
    assert cluster.now - began == 2 * 10  # ten moments, each a turn of two seconds
    assert len(cluster.killed) > 64 * 9
