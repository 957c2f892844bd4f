import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import TOKEN

ROOT = Path(__file__).parents[2]


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
