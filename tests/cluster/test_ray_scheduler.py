"""When a job is killed for its time and when a warning is logged, by a clock of the test's own."""

import math
from collections import Counter
from types import SimpleNamespace

import pytest

MINUTE = 60.0


class FakeCluster:
    """Replaces Ray and the clock: a job is a number of minutes, and each wait is a minute."""

    def __init__(self):
        self.now, self.due, self.killed = 0.0, {}, []
        self.driver_node_alive = True
        self.call_results = {}  # number of a call -> what it raises or returns; other calls return "done"

    def monotonic(self):
        return self.now

    def wait(self, refs, num_returns=1, timeout=0):
        self.now += MINUTE if timeout else 0
        return [ref for ref in refs if self.due[ref] <= self.now], []

    def get(self, ref):
        kind, number = ref
        if kind == "start":
            return SimpleNamespace(node="node", gpus=(), label="a worker")
        if number in self.call_results:
            end = self.call_results.pop(number)
            if isinstance(end, Exception):
                raise end
            return end
        return "done"

    def cluster_resources(self):
        return {"CPU": 4.0, "memory": 8 * 2**30}

    def nodes(self):
        return [{"NodeID": "here", "Alive": self.driver_node_alive}, {"NodeID": "there", "Alive": True}]

    def available_resources(self):
        return {"memory": 2 * 2**30}

    def kill(self, actor, no_restart):
        self.killed.append(actor)

    def start_worker(self):
        actor = SimpleNamespace(now=self.now)
        actor.start = SimpleNamespace(remote=lambda: self.call("start", 0))
        actor.run_job = SimpleNamespace(remote=lambda minutes: self.call("job", minutes))
        return actor

    def call(self, kind, minutes):
        ref = (kind, len(self.due))
        self.due[ref] = self.now + minutes * MINUTE
        return ref


@pytest.fixture
def ray_scheduler():
    from cluster import ray_scheduler

    return ray_scheduler


@pytest.fixture
def cluster(monkeypatch, ray_scheduler):
    from cluster import ray_nodes

    fake = FakeCluster()
    monkeypatch.setattr(ray_scheduler, "time", fake)
    for module in (ray_scheduler, ray_nodes):
        monkeypatch.setattr(module, "ray", fake)
    return fake


def run_until(cluster, jobs, workers, limit_min):
    """Run until all outcomes are there or the time is up; return them and the run's setbacks."""
    from cluster.ray_scheduler import JobScheduler, SchedulerConfig

    setbacks = Counter()
    options = {
        "start_worker": cluster.start_worker,
        "workers": None,
        "count_fitting": lambda: workers,
        "deadline_s": 10 * MINUTE,
        "wait_s": math.inf,
    }
    run = JobScheduler(SchedulerConfig(**options, setbacks=setbacks), jobs)
    outcomes = []
    while run.is_open() and cluster.now < limit_min * MINUTE:
        run.scale_workers()
        run.assign_jobs()
        outcomes += run.poll()
    return outcomes, setbacks


def test_first_jobs_that_take_hours_are_not_killed_and_warnings_become_rarer(cluster, caplog):
    outcomes, setbacks = run_until(cluster, [180, 180], workers=2, limit_min=1000)
    assert outcomes == [(180, "done"), (180, "done")]
    assert (setbacks, cluster.killed) == ({}, [])
    ages = [record.getMessage().split("one for ")[1].split(";")[0] for record in caplog.records]
    assert ages == ["11 min", "23 min", "47 min", "95 min"]
    message = caplog.records[0].getMessage()
    assert message.startswith("jobs running: 2, one for 11 min; finished: 0.")
    assert "press Ctrl-C: what is finished is kept" in message


def test_jobs_that_end_in_time_cause_no_warning(cluster, caplog):
    assert run_until(cluster, [9] * 5, workers=2, limit_min=100)[0] == [(9, "done")] * 5
    assert caplog.records == []


def test_a_first_job_that_hangs_is_killed_once_three_others_say_how_long_one_takes(cluster, ray_scheduler, monkeypatch):
    """Median 2 minutes: killed after 40, which is more than 10."""
    monkeypatch.setattr(ray_scheduler, "MAX_ATTEMPTS", 1)
    outcomes, setbacks = run_until(cluster, [math.inf, 2, 2, 2], workers=2, limit_min=100)
    failure = outcomes.pop()[1]
    assert outcomes == [(2, "done")] * 3
    assert (failure.kind, failure.error, setbacks) == ("deadline", "not done after 2460 s, killed", {"deadline": 1})


def test_no_job_is_killed_in_the_first_ten_minutes_however_short_the_others_were(cluster):
    outcomes, setbacks = run_until(cluster, [10, 0, 0, 0, 0], workers=2, limit_min=100)
    assert sorted(outcomes) == [(0, "done")] * 4 + [(10, "done")]
    assert setbacks == {}


def test_all_workers_hanging_from_the_start_stay_and_are_warned_of(cluster, caplog):
    outcomes, setbacks = run_until(cluster, [math.inf] * 4, workers=2, limit_min=300)
    assert (outcomes, setbacks, cluster.killed) == ([], {}, [])
    assert len(caplog.records) == 5


@pytest.mark.parametrize(("keep_idle", "kept"), [(True, 2), (False, 1)])
def test_a_worker_without_a_job_is_killed_unless_the_next_run_uses_it(cluster, keep_idle, kept):
    from cluster.ray_scheduler import JobScheduler, SchedulerConfig

    options = {
        "workers": None,
        "count_fitting": lambda: 2,
        "deadline_s": 10 * MINUTE,
        "wait_s": math.inf,
        "setbacks": Counter(),
    }
    run = JobScheduler(SchedulerConfig(start_worker=cluster.start_worker, **options, keep_idle=keep_idle), [9, 0])
    while run.is_open():
        run.scale_workers()
        run.assign_jobs()
        run.poll()
    assert len(cluster.killed) == 2 - kept
    assert len(run.release_idle()) == kept


def make_scheduler(cluster, count_fitting, jobs, **options):
    from cluster.ray_scheduler import JobScheduler, SchedulerConfig

    defaults = {"workers": None, "deadline_s": 1000 * MINUTE, "wait_s": math.inf, "setbacks": Counter()}
    return JobScheduler(
        SchedulerConfig(start_worker=cluster.start_worker, count_fitting=count_fitting, **defaults | options), jobs
    )


def run_round(run, cluster):
    """Run one round of a pool's loop; return how many jobs ran at once."""
    cluster.now += 2  # more than POLL_S: the cluster is looked at again
    run.scale_workers()
    run.assign_jobs()
    busy = run.count_busy()
    run.poll()
    return busy


def list_running(run):
    """The numbers of the calls of jobs in flight."""
    return [number for (_, number), slot in run._waiting.items() if slot.task is not None]


def run_rounds(run, cluster, rounds=2):
    """Run some rounds; the first ones only start the workers."""
    return [run_round(run, cluster) for _ in range(rounds)][-1]


def test_workers_follow_the_nodes_up_and_down(cluster):
    room = 2
    run = make_scheduler(cluster, lambda: room, [1] * 100)
    assert run_rounds(run, cluster) == 2
    room = 5
    assert run_rounds(run, cluster) == 5
    room = 1
    assert run_rounds(run, cluster, rounds=3) == 1


@pytest.mark.parametrize("which", [min, max])  # of those that began together
def test_a_host_out_of_memory_costs_one_worker_and_the_share_grows_with_the_cluster(cluster, which):
    from ray.exceptions import OutOfMemoryError

    room = 4
    run = make_scheduler(cluster, lambda: room, [3] * 1000)
    run_rounds(run, cluster)
    cluster.call_results[which(list_running(run))] = OutOfMemoryError("low on memory")
    run_rounds(run, cluster, rounds=6)
    assert [run_round(run, cluster) for _ in range(3)] == [3, 3, 3]
    assert run.config.setbacks == {"memory": 1}
    room = 8
    assert run_rounds(run, cluster, rounds=6) == 6


@pytest.mark.parametrize("which", [min, max])  # of those that began together
def test_workers_that_do_not_fit_yet_do_not_deepen_the_cut(cluster, which):
    """One of two workers ran out of memory, 100 are requested: one goes on, and half of what a new node adds."""
    from ray.exceptions import OutOfMemoryError

    room = 2
    run = make_scheduler(cluster, lambda: room, [3] * 1000, workers=100)
    assert run_rounds(run, cluster, rounds=6) == 2
    cluster.call_results[which(list_running(run))] = OutOfMemoryError("low on memory")
    run_rounds(run, cluster, rounds=6)
    assert [run_round(run, cluster) for _ in range(3)] == [1, 1, 1]
    assert len(run._idle) + len(run._waiting) == 50  # still requested, so that nodes are added
    room = 8
    assert run_rounds(run, cluster, rounds=6) == 4


@pytest.mark.parametrize("which", [min, max])  # of those that began together
@pytest.mark.parametrize(("whole_gpus", "then", "counted"), [(True, 4, 1), (False, 2, 0)])
def test_a_job_with_a_gpu_of_its_own_counts_its_attempt(cluster, whole_gpus, then, counted, which):
    from cluster.ray_worker import RemoteError

    run = make_scheduler(cluster, lambda: 4, [3] * 1000, whole_gpus=whole_gpus)
    run_rounds(run, cluster)
    full = RemoteError("OutOfMemoryError: CUDA out of memory", "", gpu_memory=True, stop=None)
    cluster.call_results[which(list_running(run))] = full
    run_rounds(run, cluster, rounds=6)
    assert [run_round(run, cluster) for _ in range(3)] == [then] * 3
    assert run.config.setbacks == {"memory": 1}
    assert max(task.attempts for task in run._queue) == counted


def test_a_job_counts_as_alone_only_if_no_other_ran_beside_it_at_any_time(cluster):
    from cluster.ray_worker import RemoteError

    full = RemoteError("OutOfMemoryError: CUDA out of memory", "", gpu_memory=True, stop=None)
    room = 1
    run = make_scheduler(cluster, lambda: room, [5, 1])
    run_rounds(run, cluster)  # the first job runs alone
    room = 2
    run_rounds(run, cluster, rounds=3)  # the second one has come and gone
    assert (run.count_busy(), len(run._queue)) == (1, 0)
    cluster.call_results[min(list_running(run))] = full
    run_rounds(run, cluster)
    assert [task.attempts for task in run._queue] + [
        slot.task.attempts for slot in run._waiting.values() if slot.task
    ] == [0]
    assert run_rounds(run, cluster, rounds=1) == 1


def test_a_job_whose_worker_learnt_something_is_not_counted_until_that_is_old(cluster):
    from cluster.ray_worker import RemoteError

    told = RemoteError(
        "GraphRecordingError: it failed", "", gpu_memory=False, stop=None, worker_environment={"KNOWN": "1"}
    )
    run = make_scheduler(cluster, lambda: 1, [3])
    outcomes, attempts = [], []
    while run.is_open() and cluster.now < 100 * MINUTE:
        cluster.now += 2
        run.scale_workers()
        run.assign_jobs()
        attempts += [slot.task.attempts for slot in run._waiting.values() if slot.task]
        # every job ends in this way
        cluster.call_results |= {number: told for kind, number in cluster.due if kind == "job"}
        outcomes += run.poll()
    [(job, failure)] = outcomes
    assert (job, failure.kind, failure.attempts, failure.error) == (3, "worker", 3, told.error)
    assert sorted(set(attempts)) == [0, 1, 2]
    assert len(cluster.killed) == 4
    assert run.config.setbacks == {"worker": 4}
    assert run.config.environment == {"KNOWN": "1"}


def test_a_full_cluster_is_warned_of_and_given_up(cluster, caplog):
    cluster.start_worker = lambda: SimpleNamespace(
        start=SimpleNamespace(remote=lambda: cluster.call("start", math.inf))
    )
    run = make_scheduler(cluster, lambda: 0, [1], wait_s=5 * MINUTE)
    end = (
        "no worker could be placed for 30. s: the cluster has 4 CPUs.*; free are 0 CPUs, 0 GPUs, 2 GiB of memory; wait"
    )
    with pytest.raises(TimeoutError, match=end):
        run_rounds(run, cluster, rounds=100)
    assert [record.getMessage()[:34] for record in caplog.records] == ["no worker is ready after 64 s: the"]


def test_a_run_whose_own_node_is_lost_ends_at_once(cluster):
    from cluster.pool import ClusterLost

    cluster.start_worker = lambda: SimpleNamespace(
        start=SimpleNamespace(remote=lambda: cluster.call("start", math.inf))
    )
    run = make_scheduler(cluster, lambda: 0, [1], driver_node="here", wait_s=300)
    run_rounds(run, cluster)
    cluster.driver_node_alive = False
    with pytest.raises(ClusterLost, match="runs on was lost; what is finished is kept"):
        run_rounds(run, cluster)
    assert cluster.now < 300


def test_workers_that_cannot_start_are_tried_for_some_seconds_however_many_they_are(cluster):
    from ray.exceptions import WorkerCrashedError

    from cluster.pool import ClusterLost

    run = make_scheduler(cluster, lambda: 64, [1] * 100)

    def get(ref):
        raise WorkerCrashedError("it could not start")

    cluster.get = get
    cluster.wait = lambda refs, num_returns=1, timeout=0: (refs, [])
    start = cluster.now
    with pytest.raises(ClusterLost, match="workers cannot start: "):
        run_rounds(run, cluster, rounds=100)
    assert cluster.now - start == 2 * 10  # ten times, each a round of two seconds
    assert len(cluster.killed) > 64 * 9
