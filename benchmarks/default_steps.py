"""Claim: with steps that fit the data most algorithms forget something by default, with the papers' numbers few do.

    python -m benchmarks.default_steps DIGITS FASHION [--sizes 60 200] [--seeds 3] [--workers 2] [--quick]

DIGITS and FASHION are banks of `python -m memscore.estimate` with `--data digits`, and with `--data fashion-mnist
--train-limit 6000 --arch mlp-256 --epochs 40`, both with `--models 64 --originals 3`. Every algorithm runs with its defaults, `--steps
paper` and `--steps scaled`, on the most memorized examples and on the same originals. "same" is a forget accuracy
within .03 of the original's, "destroyed" a retain accuracy more than .1 below it; means over originals.
"""

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
Steps = Literal["scaled", "paper"]


def main(
    stores: Annotated[tuple[str, str], tyro.conf.Positional],
    sizes: tuple[int, int] = (60, 200),
    seeds: int = 3,
    workers: int = 2,
    quick: bool = False,
) -> None:
    """Measure.

    Args:
        stores: banks of digits and of Fashion-MNIST.
        sizes: examples to forget of each.
        seeds: originals.
        workers: processes.
        quick: one original; only printed.
    """
    measured = {}
    with open_ray_pool(PoolOptions(workers=workers)) as session:
        for store, size in zip(stores, sizes, strict=True):
            found = measure_bank(store, size, 1 if quick else seeds, session.pool, session.device)
            show(found)
            measured[found["data"]] = found
    if not quick:
        save("default_steps", {"seeds": seeds, "same_within": SAME, "destroyed_below": MAX_RETAIN_LOSS, **measured})


def measure_bank(store: str, size: int, seeds: int, pool: Pool, device: str) -> dict[str, Any]:
    """Measure every algorithm on one bank, in both ways, beside the oracle and the original."""
    rows: dict[str, dict[str, Any]] = {}
    manifest = None
    for name in (name for name in ALGORITHMS if name not in {"original", "retrain"}):
        for steps in ("paper", "scaled"):
            trials = prepare_trials(make_request(store, size, seeds, name, steps))
            manifest = trials.context.store.manifest
            results = trials.run(pool, device)
            rows[f"{name} {steps}"] = summarize([row for row in results.rows if row["algorithm"] == name])
            rows |= {
                reference: summarize([row for row in results.rows if row["algorithm"] == reference])
                for reference in (ORACLE, "original")
            }
    assert manifest is not None  # there is at least one algorithm
    original = rows["original"]
    tally = {}
    for steps in ("paper", "scaled"):
        own = {name: row for name, row in rows.items() if name.endswith(f" {steps}")}
        tally[steps] = {
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
        "tally": tally,
        "rows": rows,
    }


def make_request(store: str, size: int, seeds: int, name: str, steps: Steps) -> TrialRequest:
    """Make the request of one algorithm with its defaults."""
    forget = "memorization_k0.500:high"
    return TrialRequest(store=store, algorithm=name, forget=forget, size=size, seeds=seeds, steps=steps)


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
    for steps, tally in found["tally"].items():
        console.print(steps, {kind: value if isinstance(value, int) else len(value) for kind, value in tally.items()})


if __name__ == "__main__":
    tyro.cli(main)
