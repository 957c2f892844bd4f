"""Claim: a sweep whose driver is killed goes on where it was, and ends with the rows of one that nobody disturbed.

    python -m benchmarks.sweep_resume [--after 12] [--budget 20] [--quick]

One sweep on a bank of digits (two algorithms, vanilla and RUM in two parts), three times: calm on Ray Tune with two
workers; the same, but its driver gets kill -9 once so many attempts are on file, and the command is given again; calm
in one process. Attempts lost are those that were on file and are not there, or not the same, at the end; repeated are
those that the second command made beyond what was missing (an attempt that was under way is missing). Measures of all
judged rows are compared bit for bit. Beyond the algorithms an attempt takes: the time from the first to the last
attempt, shared among the workers, minus the seconds of the algorithms, by attempt; with measuring, the oracles' answers
that are read, and the start of the second step's search. Runs in namespaces of its own (benchmarks/apart.py). --quick
is a smaller sweep, whose numbers mean little and are not kept.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import tyro

from benchmarks.apart import live_apart
from benchmarks.results_file import save
from benchmarks.throwaway import ROOT, wait_for

WORKERS, NAME = 2, "here"
BANK = "--data digits --train-limit 300 --validation .2 --epochs 6 --batch 20 --models 64 --pool serial"
ASKED = (
    "--forget memorization_k0.500:high --size 24 --algorithms finetune neggrad-plus --variants vanilla rum "
    "--scores memorization_k0.500 --parts 2 --seeds 2"
)
TIMES = ("wall_s", "run_wall_s", "rrt_wall")
"""Columns that say how long something took, and so differ from run to run."""


def main(after: int = 12, budget: int = 20, quick: bool = False) -> None:
    """Measure.

    Args:
        after: attempts on file at which the driver is killed.
        budget: attempts at each place.
        quick: 3 and 4.
    """
    live_apart()
    after, budget = (3, 4) if quick else (after, budget)
    with tempfile.TemporaryDirectory(prefix="memscore-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        said(home, "memscore.estimate", *BANK.split(), "--store", str(home / "bank"))
        calm, killed, serial = (home / name for name in ("calm", "killed", "serial"))
        for store in (calm, killed, serial):
            shutil.copytree(home / "bank", store)
        found = {
            "what": f"python -m unlearn.sweep STORE {ASKED} --budget {budget}",
            "killed": interrupted(home, killed, budget, after),
            "calm": timed(home, calm, budget, "--workers", str(WORKERS)),
            "serial": timed(home, serial, budget, "--pool", "serial"),
        }
        found |= {"judged_rows": len(judged(calm).splitlines()), "rows_equal": judged(calm) == judged(killed)}
        found |= {"rows_equal_to_serial": judged(calm) == judged(serial)}
    print(json.dumps(found, indent=2)) if quick else save("sweep_resume", found)


def sweep(store: Path, budget: int, *more: str) -> list[str]:
    """The command, in words."""
    return ["unlearn.sweep", str(store), *ASKED.split(), "--budget", str(budget), "--name", NAME, *more]


def start(home: Path, *words: str) -> "subprocess.Popen[str]":
    """A command whose lines are kept."""
    environment = os.environ | {"HOME": str(home), "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    one = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([sys.executable, "-m", *words], env=environment, cwd=ROOT, **one)


def said(home: Path, *words: str) -> str:
    """What a command prints; RuntimeError if it fails."""
    process = start(home, *words)
    text, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with {process.returncode}: {text[-2000:]}")
    return text


def attempts(store: Path) -> dict[str, Path]:
    """Every attempt on file, by hunt and values."""
    return {str(path.relative_to(store)): path for path in store.glob("attempts/*/*.json")}


def timed(home: Path, store: Path, budget: int, *more: str) -> dict[str, float]:
    """A calm sweep: what an attempt took beyond its algorithms."""
    began = time.perf_counter()
    said(home, *sweep(store, budget, *more))
    whole_s = time.perf_counter() - began
    files = attempts(store).values()
    moments = sorted(path.stat().st_mtime for path in files)
    algorithms_s = sum(json.loads(path.read_text())["wall_s"] for path in files)
    between_s, workers = moments[-1] - moments[0], WORKERS if "--workers" in more else 1
    return {
        "attempts": len(moments),
        "whole_s": whole_s,
        "between_first_and_last_s": between_s,
        "algorithms_s": algorithms_s,
        "beyond_algorithms_s_an_attempt": (between_s * workers - algorithms_s) / (len(moments) - 1),
    }


def interrupted(home: Path, store: Path, budget: int, after: int) -> dict[str, Any]:
    """Kill the driver of a sweep, give the command again, and count."""
    words = sweep(store, budget, "--workers", str(WORKERS))
    process = start(home, *words)
    wait_for(lambda: len(attempts(store)) >= after or process.poll() is not None, 1800)
    if process.poll() is not None:
        raise RuntimeError(f"the sweep ended before {after} attempts: {process.communicate()[0][-2000:]}")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(5)  # workers that outlive their driver may finish what they had begun
    there = {name: path.read_bytes() for name, path in attempts(store).items()}
    began = time.perf_counter()
    text = said(home, *words)
    second_s = time.perf_counter() - began
    now = attempts(store)
    totals = dict(re.findall(r"configurations at step (\d+) \d+/(\d+)", text))
    made = sum(int(total) for total in totals.values())
    return {
        "on_file_when_killed": len(there),
        "made_by_the_second_command": made,
        "attempts": len(now),
        "lost": sum(name not in now or now[name].read_bytes() != content for name, content in there.items()),
        "repeated": made - (len(now) - len(there)),
        "second_command_s": second_s,
    }


def judged(store: Path) -> str:
    """All judged rows without their times, as text in one order."""
    rows = pq.read_table(store / "sweeps" / NAME / "trials.parquet").to_pylist()
    kept = [{key: value for key, value in row.items() if key not in TIMES} for row in rows if row["role"] == "judged"]
    return "\n".join(sorted(json.dumps(row, sort_keys=True) for row in kept))


if __name__ == "__main__":
    tyro.cli(main)
