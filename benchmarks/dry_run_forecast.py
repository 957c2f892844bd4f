"""Claim: a dry run's core-hours are those of the run, within a third, for networks of every kind.

    python -m benchmarks.dry_run_forecast [--rounds 3] [--quick]

For each bank in turns: `python -m memscore.estimate --dry-run`, whose time with one worker is read, then the same
command in this process (`--pool serial`), then again with all stored. The run's seconds are the CPU seconds of the
second less those of the third, so that imports, data and tables, which both have, are left out. The load of a shared
machine changes forecast and run; each round has a ratio of its own. --quick is one round of the first bank.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks.gpu_data import draw_images
from benchmarks.results_file import save, spread

ROOT = Path(__file__).parents[1]
COLOUR = ("--data", f"{__name__}:draw_colour", "--originals", "1", "--models", "4", "--design", "iid")
BANKS = {
    "digits, mlp, 256 models, 1 original": ("--originals", "1"),
    "3,500 images of 1x28x28, cnn, 6 epochs, 6 models, 1 original": (
        *("--data", f"{__name__}:draw_grey", "--arch", "cnn", "--epochs", "6"),
        *("--models", "6", "--design", "iid", "--originals", "1"),
    ),
    "500 images of 3x32x32, vit-narrow, 2 epochs, 4 models, 1 original": (
        *COLOUR,
        "--arch",
        "vit-narrow",
        "--epochs",
        "2",
    ),
    "500 images of 3x32x32, resnet18, 3 epochs of batch 64, 4 models, 1 original": (
        *(*COLOUR, "--arch", "resnet18", "--epochs", "3", "--batch", "64"),
    ),
}
FORECAST = re.compile(r"core-hours: ([\d.,]+) (ms|s|min|h) with 1 worker")
UNIT_S = {"ms": 1e-3, "s": 1, "min": 60, "h": 3600}


def draw_colour() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Draw 500 training and 100 test images of 3x32x32."""
    drawn = draw_images(500, 100)
    return drawn["train_images"], drawn["train_labels"], drawn["test_images"], drawn["test_labels"]


def draw_grey() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Draw 3,500 training and 500 test images of 1x28x28."""
    drawn = draw_images(3500, 500)
    train, test = (drawn[f"{split}_images"][:, :1, 2:30, 2:30].copy() for split in ("train", "test"))
    return train, drawn["train_labels"], test, drawn["test_labels"]


def main(rounds: int = 3, quick: bool = False) -> None:
    """Measure.

    Args:
        rounds: of every bank.
        quick: one round of the first bank.
    """
    banks = dict(list(BANKS.items())[:1]) if quick else BANKS
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in banks}
    for _ in range(1 if quick else rounds):
        for name, flags in banks.items():
            measured[name].append(compare(flags))
            print(name, *(f"{seconds:.1f} s" for seconds in measured[name][-1]), flush=True)
    found = {
        name: {
            "forecast_s": spread([forecast for forecast, _ in pairs]),
            "run_s": spread([run for _, run in pairs]),
            "ratio": spread([forecast / run for forecast, run in pairs]),
        }
        for name, pairs in measured.items()
    }
    print(found) if quick else save("dry_run_forecast", {"what": "CPU seconds, forecast and spent", "banks": found})


def compare(flags: tuple[str, ...]) -> tuple[float, float]:
    """Return the seconds that a dry run forecasts and those that the run took."""
    with tempfile.TemporaryDirectory(prefix="memscore-") as folder:
        command = ["memscore.estimate", "--store", f"{folder}/bank", "--pool", "serial", "--device", "cpu", *flags]
        output, _ = run(*command, "--dry-run")
        found = FORECAST.search(" ".join(output.split()))
        if found is None:
            raise SystemExit(f"no forecast in what {' '.join(command)} --dry-run printed:\n{output}")
        _, first_s = run(*command)
        _, again_s = run(*command)
    return float(found[1].replace(",", "")) * UNIT_S[found[2]], first_s - again_s


def run(*arguments: str) -> tuple[str, float]:
    """Run a module; return what it printed and the CPU seconds that it and its children took."""
    before: Any = os.times()
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    after: Any = os.times()
    if done.returncode:
        raise SystemExit(
            f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    return done.stdout + done.stderr, sum(after[2:4]) - sum(before[2:4])


if __name__ == "__main__":
    tyro.cli(main)
