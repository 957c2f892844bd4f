"""Which pool a command gets, and the device of its workers."""

import math
import os
from contextlib import nullcontext
from dataclasses import replace

import pytest

from cluster import launch
from cluster.auto_pool import AutoPool, LateMetrics
from cluster.launch import (
    ForecastPool,
    PoolOptions,
    choose_pool,
    create_metrics,
    estimate_worker_count,
    open_pool,
    open_pool_and_search,
    resolve_worker_device,
    validate_pool_options,
)
from cluster.pool import ClusterLost, SerialPool
from cluster.search_space import Search
from tests.fixtures.jobs import double, environment
from tests.fixtures.objectives import sleep_briefly


def has_gpu(requested):
    """A machine with a GPU, in place of memscore.training.numerics.resolve_device."""
    return "cpu" if requested == "cpu" else "cuda"


def asks_nothing(requested):
    raise AssertionError("the device of this process says nothing of a cluster's")


@pytest.fixture(autouse=True)
def outside_of_clusters(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)


def ask_nobody(limit_s):
    raise AssertionError("no forecast is needed")


@pytest.mark.parametrize(
    ("cpus", "limit", "seconds", "line"),
    [
        (4, 24.0, 3.2, "about 4 s on one core: in this process; --pool ray for workers\n"),
        (4, 24.0, 24.0, "24 s or more on one core: in 4 Ray workers; --pool serial for this process\n"),
        (2, 60.0, 30.0, "about 30 s on one core: in this process; --pool ray for workers\n"),
        (2, 60.0, 61.0, "60 s or more on one core: in 2 Ray workers; --pool serial for this process\n"),
        (2, 60.0, math.nan, "no forecast: in 2 Ray workers; --pool serial for this process\n"),
    ],
)
def test_the_forecast_and_the_workers_choose_the_pool_and_a_line_says_so(
    capsys, monkeypatch, cpus, limit, seconds, line
):
    monkeypatch.setattr(os, "cpu_count", lambda: cpus)
    limits = []
    chosen = choose_pool(PoolOptions(device="cpu"), lambda limit_s: limits.append(limit_s) or seconds)
    # Ray is taken if it is half as fast again, counting 10 s of its start
    assert limits == [pytest.approx(limit)]
    assert limit == pytest.approx(1.5 * (10 + limit / cpus))
    in_ray = "Ray workers;" in line
    assert chosen == (ForecastPool(pool="ray", device="cpu") if in_ray else PoolOptions(device="cpu"))
    assert capsys.readouterr().err == line


def test_one_cpu_has_nothing_to_gain_from_workers(capsys, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert choose_pool(PoolOptions(), ask_nobody) == PoolOptions()
    assert capsys.readouterr().err == "one CPU: in this process; --pool ray for a worker\n"


def test_without_ray_only_a_run_whose_workers_nobody_requested_goes_on_here(capsys, monkeypatch):
    def fail(**options):
        raise ClusterLost("Ray could not start on this machine")

    monkeypatch.setattr(launch, "connect", fail)
    with open_pool(ForecastPool(pool="ray"), has_gpu) as session:
        assert isinstance(session.pool, SerialPool)
        assert session.device == "cuda"
    line = "no workers (ClusterLost: Ray could not start on this machine); going on in this process\n"
    assert capsys.readouterr().err == line
    with pytest.raises(ClusterLost, match="could not start"), open_pool(PoolOptions(pool="ray"), has_gpu):
        pass


def test_an_error_of_the_run_itself_is_not_taken_for_missing_workers(monkeypatch, capsys):
    monkeypatch.setattr(launch, "open_ray_pool", lambda options: nullcontext("workers"))

    def run():
        with open_pool(ForecastPool(pool="ray"), has_gpu) as session:
            raise ClusterLost(f"a node is gone: {session}")

    with pytest.raises(ClusterLost, match="gone: workers"):
        run()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "options",
    [{"workers": 1}, {"address": "here:1"}, {"address": "local"}, {"dashboard": True}, {"gpus_per_worker": 0.5}],
)
def test_an_option_of_ray_s_chooses_ray_without_a_forecast(options, capsys):
    assert choose_pool(PoolOptions(**options), ask_nobody) == PoolOptions(pool="ray", **options)
    assert capsys.readouterr().err == ""


def test_a_cluster_in_the_environment_and_a_submitted_job_choose_ray(monkeypatch, capsys):
    monkeypatch.setenv("RAY_ADDRESS", "there:6379")
    assert choose_pool(PoolOptions(), ask_nobody).pool == "ray"
    assert "RAY_ADDRESS" in capsys.readouterr().err
    monkeypatch.delenv("RAY_ADDRESS")
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert choose_pool(PoolOptions(), ask_nobody).pool == "ray"


@pytest.mark.parametrize("pool", ["serial", "ray"])
def test_a_pool_that_is_named_is_taken(pool, capsys):
    assert choose_pool(PoolOptions(pool=pool), ask_nobody) == PoolOptions(pool=pool)
    assert capsys.readouterr().err == ""


def test_a_cluster_in_the_environment_that_does_not_answer_is_an_error_for_auto_too(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(ConnectionError, match="no Ray cluster answers"):
        validate_pool_options(PoolOptions())
    assert validate_pool_options(PoolOptions(pool="serial"))


def test_the_pool_that_is_left_to_auto_begins_here_and_has_one_worker():
    options = PoolOptions()
    assert validate_pool_options(options)
    assert estimate_worker_count(options, local=True) == 1
    with open_pool(options, lambda requested: "cpu") as session:
        assert isinstance(session.pool, AutoPool)
        assert (session.pool.is_serial, session.device, session.run_on_each_node) == (True, "cpu", None)
        assert isinstance(create_metrics(session.pool, "p", "r", {}, {}), LateMetrics)
    with open_pool(replace(options, pool="serial"), lambda requested: "cpu") as session:
        assert create_metrics(session.pool, "p", "r", {}, {}) is None


def test_on_a_gpu_the_process_that_has_it_keeps_all_jobs():
    """Workers that are opened later would lack the memory that this process has on the GPU."""
    with open_pool(PoolOptions(), has_gpu) as session:
        assert isinstance(session.pool, SerialPool)
        assert session.device == "cuda"


@pytest.mark.parametrize("pool", ["serial", "ray"])
@pytest.mark.parametrize(("device", "expected"), [("auto", "cuda"), ("cpu", "cpu"), ("cuda", "cuda")])
def test_workers_on_this_machine_have_its_device(monkeypatch, pool, device, expected):
    monkeypatch.setattr(launch, "connect", asks_nothing)
    assert resolve_worker_device(PoolOptions(pool=pool, device=device), has_gpu) == expected


def test_a_serial_pool_has_this_machine_s_device_whatever_cluster_the_environment_names(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere:6379")
    assert resolve_worker_device(PoolOptions(pool="serial"), has_gpu) == "cuda"


def test_a_device_that_is_named_is_that_of_a_cluster_without_asking_it():
    options = PoolOptions(pool="ray", address="elsewhere:6379", device="cuda")
    assert resolve_worker_device(options, asks_nothing) == "cuda"


@pytest.mark.ray
@pytest.mark.parametrize(("gpus", "expected"), [(0, "cpu"), (4, "cuda")])
def test_a_cluster_that_is_joined_is_asked_for_its_device(monkeypatch, ray_cluster, gpus, expected):
    import ray

    address = ray.get_runtime_context().gcs_address
    monkeypatch.setattr(launch, "count_gpus", lambda: gpus)
    assert resolve_worker_device(PoolOptions(pool="ray", address=address), asks_nothing) == expected
    assert ray.is_initialized()


@pytest.mark.ray
def test_workers_of_a_cluster_started_here_have_the_device_that_torch_finds(monkeypatch, ray_cluster):
    """Ray may count a GPU that torch cannot use; each job on it would fail."""
    monkeypatch.setattr(launch, "count_gpus", lambda: 1)
    with open_pool(PoolOptions(pool="ray"), lambda requested: "cpu") as session:
        assert session.device == "cpu"


@pytest.mark.ray
def test_a_pool_and_a_search_move_to_real_workers(monkeypatch, ray_cluster, capsys):
    """In the cluster of the tests: the device stays that of this process, and searches use the same CPUs."""
    monkeypatch.setattr(launch, "SWITCH_FACTOR", 0.0)
    monkeypatch.setattr("cluster.auto_pool.START_S", 0.0)
    with open_pool_and_search(PoolOptions(), lambda requested: "cpu") as (session, search):
        pids = [outcome[2] for _, outcome in session.pool.run(environment, range(3))]
        assert pids[0] == os.getpid() not in pids[1:]
        assert "starting Ray workers" in capsys.readouterr().err
        results = []
        space = Search(name="a", space={"x": ("uniform", 0.0, 1.0)}, budget=1, job=None)
        search.search(sleep_briefly, [space], None, lambda *result: results.append(result[2]["pid"]))
        assert len(results) == 1
        assert os.getpid() not in results
        assert [outcome for _, outcome in session.pool.run(double, [4])] == [8]
