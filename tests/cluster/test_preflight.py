"""What a driver asks of the cluster that it joined."""

import importlib
import logging
import time

import pytest

from tests.fixtures import jobs

pytestmark = pytest.mark.ray


@pytest.fixture
def nodes(ray_cluster):
    from cluster import preflight

    return preflight


def test_every_node_is_asked_and_only_those_with_a_word_against_it_are_named(nodes):
    import ray

    [node] = ray.nodes()
    name = f"{node['NodeManagerHostname']} ({node['NodeID'][:8]})"
    assert nodes.ask_each_node(jobs.nothing_wrong) == {}
    assert nodes.ask_each_node(jobs.not_visible) == {name: "not visible there"}
    assert nodes.ask_each_node(jobs.disk_gone) == {name: "OSError: the disk is gone"}


def test_a_node_without_the_package_is_told_from_one_without_the_store(nodes, tmp_path, monkeypatch):
    (tmp_path / "asked_here.py").write_text("def question(): return None")
    monkeypatch.syspath_prepend(tmp_path)
    [said] = nodes.ask_each_node(importlib.import_module("asked_here").question).values()
    assert said == "No module named 'asked_here'; install memscore there, or submit its folder as --working-dir"


def test_a_node_that_does_not_answer_is_warned_of_and_left_out(nodes, monkeypatch, caplog):
    monkeypatch.setattr(nodes, "NODE_TIMEOUT_S", 1.0)
    assert nodes.ask_each_node(jobs.sleep_long) == {}
    assert "did not answer within 1 s; going on without its word" in caplog.text


def test_a_full_cluster_is_said_with_what_is_free_and_a_free_one_is_not(nodes, monkeypatch, caplog):
    import ray

    monkeypatch.setattr(nodes, "FREE_CPU_TIMEOUT_S", 0.2)
    caplog.set_level(logging.WARNING)
    free = time.monotonic() + 20
    while ray.available_resources().get("CPU", 0) < 2:
        assert time.monotonic() < free
        time.sleep(0.1)
    assert not nodes.say_if_full("CPU", 1, 300)
    assert caplog.text == ""
    held = [ray.remote(num_cpus=1)(jobs.Greedy).remote() for _ in range(2)]
    try:
        ray.get([one.here.remote() for one in held])
        assert nodes.say_if_full("CPU", 1, 300)
        assert "the cluster is full: 0 of 2 CPUs are free" in caplog.text
        assert "waiting for at most 300 s" in caplog.text
    finally:
        for one in held:
            ray.kill(one)
    assert nodes.say_if_full("GPU", 1, 300)
    assert "the cluster has no GPU for a worker yet" in caplog.text
