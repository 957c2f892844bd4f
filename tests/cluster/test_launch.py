"""Which pool a command gets, and the device of its workers."""

import pytest

from cluster import launch
from cluster.launch import PoolOptions, open_pool, resolve_worker_device


def has_gpu(requested):
    """A machine with a GPU, in place of memscore.training.numerics.resolve_device."""
    return "cpu" if requested == "cpu" else "cuda"


def asks_nothing(requested):
    raise AssertionError("the device of this process says nothing of a cluster's")


@pytest.mark.parametrize("pool", ["serial", "ray"])
@pytest.mark.parametrize(("device", "expected"), [("auto", "cuda"), ("cpu", "cpu"), ("cuda", "cuda")])
def test_workers_on_this_machine_have_its_device(monkeypatch, pool, device, expected):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
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
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(launch, "count_gpus", lambda: 1)
    with open_pool(PoolOptions(pool="ray"), lambda requested: "cpu") as session:
        assert session.device == "cpu"
