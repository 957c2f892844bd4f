"""Claim: with steps that fit the data most algorithms forget something by default, with the papers' numbers few do.

    python -m benchmarks.default_steps DIGITS FASHION [--sizes 60 200] [--seeds 2 1] [--workers 2] [--quick]

DIGITS and FASHION are banks of `python -m memscore.estimate` with `--data digits`, and with `--data fashion-mnist
--train-limit 6000 --arch mlp-256 --epochs 40`, both with `--models 64 --originals 3`. Every algorithm runs on the most
memorized examples and on the same originals: "before" with the defaults of 0.1, which were the papers' epochs, batches
and learning rates; "now" with those of today. "same" is a forget accuracy within .03 of the original's, "destroyed" a
retain accuracy more than .1 below it; means over originals.
"""

from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from rich.console import Console

from benchmarks.results_file import save
from cluster.launch import PoolOptions, open_ray_pool
from cluster.pool import Pool
from memscore.tables.console import make_table
from unlearn.algorithms import ALGORITHMS
from unlearn.trials.config import ORACLE, Row
from unlearn.trials.prepare import prepare_trials
from unlearn.trials.request import TrialRequest
from unlearn.trials.tables import MAX_RETAIN_LOSS

SAME = 0.03
COLUMNS = ("steps", "rrt_examples", "forget_accuracy", "retain_accuracy", "accuracy_test", "tow_test")
Arm = Literal["before", "now"]
BEFORE = {
    "finetune": ("lr=0.03",),
    "gradient-ascent": ("lr=0.001", "epochs=5"),
    "boundary-shrink": ("lr=1e-5",),
    "boundary-shrink-plus": ("alpha=0.998", "forget_batch=128"),
    "boundary-expand": ("lr=1e-5",),
    "boundary-expand-plus": ("forget_batch=128",),
    "sure": ("forget_batch=256",),
    "ssd": ("alpha=10",),
    "l1-sparse": ("lr=0.02",),
    "scrub": ("lr=0.0005",),
    "scrub-rewind": ("lr=0.0005",),
    "bad-teacher": ("lr=0.0001", "epochs=1"),
}
"""Defaults of 0.1, beside the papers' epochs and batches, where others have come."""


def main(
    stores: Annotated[tuple[str, str], tyro.conf.Positional],
    sizes: tuple[int, int] = (60, 200),
    seeds: tuple[int, int] = (2, 1),
    workers: int = 2,
    quick: bool = False,
) -> None:
    """Measure.

    Args:
        stores: banks of digits and of Fashion-MNIST.
        sizes: examples to forget of each.
        seeds: originals of each.
        workers: processes.
        quick: one original; only printed.
    """
    measured = {}
    with open_ray_pool(PoolOptions(workers=workers)) as session:
        for store, size, n in zip(stores, sizes, seeds, strict=True):
            found = measure_bank(store, size, 1 if quick else n, session.pool, session.device)
            show(found)
            measured[found["data"]] = found
    if not quick:
        save("default_steps", {"same_within": SAME, "destroyed_below": MAX_RETAIN_LOSS, **measured})


def measure_bank(store: str, size: int, seeds: int, pool: Pool, device: str) -> dict[str, Any]:
    """Measure every algorithm on one bank, with both defaults, beside the oracle and the original."""
    rows: dict[str, dict[str, Any]] = {}
    manifest = None
    for name in (name for name in ALGORITHMS if name not in {"original", "retrain"}):
        for arm in ("before", "now"):
            trials = prepare_trials(make_request(store, size, seeds, name, arm))
            manifest = trials.context.store.manifest
            results = trials.run(pool, device)
            rows[f"{name} {arm}"] = summarize([row for row in results.rows if row["algorithm"] == name])
            rows |= {
                reference: summarize([row for row in results.rows if row["algorithm"] == reference])
                for reference in (ORACLE, "original")
            }
    assert manifest is not None  # there is at least one algorithm
    original = rows["original"]
    tally = {}
    for arm in ("before", "now"):
        own = {name: row for name, row in rows.items() if name.endswith(f" {arm}")}
        tally[arm] = {
            "algorithms": len(own),
            "same": [n for n, r in own.items() if abs(r["forget_accuracy"] - original["forget_accuracy"]) <= SAME],
            "destroyed": [
                n for n, r in own.items() if original["retain_accuracy"] - r["retain_accuracy"] > MAX_RETAIN_LOSS
            ],
            "nearer_than_original": [n for n, r in own.items() if r["tow_test"] > original["tow_test"]],
        }
    return {
        "data": manifest.data,
        "architecture": manifest.architecture,
        "training_examples": manifest.split_sizes[0],
        "recipe": manifest.recipe,
        "forget": size,
        "originals": seeds,
        "tally": tally,
        "rows": rows,
    }


def make_request(store: str, size: int, seeds: int, name: str, arm: Arm) -> TrialRequest:
    """Make the request of one algorithm with its defaults of then or of now."""
    request = TrialRequest(store=store, algorithm=name, forget="memorization_k0.500:high", size=size, seeds=seeds)
    return request if arm == "now" else replace(request, steps="paper", set=BEFORE.get(name, ()))


def summarize(rows: list[Row]) -> dict[str, Any]:
    """Means over originals, with the spread of ToW, and the resolved config."""
    means = {column: float(np.mean([row[column] for row in rows])) for column in COLUMNS}
    tow = [row["tow_test"] for row in rows]
    return {
        **means,
        "tow_min": float(np.min(tow)),
        "tow_max": float(np.max(tow)),
        "diverged": sum(row["status"] == "diverged" for row in rows),
        "config": rows[0]["config"],
    }


def show(found: dict[str, Any]) -> None:
    """Print a table, and the counts."""
    console = Console(width=160)
    table = make_table(f"{found['data']}, {found['training_examples']} examples", ("", *COLUMNS))
    for name, row in found["rows"].items():
        table.add_row(name, *(f"{row[column]:.3f}" for column in COLUMNS))
    console.print(table)
    for arm, tally in found["tally"].items():
        console.print(arm, {kind: value if isinstance(value, int) else len(value) for kind, value in tally.items()})


if __name__ == "__main__":
    tyro.cli(main)
