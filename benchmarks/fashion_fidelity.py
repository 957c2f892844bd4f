"""Claim: how well cheap scores stand in for memorization in a bank of small CNNs, and what they cost.

    python -m benchmarks.fashion_fidelity --folder DIR [--models 192] [--candidates 1000]

The clean bank of benchmarks/fashion_bank.py, with every proxy on three originals; the command resumes. Seconds are of
one worker of a machine that does other things too: read them as ratios.
"""

import json
import subprocess
import sys
from pathlib import Path

import tyro

from benchmarks.fashion_bank import FLAGS
from benchmarks.results_file import save


def main(folder: Path, models: int = 192, candidates: int = 1000) -> None:
    """Compute what is missing and write down what fidelity says.

    Args:
        folder: where the bank lies or is to be made, as clean/.
        models: of the bank.
        candidates: of gradient inversion.
    """
    store = str(folder / "clean")
    asked = f"--models {models} --proxies all --inversion-candidates {candidates} --attacks lira rmia lira-top-gap"
    estimate = [sys.executable, "-m", "memscore.estimate", *FLAGS.split(), *asked.split(), "--store", store]
    subprocess.run(estimate, check=True)
    subprocess.run([sys.executable, "-m", "memscore.fidelity", store], check=True)
    found = json.loads((folder / "clean" / "reports" / "fidelity_k0.500.json").read_text())
    said = found["standings"]
    save(
        "fashion_fidelity",
        {
            "what": f"Fashion-MNIST, 10,000 images, small CNN, {models} orthogonal models, 3 originals",
            "reliability": said["reliability"],
            "bank_s": said["bank_s"],
            "training_s": said["training_s"],
            "standings": {row.pop("score"): row for row in said["rows"]},
            "gini": found["gini"],
            "trends": said["trends"] + [trend for signals in found["signals"] for trend in signals["trends"]],
            "success_by_loss": found["signals"][0]["groups"],
        },
    )


if __name__ == "__main__":
    tyro.cli(main)
