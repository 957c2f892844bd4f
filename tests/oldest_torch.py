"""Run the tests of training with the oldest torch that pyproject.toml allows.

    python -m tests.oldest_torch FOLDER [--keep] [arguments for pytest]

Installs that torch and its torchvision alone (half a gigabyte, from the package index that pip is set to use) into
FOLDER, which stands before all else that can be imported; what torch needs comes from this environment. FOLDER is
deleted after the tests, unless --keep is given, and one that was kept is used again. `make oldest-torch` runs this.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = (
    "tests/memscore/training",
    "tests/memscore/models",
    "tests/memscore/test_gpu_benchmark.py",
    "tests/memscore/test_blocked_imports.py",
    "tests/unlearn/optimization",
)
"""Tests of the engines, recipes, augmentation, networks and GPU imports."""


def main(arguments: Sequence[str]) -> int:
    """Install, run the tests, delete; return pytest's exit code, or pip's if it fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="that is made, or was kept")
    parser.add_argument("--keep", action="store_true", help="do not delete the folder")
    options, for_pytest = parser.parse_known_args(arguments)
    requirements = find_oldest((ROOT / "pyproject.toml").read_text())
    complete = options.folder / "installed.txt"  # names what was installed to the end
    if options.folder.exists() and not complete.exists():
        sys.stderr.write(f"error: {options.folder} exists and is no folder of this command; name a new one\n")
        return 2
    try:
        if not complete.exists() or complete.read_text().split() != requirements:
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target"]
            if code := subprocess.call([*command, str(options.folder), *requirements]):
                return code
            complete.write_text("\n".join(requirements))
        return run_tests(options.folder.resolve(), requirements, for_pytest)
    finally:
        if not options.keep:
            shutil.rmtree(options.folder, ignore_errors=True)


def find_oldest(pyproject: str) -> list[str]:
    """Return torch and torchvision with the lowest version that the dependencies of a pyproject.toml allow.

    >>> find_oldest('[project]' + chr(10) + 'dependencies = ["torch>=2.11", "torchvision>=0.26", "numpy>=2.0"]')
    ['torch==2.11.0', 'torchvision==0.26.0']
    """
    found = {}
    for dependency in tomllib.loads(pyproject)["project"]["dependencies"]:
        if match := re.fullmatch(r"(torch|torchvision)>=(\d+\.\d+)(\.\d+)?", dependency):
            found[match[1]] = f"{match[1]}=={match[2]}{match[3] or '.0'}"
    return [found["torch"], found["torchvision"]]


def run_tests(folder: Path, requirements: Sequence[str], arguments: Sequence[str]) -> int:
    """Run the tests with the folder in front; RuntimeError if another torch would be imported."""
    environment = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    code = "import torch, torchvision; print(torch.__version__.split('+')[0], torchvision.__version__.split('+')[0])"
    imported = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    versions = [requirement.split("==")[1] for requirement in requirements]
    if imported.stdout.split() != versions:
        raise RuntimeError(
            f"Python imports torch and torchvision {imported.stdout.strip() or 'not at all'} instead of "
            f"{' '.join(versions)} from {folder}: {imported.stderr.strip()[-500:]}"
        )
    sys.stdout.write(f"torch and torchvision {imported.stdout}")
    sys.stdout.flush()
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", "not ray and not slow"]
    return subprocess.call([*command, *(arguments or TESTS)], cwd=ROOT, env=environment)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
