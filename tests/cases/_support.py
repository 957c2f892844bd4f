"""What the cases share: how a command is run, how files of a store are read, and what the exit codes mean.

Exit codes: 0, the product is right; 1, it is not, and the line says what is wrong; 2, the case itself did not work, so
nothing is known about the product. A control that fails, a command line that is not understood and a failed import
are 2: none of them may count as the refusal that a case asks for.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 400
RIGHT, WRONG, BROKEN = 0, 1, 2
MISUNDERSTOOD = re.compile(r"error: (unknown option|.* takes no word|.* needs a value)")
FAILED_IMPORT = re.compile(r"No module named|ImportError|ModuleNotFoundError")


class CaseError(Exception):
    """The case cannot be judged: its setup or its control did not work."""


@dataclass(frozen=True, kw_only=True)
class CommandResult:
    """What a command printed, with the case's folder written as FOLDER."""

    words: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str

    @property
    def command(self) -> str:
        return " ".join(self.words)

    @property
    def output(self) -> str:
        return self.stdout + self.stderr

    @property
    def refusal(self) -> str:
        """The error line of a command that ended with exit code 2; empty for every other end."""
        lines = [line for line in self.stderr.splitlines() if line.startswith("error: ")]
        return lines[-1] if self.returncode == 2 and lines else ""

    def explains(self, reason: str, control: "CommandResult | None" = None) -> bool:
        """Whether it refused for this reason, or ran and gave the reason in a line that the control does not have.

        A command that crashed explains nothing. CaseError where the reason is a word of the command itself, such as a
        file name, which the product may repeat without knowing the reason.
        """
        if own := [word for word in self.words if re.search(reason, word, re.IGNORECASE)]:
            raise CaseError(f"the reason {reason!r} is in the command's own words {own}")
        if self.refusal:
            return bool(re.search(reason, self.refusal, re.IGNORECASE))
        known = {_without_numbers(line) for line in control.output.splitlines()} if control else set()
        lines = [line for line in self.output.splitlines() if _without_numbers(line) not in known]
        return self.returncode == 0 and any(re.search(reason, line, re.IGNORECASE) for line in lines)


def run_command(folder: Path, *words: str, cwd: Path | None = None, **environment: str) -> CommandResult:
    """Run `python -m WORDS` in a process of its own, with this checkout's packages and stores in the case's folder.

    Modules in `folder` can be imported, as `--data module:function` wants it. CaseError if the words are not understood
    or something cannot be imported.
    """
    inherited = {name: value for name, value in os.environ.items() if name not in {"RAY_ADDRESS", "PYTHONPATH"}}
    own = {
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
        "MEMSCORE_HOME": str(folder / "home"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)]),
    }
    process = subprocess.run(
        [sys.executable, "-m", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
        cwd=cwd or folder,
        env=inherited | own | environment,
    )
    result = CommandResult(
        words=tuple(word.replace(str(folder), "FOLDER") for word in words),
        returncode=process.returncode,
        stdout=process.stdout.replace(str(folder), "FOLDER"),
        stderr=process.stderr.replace(str(folder), "FOLDER"),
    )
    if FAILED_IMPORT.search(result.output):
        raise CaseError(f"{result.command}: an import failed: {result.output[-500:]}")
    if result.returncode == 2 and (not result.refusal or MISUNDERSTOOD.match(result.refusal)):
        raise CaseError(f"{result.command}: not understood: {result.output[-500:]}")
    return result


def require_success(result: CommandResult) -> CommandResult:
    """The result of a setup or a control, which must end with exit code 0."""
    if result.returncode:
        raise CaseError(f"{result.command}: exit code {result.returncode}: {result.output[-500:]}")
    return result


def read_summary(bank: Path) -> dict[str, Any]:
    """reports/summary.json of a store."""
    summary: dict[str, Any] = json.loads((bank / "reports" / "summary.json").read_text())
    return summary


def read_attacks(bank: Path) -> dict[str, Any]:
    """Attack -> its numbers, of the only arm of a bank, as in reports/summary.json."""
    (arm,) = read_summary(bank)["arms"]
    attacks: dict[str, Any] = arm["attacks"]
    if not attacks:
        raise CaseError(f"{bank.name} has no attack in its summary.json")
    return attacks


def read_aucs(bank: Path) -> dict[str, float]:
    """Attack -> mean AUC over targets."""
    return {name: float(numbers["auc"][0]) for name, numbers in read_attacks(bank).items()}


def run_case(check: Callable[[Path], list[str]]) -> NoReturn:
    """Check the product in an empty folder, print one line and exit.

    Args:
        check: takes the folder; gives the problems that it saw.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="case-") as folder:
            problems = [problem.replace(folder, "FOLDER") for problem in check(Path(folder))]
    except BaseException:  # SystemExit too: a case that ends early must not look like a verdict
        traceback.print_exc()
        sys.exit(BROKEN)
    line = "wrong: " + "; ".join(problems) if problems else "right"
    sys.stdout.write(" ".join(line.split()) + "\n")
    sys.exit(WRONG if problems else RIGHT)


def _without_numbers(line: str) -> str:
    return " ".join(re.sub(r"[-+]?\d*\.?\d+", "", line).split())
