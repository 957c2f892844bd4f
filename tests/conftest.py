"""One torch thread for every test, as for every worker (two give other bits and stall on busy cores); one cluster."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
TOKEN = "0123456789abcdef" * 4

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """Two CPUs and no dashboard; a token of its own, so that none is made in the developer's home."""
    before = dict(os.environ)
    os.environ.pop("RAY_ADDRESS", None)
    os.environ |= {"RAY_AUTH_TOKEN": TOKEN, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT)}
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        num_gpus=0,
        include_dashboard=False,
        object_store_memory=100 * 2**20,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield
    ray.shutdown()
    os.environ.clear()
    os.environ |= before
