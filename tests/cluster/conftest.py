import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOKEN = "0123456789abcdef" * 4


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


@pytest.fixture
def run_alone(tmp_path: Path) -> Callable[..., str]:
    """Run Python in a process with a home of its own and nothing of Ray in its environment; gives the last line."""

    def run(*arguments: str, limit_s: float = 60, token: str = TOKEN, **environment: str) -> str:
        plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        own = {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
        auth = {"RAY_AUTH_TOKEN": token} if token else {}
        done = subprocess.run(
            [sys.executable, *arguments],
            env=plain | own | auth | environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout.strip().splitlines()[-1]

    return run
