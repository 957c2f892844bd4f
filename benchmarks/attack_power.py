"""Claim: which attack detects most members at a low false positive rate, by data set, network and number of models.

    python -m benchmarks.attack_power --folder DIR

Six banks of iid subsets of one half: digits, Fashion-MNIST (2,500 images) and generated shapes in colour, each with an
MLP and with a small CNN. A bank of K models is K of them, every model in turn the target; disjoint groups of K are
replicates, of which the interval of each mean is. Winners are the attack with the highest mean and those whose paired
difference from it has an interval with 0: over replicates (t) where there are 8 or more, else over targets, its width
times 1.25, since targets share shadow models.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from scipy.special import stdtrit

from benchmarks.results_file import save
from memscore.pipeline.attack_runs import run_attack
from memscore.pipeline.attacks import ATTACKS
from memscore.store.store import Store

SHAPES = "--data benchmarks.shapes_data:generate_shapes"
FASHION = "--data fashion-mnist --train-limit 2500"
BANKS = {
    "digits-mlp": "--data digits --arch mlp --models 512",
    "digits-cnn": "--data digits --arch cnn-8-16 --models 256",
    "fashion-mlp": f"{FASHION} --arch mlp-256 --epochs 40 --models 512",
    "fashion-cnn": f"{FASHION} --arch cnn-8-16 --epochs 30 --batch 64 --models 128",
    "shapes-mlp": f"{SHAPES} --arch mlp --recipe digits --models 512",
    "shapes-cnn": f"{SHAPES} --arch cnn-8-16 --recipe digits --epochs 20 --models 128",
}
SIZES = (4, 8, 16, 64, 256)
MEASURES = ("auc", "tpr_at_0.01", "tpr_at_0.001")
REPLICATES = 16  # at most, of each size
LEAST_REPLICATES = 8  # for an interval over them
WIDER = 1.25  # an interval over targets, which share shadow models


def main(folder: Path, banks: tuple[str, ...] = tuple(BANKS)) -> None:
    """Train the banks that are missing, attack parts of them, and write down who wins.

    Args:
        folder: where the banks lie or are to be made.
        banks: which of them.
    """
    measured = {}
    for name in banks:
        flags = f"{BANKS[name]} --design iid --store {folder / name}"
        subprocess.run([sys.executable, "-m", "memscore.estimate", *flags.split()], check=True)
        measured[name] = attack_bank(Store.open(str(folder / name)))
    save("attack_power", {"what": "iid subsets of one half, every model in turn as target", "banks": measured})


def attack_bank(bank: Store) -> dict[str, Any]:
    """Attack disjoint groups of each size; by size and measure the attacks' means and the winners."""
    arm = next(iter(bank.arms()))
    indices = sorted(bank.find_valid_shards(arm))
    found: dict[str, Any] = {}
    for size in SIZES:
        groups = [indices[start : start + size] for start in range(0, len(indices) - size + 1, size)][:REPLICATES]
        # score -> measure -> one array over the targets of each group
        targets: dict[str, dict[str, list[np.ndarray]]] = {}
        for group in groups:
            for attack in ATTACKS.values():
                for score, curve in run_attack(bank, arm, group, attack).curves.items():
                    for measure in MEASURES:
                        values = curve.measures[measure].per_target
                        targets.setdefault(score, {}).setdefault(measure, []).append(values)
        found[str(size)] = {"replicates": len(groups)} | {
            measure: compare({score: rates[measure] for score, rates in targets.items()}) for measure in MEASURES
        }
        print_best(bank.folder.display_name, size, found[str(size)])
    return found


def compare(targets: dict[str, list[np.ndarray]]) -> dict[str, Any]:
    """Compute each attack's mean with its interval, and the winners; an undefined mean is null."""
    means = {score: compute_interval(groups) for score, groups in targets.items()}
    defined = {score: mean for score, mean in means.items() if not np.isnan(mean[0])}
    winners = []
    if defined:
        best = max(defined, key=lambda score: defined[score][0])
        for score in defined:
            differences = [own - other for own, other in zip(targets[best], targets[score], strict=True)]
            if score == best or not compute_interval(differences)[1] > 0:
                winners.append(score)
    return {
        "attacks": {score: [None if np.isnan(number) else number for number in mean] for score, mean in means.items()},
        "winners": sorted(winners, key=lambda score: -defined[score][0]),
    }


def compute_interval(groups: list[np.ndarray]) -> tuple[float, float, float]:
    """Compute the mean over groups and its 95 % interval."""
    over_groups = len(groups) >= LEAST_REPLICATES
    values = np.array([np.nanmean(group) if len(group) else np.nan for group in groups])
    value = float(values.mean())
    units = values if over_groups else np.concatenate(groups)
    units = units[~np.isnan(units)]
    if np.isnan(value) or len(units) < 2:
        return value, float("nan"), float("nan")
    reach = stdtrit(len(units) - 1, 0.975) * units.std(ddof=1) / np.sqrt(len(units)) * (1 if over_groups else WIDER)
    return value, value - float(reach), value + float(reach)


def print_best(bank: str, size: int, found: dict[str, Any]) -> None:
    """Print the winners of one size."""
    for measure in MEASURES:
        attacks, winners = found[measure]["attacks"], found[measure]["winners"]
        numbers = ", ".join(f"{score} {attacks[score][0]:.4f}" for score in winners) or "not realisable"
        sys.stdout.write(f"{bank}, {size} models, {measure}: {numbers}\n")


if __name__ == "__main__":
    tyro.cli(main)
