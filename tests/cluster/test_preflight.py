"""What a driver checks on a cluster that it joined."""

import importlib
import logging
import time

import pytest

from tests.fixtures import jobs

pytestmark = pytest.mark.ray


@pytest.fixture
def preflight(ray_cluster):
    from cluster import preflight as module

    return module


def test_every_node_is_checked_and_only_those_with_a_problem_are_named(preflight):
    import ray

    [node] = ray.nodes()
    name = f"{node['NodeManagerHostname']} ({node['NodeID'][:8]})"
    assert preflight.run_on_each_node(jobs.report_no_problem) == {}
    assert preflight.run_on_each_node(jobs.report_not_visible) == {name: "not visible there"}
    assert preflight.run_on_each_node(jobs.raise_disk_error) == {name: "OSError: the disk is gone"}


def test_a_node_without_the_package_is_told_from_one_without_the_store(preflight, tmp_path, monkeypatch):
    (tmp_path / "only_on_driver.py").write_text("def check(): return None")
    monkeypatch.syspath_prepend(tmp_path)
    [problem] = preflight.run_on_each_node(importlib.import_module("only_on_driver").check).values()
    assert problem == "No module named 'only_on_driver'; install memscore there, or submit its folder as --working-dir"


def test_a_node_that_does_not_answer_is_warned_of_and_left_out(preflight, monkeypatch, caplog):
    monkeypatch.setattr(preflight, "NODE_TIMEOUT_S", 1.0)
    assert preflight.run_on_each_node(jobs.sleep_long) == {}
    assert "did not answer within 1 s; going on without its answer" in caplog.text


def test_a_full_cluster_is_warned_of_with_what_is_free_and_a_free_one_is_not(preflight, monkeypatch, caplog):
    import ray

    monkeypatch.setattr(preflight, "FREE_CPU_TIMEOUT_S", 0.2)
    caplog.set_level(logging.WARNING)
    free = time.monotonic() + 20
    while ray.available_resources().get("CPU", 0) < 2:
        assert time.monotonic() < free
        time.sleep(0.1)
    assert not preflight.warn_if_full("CPU", 1, 300)
    assert caplog.text == ""
    holders = [ray.remote(num_cpus=1)(jobs.Greedy).remote() for _ in range(2)]
    try:
        ray.get([holder.is_ready.remote() for holder in holders])
        assert preflight.warn_if_full("CPU", 1, 300)
        assert "the cluster is full: 0 of 2 CPUs are free" in caplog.text
        assert "waiting for at most 300 s" in caplog.text
    finally:
        for holder in holders:
            ray.kill(holder)
    assert preflight.warn_if_full("GPU", 1, 300)
    assert "the cluster has no GPU for a worker yet" in caplog.text
