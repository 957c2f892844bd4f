"""Claim: the first command that a user runs, a bank of the digits, is faster without Ray, which --pool auto finds out.

    python -m benchmarks.first_run [--rounds 5] [--quick]

`python -m memscore.estimate --store NEW` as it is and with --pool ray, in turns, from start to exit. The parts are told
by when lines appear: until the heading (imports, data), until the line of the pool (the forecast), until the models
are done (with Ray its start too), and the rest (scores, figures, Ray's end). --quick is one round of 64 models.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import tyro

from benchmarks.results_file import save, spread

ROOT = Path(__file__).parents[1]
POOLS = {"auto": (), "ray": ("--pool", "ray")}
PARTS = {"start_s": "data ", "forecast_s": " on one core: ", "models_s": "; ended after ", "end_s": ""}


def main(rounds: int = 5, quick: bool = False) -> None:
    """Measure.

    Args:
        rounds: of both commands.
        quick: one round of 64 models.
    """
    more = ("--models", "64") if quick else ()
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in POOLS}
    for number in range(1 if quick else rounds):
        for name in list(POOLS) if number % 2 else list(POOLS)[::-1]:
            runs[name].append(measure(*more, *POOLS[name]))
            print(name, number, runs[name][-1], flush=True)
    ratios = [ray["wall_s"] / auto["wall_s"] for auto, ray in zip(runs["auto"], runs["ray"], strict=True)]
    found = {name: {key: spread([run[key] for run in several]) for key in several[0]} for name, several in runs.items()}
    what = "python -m memscore.estimate --store NEW (digits, 256 MLPs, 3 originals), as it is and with --pool ray"
    found |= {"ray_over_auto": spread(ratios)}
    print(found) if quick else save("first_run", {"what": what, **found})


def measure(*flags: str) -> dict[str, float]:
    """Seconds of one run and of its parts."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    marks: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="memscore-") as folder:
        started = time.perf_counter()
        with subprocess.Popen(
            [sys.executable, "-um", "memscore.estimate", "--store", f"{folder}/bank", *flags],
            env=environment | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            for line in process.stdout or ():
                for part, sign in PARTS.items():
                    if sign and sign in line:
                        marks.setdefault(part, time.perf_counter() - started)
        marks["end_s"] = time.perf_counter() - started
    if process.returncode:
        raise SystemExit(f"memscore.estimate {' '.join(flags)} ended with {process.returncode}")
    last, parts = 0.0, {}
    for part in PARTS:
        parts[part], last = marks.get(part, last) - last, marks.get(part, last)
    return {"wall_s": last, **parts}


if __name__ == "__main__":
    tyro.cli(main)
