"""Claim: what a bank of small CNNs says of 10,000 Fashion-MNIST images, and how well each score finds wrong labels.

    python -m benchmarks.fashion_bank --folder DIR [--clean-models 192] [--noise-models 128]

Two banks, one with true labels and one with 5 % of them flipped, orthogonal subsets of one half. Both commands resume,
so a folder that holds finished banks is only read. The gallery of the first bank goes to docs/most-memorized.png.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks.results_file import save, spread
from memscore.store.store import Store

FLAGS = "--data fashion-mnist --train-limit 10000"
NOISE = "--label-noise 0.05 --bank-events --evaluation-events"
PICTURE = Path(__file__).parents[1] / "docs" / "most-memorized.png"


def main(folder: Path, clean_models: int = 192, noise_models: int = 128) -> None:
    """Fill both banks and write down what they say.

    Args:
        folder: where the banks lie or are to be made.
        clean_models: of the first, whole blocks of 64.
        noise_models: of the second.
    """
    for name, more, models in (("clean", "", clean_models), ("noise", NOISE, noise_models)):
        command = [sys.executable, "-m", "memscore.estimate", *FLAGS.split(), *more.split()]
        subprocess.run([*command, "--models", str(models), "--store", str(folder / name)], check=True)
    PICTURE.parent.mkdir(exist_ok=True)
    shutil.copyfile(folder / "clean" / "reports" / "most_memorized_k0.500.png", PICTURE)
    save(
        "fashion_bank",
        {
            "what": "Fashion-MNIST, 10,000 images, small CNN, orthogonal models, keep 0.5",
            "clean": said_of(folder / "clean"),
            "noise": said_of(folder / "noise"),
        },
    )


def said_of(url: Path) -> dict[str, Any]:
    """Accuracies, shares of memorized examples, attack and detection numbers of one bank."""
    store = Store.open(str(url))
    summary = json.loads((url / "reports" / "summary.json").read_text())
    receipts = [receipt for name, receipt in store.receipts().items() if name.startswith("orthogonal")]
    memorization = store.read_score("memorization_k0.500")["memorization_k0.500"].to_numpy().astype(float)
    shares = {}
    for bound in (0.25, 0.5):
        share = float(np.mean(memorization > bound))
        shares[f"above_{bound}"] = share
    accuracies = {group: spread([r["accuracy"][group] for r in receipts]) for group in ("members", "left_out", "test")}
    return {
        "models": len(receipts),
        "train_examples": len(memorization),
        "accuracy": accuracies,
        "seconds_per_model": spread([r["seconds"] for r in receipts]),
        "memorization_mean": float(memorization.mean()),
        "share": shares,
        "memorization_rmse": summary["arms"][0]["memorization_rmse"],
        "attacks": summary["arms"][0]["attacks"],
        "auroc_for_changed_labels": summary["auroc_for_changed_labels"],
    }


if __name__ == "__main__":
    tyro.cli(main)
