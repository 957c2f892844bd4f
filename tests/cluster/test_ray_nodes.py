"""How many workers fit on nodes, and what is said of what stays unused."""

from types import SimpleNamespace

import pytest


@pytest.fixture
def ray_nodes():
    from cluster import ray_nodes

    return ray_nodes


def make_nodes(*gpus, cpus=64.0):
    return [{"Alive": True, "Resources": {"CPU": cpus, "GPU": float(count)}} for count in gpus]


def test_capacity_counts_whole_workers_on_living_nodes(ray_nodes):
    nodes = [
        {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 1.0, "memory": 30.0}},
        {"Alive": True, "Resources": {"CPU": 2.0, "memory": 15.0}},
        {"Alive": False, "Resources": {"CPU": 64.0}},
        {"Alive": True, "Resources": {}},  # a head that runs no jobs
    ]
    assert ray_nodes.count_fitting_workers(nodes) == 10
    assert ray_nodes.count_fitting_workers(nodes, gpus=0.1) == 8
    assert ray_nodes.count_fitting_workers(nodes, gpus=0.25) == 4
    assert ray_nodes.count_fitting_workers(nodes, memory=10) == 3 + 1


@pytest.mark.parametrize(
    ("share", "fitting"),
    [(0.1, 40), (0.25, 16), (0.3, 12), (0.3333, 12), (0.4, 8), (0.5, 8), (0.6, 4), (0.9, 4), (1, 4), (2, 2), (3, 1)],
)
def test_a_part_of_a_gpu_is_of_one_gpu(ray_nodes, share, fitting):
    assert ray_nodes.count_fitting_workers(make_nodes(4), gpus=share) == fitting
    assert ray_nodes.count_fitting_workers(make_nodes(4, 4), gpus=share) == 2 * fitting
    assert ray_nodes.count_fitting_workers(make_nodes(4, cpus=3.0), gpus=share) == min(3, fitting)


def test_several_gpus_a_worker_are_of_one_node(ray_nodes):
    assert ray_nodes.count_fitting_workers(make_nodes(1, 1, 3), gpus=2) == 1


@pytest.mark.parametrize("share", [-1, 1.5])
def test_a_share_that_ray_does_not_place_is_refused(ray_nodes, share):
    with pytest.raises(ValueError, match=f"a part of one GPU or a whole number of them, got {share}"):
        ray_nodes.require_gpu_share(share, make_nodes(4))


@pytest.mark.parametrize(
    ("workers", "share", "grows", "lines"),
    [
        (None, 0.4, True, ["--gpus-per-worker 0.4: 2 a GPU, 20 % of each GPU unused; 0.5 uses all of it"]),
        (None, 0.3, True, ["--gpus-per-worker 0.3: 3 a GPU, 10 % of each GPU unused; 0.3333 uses all of it"]),
        (None, 0.6, True, ["--gpus-per-worker 0.6: 1 a GPU, 40 % of each GPU unused; 1 uses all of it"]),
        (8, 0.25, True, []),
        (2, 0.3333, True, []),
        (2, 1, False, []),
        (None, 0, False, []),
        (
            4,
            1,
            False,
            ["--workers 4, but the cluster has room for 2 with 1 CPU and 1 GPU each; no more will run at once"],
        ),
        (
            100,
            0,
            True,
            ["--workers 100, but the cluster has room for 64 with 1 CPU each; the others wait for more nodes"],
        ),
    ],
)
def test_what_cannot_be_used_is_said_in_a_line(ray_nodes, monkeypatch, caplog, workers, share, grows, lines):
    monkeypatch.setattr(ray_nodes, "ray", SimpleNamespace(nodes=lambda: make_nodes(2)))
    ray_nodes.warn_if_unused_or_too_few(workers, share, grows=grows)
    assert [record.getMessage() for record in caplog.records] == lines


@pytest.mark.parametrize("count", range(1, 11))
def test_the_share_that_is_named_uses_all_of_a_gpu(ray_nodes, monkeypatch, caplog, count):
    monkeypatch.setattr(ray_nodes, "ray", SimpleNamespace(nodes=lambda: make_nodes(1)))
    ray_nodes.warn_if_unused_or_too_few(None, 1 / (count + 0.9), grows=False)
    share = float(caplog.records[0].getMessage().rpartition("; ")[2].split()[0])
    assert ray_nodes.count_gpu_places(1, share) == count
    assert count * share > 0.99
