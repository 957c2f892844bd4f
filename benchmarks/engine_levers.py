"""Claim: how much faster whole commands and single operations are than in an earlier checkout.

    python -m benchmarks.engine_levers --before CHECKOUT [--now CHECKOUT] [--rounds 5] [--cases NAME ...]

Each case runs in both checkouts, in turns whose order changes, with this interpreter and from an empty folder: whole
commands by wall clock (the first run on the digits as a new user types it, one trial, one sweep, one experiment), and
single operations by the processor time of their process (evaluation of the small CNN, the first optimizer step of a
process, a masked step). Trials are found again in a store, so every round has a copy of a store that its checkout made.
The ratio is before / now, round by round; a first round is not counted, since files are read from the disk then.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.results_file import save, spread

ROOT = Path(__file__).parents[1]
SIDES = ("before", "now")
SERIAL = "--pool serial --device cpu"
FORGET = "--forget memorization_k0.500:high --size 30"
COMMANDS = {
    "first run": "memscore.estimate --store new",
    "first run, serial": f"memscore.estimate --store new {SERIAL}",
    "trial": f"unlearn.trial store --algorithm finetune {FORGET} --seeds 3 {SERIAL}",
    "sweep": f"unlearn.sweep store --algorithms finetune neggrad-plus scrub {FORGET} --variants vanilla rum "
    f"--scores memorization_k0.500 --budget 5 {SERIAL}",
    "experiment": "unlearn.experiment memorization store --algorithms finetune neggrad-plus "
    f"--budget 4 --seeds 3 {SERIAL}",
}
OPERATIONS = ("evaluation", "first step", "masked step")
STORE = f"memscore.estimate --store store {SERIAL}"


@dataclass(frozen=True)
class Checkout:
    """One side of the comparison.

    Attributes:
        name: "before" or "now".
        root: its folder.
        work: an empty folder for its runs.
    """

    name: str
    root: Path
    work: Path

    def run(self, folder: Path, words: Sequence[str]) -> str:
        """Run Python with this checkout's code; return what it prints, or raise RuntimeError with its last lines."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("MEMSCORE_", "RAY_"))}
        environment = clean | {"PYTHONPATH": str(self.root), "HOME": str(self.work), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-P", *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            last = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
            raise RuntimeError(f"{self.name} ({self.root}): `{' '.join(words)}` ended with {done.returncode}:\n{last}")
        return done.stdout

    def require_own_code(self) -> str:
        """Return the commit of this checkout; RuntimeError if Python would import other code."""
        code = "import memscore, unlearn, cluster; print(memscore.__file__, unlearn.__file__, cluster.__file__)"
        paths = self.run(self.work, ["-c", code]).split()
        if not all(Path(path).is_relative_to(self.root) for path in paths):
            raise RuntimeError(f"{self.name}: Python imports {' '.join(paths)}, not the code in {self.root}")
        commit = subprocess.run(
            ["git", "-C", self.root, "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        )
        return commit.stdout.strip() or "unknown"

    def time_command(self, words: str) -> float:
        """Seconds of one command, in a folder with a copy of the store that this checkout made."""
        with tempfile.TemporaryDirectory(dir=self.work) as folder:
            if " store " in words:
                shutil.copytree(self.work / "store", Path(folder) / "store")
            started = time.perf_counter()
            self.run(Path(folder), ["-m", *words.split()])
            return time.perf_counter() - started

    def time_operation(self, case: str) -> float:
        """Seconds that a process of its own measures."""
        output = self.run(self.work, [str(ROOT / "benchmarks" / "lever_cases.py"), case])
        return float(json.loads(output.splitlines()[-1])["seconds"])


def main(arguments: list[str] | None = None) -> None:
    """Measure the cases and write the results after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="folder of the earlier checkout")
    parser.add_argument("--now", type=Path, default=ROOT, help="folder of the later one (default: this)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", nargs="+", choices=[*COMMANDS, *OPERATIONS], default=[*COMMANDS, *OPERATIONS])
    parser.add_argument("--results", type=Path, help="folder of the results (default: benchmarks/results)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        sides = []
        for name, root in zip(SIDES, (options.before, options.now), strict=True):
            work = Path(folder) / name
            work.mkdir()
            sides.append(Checkout(name, root.resolve(), work))
        commits = {side.name: side.require_own_code() for side in sides}
        if any(" store " in COMMANDS.get(case, "") for case in options.cases):
            for side in sides:
                side.run(side.work, ["-m", *STORE.split()])
        cases: dict[str, object] = {}
        for case in options.cases:
            cases[case] = compare(sides, choose_timer(case), options.rounds)
            print(f"{case}: {json.dumps(cases[case])}", flush=True)
            measured = {"what": "seconds of both checkouts, and before / now", "commits": commits, "cases": cases}
            save("engine_levers", measured, quiet=True, **({"folder": options.results} if options.results else {}))


def choose_timer(case: str) -> Callable[[Checkout], float]:
    """The function that times a case in a checkout."""
    if case in COMMANDS:
        return lambda side: side.time_command(COMMANDS[case])
    return lambda side: side.time_operation(case)


def compare(sides: Sequence[Checkout], timer: Callable[[Checkout], float], rounds: int) -> dict[str, object]:
    """Time both sides in turns; the first round is not counted."""
    seconds: dict[str, list[float]] = {side.name: [] for side in sides}
    for number in range(rounds + 1):
        for side in sides if number % 2 else sides[::-1]:
            seconds[side.name].append(timer(side))
    counted = {name: values[1:] for name, values in seconds.items()}
    ratios = [before / now for before, now in zip(*counted.values(), strict=True)]
    return {**{f"{name}_s": spread(values) for name, values in counted.items()}, "before_over_now": spread(ratios)}


if __name__ == "__main__":
    main()
