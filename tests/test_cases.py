"""Public reports of this field, each a program in tests/cases that exits 0 where the product is right.

A case that fails today is listed below with what is wrong and the issue that will fix it. A listed case that passes
fails this test, so that its entry goes with the fix.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cases._support import CommandResult

ROOT = Path(__file__).parents[1]
CASES = sorted(path.stem for path in (ROOT / "tests" / "cases").glob("[!_]*.py"))
TIMEOUT_S = 900
RIGHT, WRONG = 0, 1

KNOWN_FAILURES: dict[str, str] = {}
"""Case -> what it finds, and the issue that will fix it."""


def test_every_case_is_run_and_every_known_failure_is_a_case():
    files = {path.name for path in (ROOT / "tests" / "cases").iterdir() if path.suffix == ".py"}
    assert files == {f"{name}.py" for name in CASES} | {"__init__.py", "_support.py", "_own_model.py"}
    assert len(CASES) >= 19
    assert set(CASES) >= set(KNOWN_FAILURES)


def test_a_crash_of_a_case_is_no_verdict(tmp_path):
    lines = {
        "import memscore.no_such_module": None,
        "def check(folder): raise RuntimeError('broken')": "broken",
        "def check(folder): run_command(folder, 'memscore.status', '--no-such-flag')": "not understood",
        "def check(folder): run_command(folder, 'memscore.no_such_command')": "an import failed",
        "def check(folder): require_success(run_command(folder, 'memscore.status', 'nothing'))": "exit code 2",
        "def check(folder): run_command(folder, 'memscore.status', 'manifest').explains('manifest')": "own words",
    }
    for line, reason in lines.items():
        program = f"from tests.cases._support import require_success, run_case, run_command\n{line}\nrun_case(check)\n"
        result = run_program("-c", program)
        assert judge(result) is None
        assert reason is None or (result.returncode == 2 and reason in result.stderr)
    program = "from tests.cases._support import run_case\nrun_case(lambda folder: {problems})\n"
    assert judge(run_program("-c", program.format(problems=[]))) == RIGHT
    assert judge(run_program("-c", program.format(problems=["a", "b\nc"]))) == WRONG


def test_a_reason_counts_in_a_refusal_or_in_a_line_that_the_control_does_not_have():
    def end(returncode, stdout="", stderr=""):
        return CommandResult(words=("memscore.attack",), returncode=returncode, stdout=stdout, stderr=stderr)

    control = end(0, "AUC 0.61\nwarning: 12 models diverged\n")
    assert end(0, "AUC 0.39\nwarning: members do worse\n").explains("warning", control)
    assert not end(0, "AUC 0.39\nwarning: 13 models diverged\n").explains("warning", control)
    assert end(2, stderr="error: the list is inverted\n").explains("invert", control)
    assert not end(2, stderr="error: no such file\n").explains("invert", control)
    assert not end(1, "inverted\n", "Traceback ...\nValueError: inverted\n").explains("invert", control)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_case(name):
    result = run_program("-m", f"tests.cases.{name}")
    verdict = judge(result)
    assert verdict is not None, f"the case itself did not work: exit code {result.returncode}\n{result.stderr}"
    if name in KNOWN_FAILURES:
        assert verdict == WRONG, f"{name} passes now: remove it from KNOWN_FAILURES"
    else:
        assert verdict == RIGHT, result.stdout


def run_program(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )


def judge(result: subprocess.CompletedProcess[str]) -> int | None:
    """RIGHT or WRONG; None where the case crashed, so that neither is known."""
    lines = result.stdout.splitlines()
    words = {RIGHT: "right", WRONG: "wrong: "}.get(result.returncode)
    # An exception that nobody catches ends a process with 1 too, but without the line.
    spoken = words is not None and len(lines) == 1 and lines[0].startswith(words)
    return result.returncode if spoken and "Traceback" not in result.stderr else None
