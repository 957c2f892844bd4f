"""Run the tests side by side: those on Ray, which mostly wait, in one process, and all others in one for each core.

    python -m tests.halves [arguments for pytest]

A file's tests run in one process, where they share what the file sets up. The output of the tests on Ray is printed at
the end.
"""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
NONE_COLLECTED = int(pytest.ExitCode.NO_TESTS_COLLECTED)  # of one half only, where arguments name tests


def find_ray_files() -> list[str]:
    """List the files that mark tests as ray; to collect all others too would import everything once more."""
    return sorted(str(path) for path in TESTS.rglob("test_*.py") if "pytest.mark.ray" in path.read_text())


def name_tests(arguments: Sequence[str]) -> bool:
    """Report whether arguments of pytest name files or folders."""
    return any(Path(word.partition("::")[0]).exists() for word in arguments)


def main(arguments: Sequence[str]) -> int:
    """Run both; no test that is marked slow.

    Args:
        arguments: for pytest, beside the marks.

    Returns:
        Exit code: 0 if all tests passed, else the higher one of pytest's.
    """
    command = [sys.executable, "-m", "pytest", *arguments, "-m"]
    ray_files = [] if name_tests(arguments) else find_ray_files()
    with tempfile.TemporaryFile("w+") as ray_output:
        on_ray = subprocess.Popen(
            [*command, "ray and not slow", *ray_files], stdout=ray_output, stderr=subprocess.STDOUT
        )
        try:
            others = subprocess.call([*command, "not ray and not slow", "-n", "auto", "--dist", "loadfile"])
            codes = {others, on_ray.wait()}
            return max(codes - {NONE_COLLECTED}, default=NONE_COLLECTED)
        finally:
            on_ray.wait()
            ray_output.seek(0)
            sys.stdout.write(f"\nthe tests on Ray:\n{ray_output.read()}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
