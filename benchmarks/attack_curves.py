"""Claim: what each attack makes of 16, 64 and 256 models of one bank.

    python -m benchmarks.attack_curves --store DIR

Digits, MLP, exact subsets of one half in blocks of 16, so the first 16 and 64 models are designs of their own. Every
model in turn is the target; AUC and the true positive rate at a false positive rate of 1 %, means over targets with
their 95 % t intervals. The curves go to docs/attack-curves.png, mean and central 95 % of the targets.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import tyro

from benchmarks.results_file import save
from memscore.pipeline.attack_runs import AttackCurve, run_attack
from memscore.pipeline.attacks import ATTACKS
from memscore.plots.bank import create_figure, draw_bands, encode_png
from memscore.store.store import Store

SIZES = (16, 64, 256)
COMPARED = ("lira", "lira-paper", "lira-released", "lira-top-gap", "rmia", "rmia-offline")
DRAWN = ("lira", "lira_paper", "rmia", "rmia_offline")
PICTURE = Path(__file__).parents[1] / "docs" / "attack-curves.png"


def main(store: Path) -> None:
    """Fill the bank and attack parts of it.

    Args:
        store: where the bank lies or is to be made.
    """
    flags = f"--design exact --block 16 --models {max(SIZES)} --store {store}"
    subprocess.run([sys.executable, "-m", "memscore.estimate", *flags.split()], check=True)
    bank = Store.open(str(store))
    arm = next(iter(bank.arms()))
    indices = sorted(bank.find_valid_shards(arm))
    found: dict[int, dict[str, AttackCurve]] = {}
    for size in SIZES:
        found[size] = {}
        for name in COMPARED:
            found[size] |= run_attack(bank, arm, indices[:size], ATTACKS[name])[1]
    PICTURE.write_bytes(picture(found))
    save(
        "attack_curves",
        {
            "what": "digits, MLP, exact subsets of one half, every model in turn as target",
            "models": {
                str(size): {name: numbers(curve) for name, curve in curves.items()} for size, curves in found.items()
            },
        },
    )


def numbers(curve: AttackCurve) -> dict[str, list[float] | int]:
    """Value and interval of each measure."""
    return {"targets": curve.targets} | {key: [m.value, m.lo, m.hi] for key, m in curve.measures.items()}


def picture(found: dict[int, dict[str, AttackCurve]]) -> bytes:
    """A panel for each number of models, log axes."""
    figure = create_figure(4 * len(found), 3.8)
    axes = np.atleast_1d(figure.subplots(1, len(found), sharey=True))
    for axis, (size, curves) in zip(axes, found.items(), strict=True):
        draw_bands(axis, {name: curves[name].band for name in DRAWN})
        axis.set(title=f"{size} models")
    figure.axes[0].set_ylabel("true positive rate")
    return encode_png(figure)


if __name__ == "__main__":
    tyro.cli(main)
