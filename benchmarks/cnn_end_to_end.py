"""Claim: how much faster whole commands on small CNNs are with compiled convolutions: a bank, and unlearning trials.

    python -m benchmarks.cnn_end_to_end [--folder FASHION_MNIST] [--parts NAME ...] [--pairs 8] [--block 16]
        [--originals 3] [--rounds 5] [--bank STORE] [--quick]

Two banks of 128 models of 4,000 Fashion-MNIST images, one with torch's convolutions ("before") and one with compiled
ones ("now"), each made by one command for every 16 models, in turns whose order changes: a pair is one command of each,
from imports to scores, and the first pair also trains the originals. Then trials on two copies of one bank, in turns
too: fine-tuning with oracles that have to be retrained, and each algorithm on the most memorized examples, whose
oracles are there. Every round takes another seed, since a trial is stored; a first round of trials is not counted. All
runs have one process and one thread. Results are written after each pair and round; a part that is not named keeps
those of the file. --quick is a tiny run to see that it works; its numbers mean nothing.
"""

import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import tyro

from benchmarks.plain_convolutions import REASON
from benchmarks.results_file import RESULTS, save, spread
from benchmarks.timed_process import run_timed
from memscore.statistics.correlation import pearson
from memscore.store.engine_counts import count_engines
from memscore.store.store import Store

ROOT = Path(__file__).parents[1]
SIDES = {"before": ("-m", "benchmarks.plain_convolutions"), "now": ("-m",)}
ENGINES = {
    "before": f"single, convolutions not compiled because {REASON}",
    "now": "single, compiled convolutions",
}
SERIAL = "--pool serial --device cpu"
MEMORIZED = "--forget memorization_k0.500:high"
TRIALS = {
    "finetune": f"--algorithm finetune {MEMORIZED}",
    "neggrad-plus": f"--algorithm neggrad-plus {MEMORIZED}",
    "salun": f"--algorithm salun {MEMORIZED}",
    "finetune and its oracles": "--algorithm finetune --forget random",
}
SECONDS = ("wall_s", "cpu_s")

Pair = dict[str, dict[str, float]]
"""Seconds of both sides."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is run.

    Attributes:
        bank: options of a bank.
        forget: options of a trial.
        place: the option that names the folder of the data, or "".
        block: models of one command.
        pairs: commands of a side.
        rounds: of trials.
        results: folder of the file of results.
        store: a bank of these options for the trials; None where one is to be made.
    """

    bank: str
    forget: str
    place: str
    block: int
    pairs: int
    rounds: int
    results: Path
    store: Path | None


def main(
    folder: str | None = None,
    parts: tuple[str, ...] = ("bank", *TRIALS),
    pairs: int = 8,
    block: int = 16,
    originals: int = 3,
    rounds: int = 5,
    bank: Path | None = None,
    quick: bool = False,
    results: Path = RESULTS,
) -> None:
    """Measure.

    Args:
        folder: of Fashion-MNIST.
        parts: what to measure: the bank and kinds of trials.
        pairs: of commands that train models of the bank.
        block: models of each.
        originals: of each bank, and of a trial.
        rounds: of trials, after one that is not counted.
        bank: for the trials, one that was made with these options (default: one is made); it is copied.
        quick: a tiny run of one original.
        results: folder of the file of results.
    """
    data, size = "--data fashion-mnist --train-limit 4000 --arch cnn", 100
    if quick:
        data, size = "--data digits --train-limit 200 --arch cnn-4-8 --epochs 1", 10
        pairs, block, originals, rounds = 2, 8, 1, 1
    plan = Plan(
        bank=f"{data} --block {block} --originals {originals} {SERIAL}",
        forget=f"--size {size} --seeds {originals} {SERIAL}",
        place=f" --folder {folder}" if folder is not None else "",
        block=block,
        pairs=pairs,
        rounds=rounds,
        results=results,
        store=bank,
    )
    if "bank" in parts:
        with tempfile.TemporaryDirectory() as work:
            measure_bank(plan, Path(work))
    if trials := [part for part in TRIALS if part in parts]:
        with tempfile.TemporaryDirectory() as work:
            measure_trials(trials, plan, Path(work))


def measure_bank(plan: Plan, work: Path) -> None:
    """Train both banks block by block, in turns."""
    pairs: list[Pair] = []
    while len(pairs) < plan.pairs:
        models = plan.block * (len(pairs) + 1)
        command = f"memscore.estimate {plan.bank}{plan.place} --models {models}"
        pairs.append({side: run_command(side, f"{command} --store {work / side}") for side in take_turns(len(pairs))})
        print(f"bank, {models} models: {json.dumps(pairs[-1])}", flush=True)
        scores = {side: read_bank(side, work / side) for side in SIDES}
        found = {
            "options": plan.bank,
            "models": models,
            "test_accuracy": {side: accuracy for side, (accuracy, _) in scores.items()},
            "correlation_of_memorization": pearson(*(memorization for _, memorization in scores.values())),
            **{f"{what}_total_before_over_now": compute_total_ratio(pairs, what) for what in SECONDS},
            **compare(pairs),
        }
        save_part("bank", found, plan.results)


def measure_trials(names: Sequence[str], plan: Plan, work: Path) -> None:
    """Run trials on two copies of one bank, in turns."""
    if plan.store is None:
        run_command("now", f"memscore.estimate {plan.bank}{plan.place} --models {plan.block} --store {work / 'bank'}")
    for side in SIDES:
        shutil.copytree(plan.store or work / "bank", work / side)
    pairs: dict[str, list[Pair]] = {name: [] for name in names}
    for number in range(plan.rounds + 1):
        for name in names:
            options = f"{TRIALS[name]} {plan.forget} --seed {number}"
            pairs[name].append({
                side: run_command(side, f"unlearn.trial {work / side} {options}{plan.place}")
                for side in take_turns(number)
            })
            print(f"round {number}, {name}: {json.dumps(pairs[name][-1])}", flush=True)
            if number:  # in the first round the oracles of the most memorized examples are trained
                save_part(name, {"options": options, **compare(pairs[name][1:])}, plan.results)


def save_part(name: str, found: dict[str, Any], folder: Path) -> None:
    """Write one part's results beside those of the others."""
    path = folder / "cnn_end_to_end.json"
    earlier = json.loads(path.read_text())["parts"] if path.exists() else {}
    what = "whole commands, one process and thread; before: torch's convolutions, now: compiled ones"
    save("cnn_end_to_end", {"what": what, "parts": earlier | {name: found}}, folder=folder, quiet=True)


def take_turns(number: int) -> list[str]:
    """Name both sides, in the order of this round."""
    return list(SIDES) if number % 2 else list(SIDES)[::-1]


def run_command(side: str, words: str) -> dict[str, float]:
    """Run one command and return its wall and CPU seconds; RuntimeError with its last lines if it fails."""
    done, seconds = run_timed([sys.executable, *SIDES[side], *words.split()], ROOT)
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise RuntimeError(f"{side}: `{words}` ended with {done.returncode}:\n{last}")
    return seconds


def read_bank(side: str, url: Path) -> tuple[float, np.ndarray]:
    """Mean test accuracy and memorization of a bank; RuntimeError if other convolutions trained its models."""
    engines = count_engines(Store.open(str(url)).folder)
    if set(engines) != {ENGINES[side]}:
        raise RuntimeError(f"{side}: the engines are {sorted(engines)}, not {ENGINES[side]}")
    table = pq.read_table(url / "scores.parquet").to_pandas()
    accuracies = pq.read_table(url / "models.parquet").to_pandas()["accuracy_test"]
    return float(accuracies.mean()), table["memorization_k0.500"].to_numpy(np.float64)


def compute_total_ratio(pairs: Sequence[Pair], what: str) -> float:
    """Divide all seconds before by all seconds now."""
    before, now = (sum(pair[side][what] for pair in pairs) for side in SIDES)
    return before / now


def compare(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Summarize the seconds of both sides and the ratios within each pair."""
    return {
        what: {
            **{side: spread([pair[side][what] for pair in pairs]) for side in SIDES},
            "before_over_now": spread([pair["before"][what] / pair["now"][what] for pair in pairs]),
        }
        for what in SECONDS
    }


if __name__ == "__main__":
    tyro.cli(main)
