"""Claim: every reduction over a bank costs time in proportion to its models x examples, in bounded memory.

    python -m benchmarks.scoring_speed [--repeats 3] [--quick]

Synthetic banks of noise are written; for each reduction and size a fresh process reads the bank block by block and
reduces it, so its peak memory (VmHWM) is all it ever took, imports included. Mcell/s are models x training examples,
for influence training x test examples, a second of CPU time. Exponents are slopes of log seconds against log models
(examples fixed) and log examples (models fixed), with their standard errors; 1 is proportional. `reading` reads what
the statistics read and does nothing with it. The picture goes to docs/scoring-speed.png. --quick is a tiny run that
only prints and draws into a temporary folder.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import tyro

from benchmarks.reduction_memory import noise_manifest
from benchmarks.results_file import save, spread
from benchmarks.scoring_reductions import ARM, REDUCTIONS
from memscore.plots.bank import create_figure, encode_png
from memscore.store.parquet import to_table
from memscore.store.shards import format_model_name
from memscore.store.store import Store

PICTURE = Path(__file__).parents[1] / "docs" / "scoring-speed.png"
MODELS, EXAMPLES = (64, 128, 256, 512, 1024), (2_500, 5_000, 10_000, 20_000)
FIXED = (256, 10_000)  # models where examples grow, examples where models grow
OTHERS = 1_000  # validation examples, which RMIA compares with, and as many test examples, influence's targets


def main(repeats: int = 3, quick: bool = False) -> None:
    """Measure.

    Args:
        repeats: of each reduction, in one process.
        quick: tiny banks; the numbers mean nothing.
    """
    models, examples, fixed = ((16, 32), (500, 1000), (16, 500)) if quick else (MODELS, EXAMPLES, FIXED)
    points: dict[str, dict[tuple[int, int], dict[str, Any]]] = {name: {} for name in REDUCTIONS}
    with tempfile.TemporaryDirectory() as folder:
        for n in examples:
            url = f"{folder}/{n}"
            sizes = models if n == fixed[1] else (fixed[0],)
            synthetic(url, max(sizes), n, OTHERS // 10 if quick else OTHERS)
            for m in sizes:
                for name in REDUCTIONS:
                    points[name][m, n] = in_own_process(url, name, m, n, repeats)
    found = {name: summary(measured, fixed) for name, measured in points.items()}
    what = f"{models} models at {fixed[1]} examples, {examples} examples at {fixed[0]} models, one thread"
    if quick:
        print(json.dumps({"what": what, "reductions": found}, indent=2))
        place = Path(tempfile.mkdtemp()) / "scoring-speed.png"
        place.write_bytes(picture(points, fixed))
        print(f"drawn to {place}")
        return
    PICTURE.write_bytes(picture(points, fixed))
    save("scoring_speed", {"what": what, "others": OTHERS, "reductions": found})


def in_own_process(url: str, name: str, models: int, examples: int, repeats: int) -> dict[str, Any]:
    """CPU seconds, cells a CPU second and peak memory of one reduction."""
    asked = json.dumps({"url": url, "name": name, "models": models, "repeats": repeats})
    command = [sys.executable, "-m", "benchmarks.scoring_reductions", asked]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    cells = examples * (OTHERS if name == "influence" else models) / 1e6
    return {
        "models": models,
        "examples": examples,
        "seconds": spread(found["seconds"]),
        "mcell_per_s": cells / float(np.median(found["seconds"])),
        "imports_mb": found["imports_mb"],
        "peak_mb": found["peak_mb"],
    }


def summary(points: dict[tuple[int, int], dict[str, Any]], fixed: tuple[int, int]) -> dict[str, Any]:
    """One reduction: its points, and how its seconds grow."""
    along = {"models": (0, {p: v for p, v in points.items() if p[1] == fixed[1]})}
    along["examples"] = (1, {p: v for p, v in points.items() if p[0] == fixed[0]})
    return {
        **{
            f"exponent_of_{axis}": slope([(p[position], v["seconds"]["median"]) for p, v in some.items()])
            for axis, (position, some) in along.items()
        },
        "peak_mb": max(point["peak_mb"] for point in points.values()),
        "points": list(points.values()),
    }


def slope(pairs: list[tuple[int, float]]) -> dict[str, float | None]:
    """Least squares of log seconds on log size, with the slope's standard error; none from two points."""
    x, y = np.log(np.array(pairs, float)).T
    x = x - x.mean()
    value = float((x * y).sum() / (x * x).sum())
    left = y - y.mean() - value * x
    error = float(np.sqrt((left**2).sum() / (len(x) - 2) / (x * x).sum())) if len(x) > 2 else None
    return {"value": value, "se": error}


def picture(points: dict[str, dict[tuple[int, int], dict[str, Any]]], fixed: tuple[int, int]) -> bytes:
    """Seconds against models and against examples, and peak memory against models."""
    figure = create_figure(12, 4)
    axes = figure.subplots(1, 3)
    colours = mpl.colormaps["tab20"].colors  # type: ignore[attr-defined]
    for number, (name, measured) in enumerate(points.items()):
        by_models = sorted((m, point) for (m, n), point in measured.items() if n == fixed[1])
        by_examples = sorted((n, point) for (m, n), point in measured.items() if m == fixed[0])
        style = {"color": colours[number], "label": name, "marker": "o", "markersize": 3, "linewidth": 1.2}
        for axis, line, of in ((axes[0], by_models, "s"), (axes[1], by_examples, "s"), (axes[2], by_models, "mb")):
            read = [point["seconds"]["median"] if of == "s" else point["peak_mb"] for _, point in line]
            axis.plot([size for size, _ in line], read, **style)
    for axis, size, what in zip(axes, ("models", "examples", "models"), ("seconds", "seconds", "peak MB"), strict=True):
        axis.set(xscale="log", yscale="linear" if what == "peak MB" else "log", xlabel=size, ylabel=what)
        place = {
            "models": [m for m, n in measured if n == fixed[1]],
            "examples": [n for m, n in measured if m == fixed[0]],
        }
        axis.set_xticks(sorted(place[size]), labels=[f"{number:,}" for number in sorted(place[size])])
        axis.minorticks_off()
    axes[2].set_ylim(bottom=0)
    axes[0].legend(frameon=False, fontsize=6, ncol=2)
    return encode_png(figure)


def synthetic(url: str, models: int, examples: int, others: int) -> None:
    """A bank of noise in which members are a little surer, with validation and test examples."""
    rows = np.arange(examples + 2 * others, dtype=np.int32)
    store = Store.create(
        url,
        noise_manifest((examples, others, others)),
        to_table({"row": rows, "id": np.array([f"{row:08d}" for row in rows])}, {}),
    )
    store.add_arm({"name": ARM, "design": "exact", "keep": 0.5, "block": 64, "clusters": None})
    rng = np.random.default_rng(0)
    for model in range(models):
        member = (rng.random(len(rows)) < 0.5) & (rows < examples)
        phi = rng.normal(2, size=len(rows)).astype(np.float32) + member
        columns = {"row": rows, "member": member, "correct": phi > 0}
        columns |= {"logit_confidence": phi, "gap": phi, "top_gap": np.abs(phi)}
        store.write_shard(format_model_name(ARM, model), ARM, columns)


if __name__ == "__main__":
    tyro.cli(main)
