"""A machine that only trains has torch, torchvision, pyarrow, pandas, scikit-learn and pytest: what must run there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {
    "PYTHONPATH": str(ROOT),
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # hypothesis has one, which imports it
    "OMP_NUM_THREADS": "1",
}


def test_gpu_tests_and_the_gpu_benchmark_run_without_the_packages_that_only_commands_need(tmp_path):
    command = [sys.executable, "-m", "tests.fixtures.blocked_imports", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert [report[name] for name in ("collected", "prepare", "speed", "bank")] == [0, 0, 0, 0], report["output"]
    assert report["imported"] == []
    assert "test_gpu.py" in report["output"]
    assert "test_cuda_graph_engine.py" in report["output"]
    assert len(list((tmp_path / "gpu_padded_tiny.bank" / "shards").glob("*.parquet"))) == 4


@pytest.mark.parametrize("package", ["tyro", "rich"])
def test_a_command_names_the_package_that_is_missing(package):
    blocked = f"import sys; sys.modules[{package!r}] = None; import memscore.estimate"
    done = subprocess.run([sys.executable, "-c", blocked], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert package in done.stderr.splitlines()[-1]
