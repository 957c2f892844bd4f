"""The wheel: built from a copy of the sources, it holds the three rooms and runs outside the clone."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("memscore", "unlearn", "cluster")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Its path; the build takes setuptools from PyPI and leaves nothing in the clone."""
    sources, out = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("wheel")
    for name in (*ROOMS, "tests", "benchmarks"):
        shutil.copytree(ROOT / name, sources / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md"):
        shutil.copy(ROOT / name, sources)
    command = [sys.executable, "-m", "pip", "wheel", str(sources), "--no-deps", "--quiet", "--wheel-dir", str(out)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    [path] = out.glob("*.whl")
    return path


def test_the_wheel_holds_the_three_rooms_and_nothing_else(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    assert {name.split("/")[0] for name in held} == {*ROOMS, "memscore-0.1.0.dist-info"}
    wanted = {path.relative_to(ROOT).as_posix() for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    marks = {f"{room}/py.typed" for room in ROOMS}
    assert {name for name in held if not name.startswith("memscore-")} >= wanted | marks
    assert any(name.endswith("licenses/LICENSE") for name in held)


@pytest.mark.slow
def test_a_bank_runs_from_the_wheel_outside_the_clone(wheel, tmp_path):
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    where = "import memscore, cluster, unlearn; print(memscore.__file__, cluster.__file__, unlearn.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", where], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    )
    assert all(path.startswith(str(site)) for path in found.stdout.split())
    flags = "--pool serial --train-limit 100 --epochs 1 --design exact --block 2 --models 2 --originals 1 --store bank"
    command = [sys.executable, "-m", "memscore.estimate", *flags.split()]
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "bank" / "scores.parquet").exists()
