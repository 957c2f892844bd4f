"""Claim: how many models each design and each statistic of memorization needs for RMSE .05 and for a top overlap of .9.

    python -m benchmarks.estimator_efficiency --folder DIR [--workers 2] [--data digits fashion-mnist] [--quick]

Digits (1,000 examples, 10 % of the labels wrong, MLP 64-128-10) and Fashion-MNIST (2,000 examples, MLP 784-128-10).
Every design is trained several times over at 16, 32 and 64 models, each time whole blocks of so many; 128 and 256 are
blocks of 64 together. The estimates are compared with a large iid bank of the same keep, of which they hold no model:
counts and probit with its counts, probability with its probability. `noise` is how estimates of one size differ among
themselves; `bias` is how far their mean is from the reference beyond what noise explains, near 0 where there is none.
Banks are kept in the folder: the same command goes on where it was. --quick is a tiny run to see that it works; it
writes into the folder only.
"""

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import tyro

from benchmarks.results_file import save
from cluster.launch import PoolOptions, open_ray_pool
from memscore.data.splits import build_examples_table
from memscore.estimators.memorization import MEMORIZATION_PROBABILITY, MEMORIZATION_PROBIT, memorization
from memscore.estimators.statistic import compute_table
from memscore.pipeline.config import BankConfig
from memscore.pipeline.runner import prepare_arms, prepare_bank
from memscore.pipeline.train_bank import Pool, train_missing
from memscore.plots.bank import create_figure, encode_png
from memscore.statistics.correlation import TOP_FRACTION, rmse, top_overlap
from memscore.tables.progress_bar import ProgressBar

WISH, OVERLAP = 0.05, 0.9
PICTURE = Path(__file__).parents[1] / "docs" / "estimator-efficiency.png"
STATISTICS = {"counts": "counts", "probability": "probability", "probit": "counts"}  # each with its reference
DATA: dict[str, dict[str, Any]] = {
    "digits": {"train_limit": 1000, "validation": 0, "label_noise": 0.1, "arch": "mlp-128"},
    "fashion-mnist": {"train_limit": 2000, "validation": 0, "arch": "mlp-128", "recipe": "digits", "batch": 64},
}
DESIGNS: dict[str, dict[str, Any]] = {
    "iid .5": {"design": "iid", "keep": 0.5},
    "iid .7": {"design": "iid", "keep": 0.7},
    "exact .5": {"design": "exact", "keep": 0.5},
    "orthogonal .5, pixels": {"design": "orthogonal", "keep": 0.5, "clusters": "pixels"},
    "orthogonal .5, pilot": {"design": "orthogonal", "keep": 0.5, "clusters": "pilot"},
    "orthogonal .75, pixels": {"design": "orthogonal", "keep": 0.75, "clusters": "pixels"},
}
REFERENCE = {"digits": 1536, "fashion-mnist": 1024}  # models of each iid bank
TIMES = {"digits": 8, "fashion-mnist": 4}  # repetitions
SIZES = (16, 32, 64)  # models a repetition
SIZES_OF = {"orthogonal .75, pixels": (16, 64)}  # its arrays have powers of 4

Said = dict[str, np.ndarray]


def main(folder: Path, workers: int = 2, data: tuple[str, ...] = tuple(DATA), quick: bool = False) -> None:
    """Train what is missing, and measure.

    Args:
        folder: where the banks lie or are to be made.
        workers: that train at once.
        data: which data sets.
        quick: a tiny run; its numbers mean nothing.
    """
    found = {}
    with open_ray_pool(PoolOptions(workers=workers, device="cpu")) as session:
        for name in data:
            found[name] = efficiency(
                folder / name, BankConfig(data=name, **DATA[name] | smaller(quick)), session.pool, quick
            )
    what = "digits (1,000, 10 % wrong labels) and Fashion-MNIST (2,000), MLPs with 128 hidden units"
    measured = {"what": what, "wish": WISH, "overlap": OVERLAP, "top_share": TOP_FRACTION, "data": found}
    if quick:
        (folder / "quick.json").write_text(json.dumps(measured, indent=2))
        (folder / "quick.png").write_bytes(picture(found))
        print(json.dumps(measured, indent=2))
        return
    PICTURE.write_bytes(picture(found))
    save("estimator_efficiency", measured)


def smaller(quick: bool) -> dict[str, Any]:
    """What a quick run changes."""
    return {"train_limit": 200, "epochs": 2, "batch": 16} if quick else {}


def efficiency(folder: Path, plan: BankConfig, pool: Pool, quick: bool) -> dict[str, Any]:
    """One data set: by design and statistic, models needed, error at each size, bias."""
    many, times = (96, 2) if quick else (REFERENCE[plan.data], TIMES[plan.data])
    reference = {}
    for keep in sorted({design["keep"] for design in DESIGNS.values()}):
        asked = {"design": "iid", "keep": keep, "store": str(folder / f"iid-{keep}")}
        reference[keep] = said_by(plan, asked, many, pool)
    found = {}
    for name, design in DESIGNS.items():
        said, keep = {}, design["keep"]
        sizes = SIZES_OF.get(name, SIZES)
        for size in sizes:
            kind = f"{design['design']}-{design.get('clusters', '')}{keep}"
            place = {"store": str(folder / (kind if design["design"] == "iid" else f"{kind}-b{size}"))}
            if design["design"] == "iid":  # models of the reference's bank beyond it
                beyond = said_by(plan, design | place, many + times * sizes[-1], pool)
                said[size] = {key: values[many:][: times * size] for key, values in beyond.items()}
            else:
                said[size] = said_by(plan, design | place | {"block": size}, times * size, pool)
        found[name] = {
            statistic: compared(statistic, said, reference[keep], of) for statistic, of in STATISTICS.items()
        }
    return found


def said_by(plan: BankConfig, design: dict[str, Any], models: int, pool: Pool) -> Said:
    """Train what a bank lacks, and give what its first models say of all training examples, [M, N]."""
    bank = prepare_bank(BankConfig(**vars(plan) | design | {"models": models, "originals": 0}))
    bank.store.create_files(build_examples_table(bank.splits))
    with bank.store.lock(), ProgressBar(Path(bank.store.url).name) as meter:
        filled = train_missing(bank.store, bank.arms, models, prepare_arms(bank, pool), pool, progress=meter)
    arm = bank.arms[0].name
    if filled.failed or len(filled.shards[arm]) < models:
        raise RuntimeError(f"{len(filled.shards[arm])} of {models} models of {arm} could be trained; run it again")
    columns = ["correct", "member", "logit_confidence", "gap"]
    parts = [block.columns for block in bank.store.read_blocks(arm, range(models), columns)]
    return {column: np.concatenate([part[column] for part in parts], axis=1) for column in columns}


def estimate(statistic: str, said: Said, models: slice) -> np.ndarray:
    """[N]: one statistic from some of the models."""
    member = said["member"][models]
    if statistic == "counts":
        return memorization(said["correct"][models], member)
    if statistic == "probability":
        return compute_table(MEMORIZATION_PROBABILITY, said["logit_confidence"][models], member)["value"]
    return compute_table(MEMORIZATION_PROBIT, said["gap"][models], member)["value"]


def compared(statistic: str, said: dict[int, Said], reference: Said, of: str) -> dict[str, Any]:
    """One design and statistic: errors at each size, and where they cross what is wished."""
    models = len(reference["member"])
    truth = estimate(of, reference, slice(None))
    halves = [estimate(of, reference, half) for half in (slice(models // 2), slice(models // 2, None))]
    of_truth = rmse(*halves) / 2
    largest, by_models = max(said), {}
    for size in (*said, 2 * largest, 4 * largest):
        own = said[min(size, largest)]
        starts = range(0, len(own["member"]) - size + 1, size)
        if len(starts) > 1:
            each = np.array([estimate(statistic, own, slice(start, start + size)) for start in starts])
            by_models[size] = errors(each, truth, of_truth)
    first = estimate_blocks(statistic, reference, largest, len(said[largest]["member"]) // largest)
    return {
        "models_for_rmse": crossing({m: e["rmse"]["mean"] for m, e in by_models.items()}, WISH, falling=True),
        "models_for_top": crossing({m: e["top"]["mean"] for m, e in by_models.items()}, OVERLAP, falling=False),
        "variance_of_iid_over_own": (noise_of(first) / by_models[largest]["noise"]) ** 2 if len(first) > 1 else None,
        "reference": {"models": models, "rmse": of_truth},
        "by_models": {str(m): numbers for m, numbers in by_models.items()},
    }


def estimate_blocks(statistic: str, said: Said, size: int, times: int) -> np.ndarray:
    """[times, N]: the statistic from consecutive sets of models, as many as there are."""
    times = min(times, len(said["member"]) // size)
    return np.array([estimate(statistic, said, slice(t * size, (t + 1) * size)) for t in range(times)])


def errors(each: np.ndarray, truth: np.ndarray, of_truth: float) -> dict[str, Any]:
    """Estimates [B, N] of one size against the reference and among themselves; undefined ones are left out."""
    to_truth, top = [rmse(one, truth) for one in each], [top_overlap(one, truth) for one in each]
    noise = noise_of(each)
    off, expected = rmse(each.mean(0), truth), np.hypot(noise / np.sqrt(len(each)), of_truth)
    return {
        "replicates": len(each),
        "rmse": {"mean": float(np.sqrt(np.mean(np.square(to_truth)))), "sd": float(np.std(to_truth, ddof=1))},
        "top": {"mean": float(np.mean(top)), "sd": float(np.std(top, ddof=1))},
        "noise": noise,
        "mean_to_reference": off,
        "mean_to_reference_if_unbiased": float(expected),
        "bias": float(np.sqrt(max(off**2 - expected**2, 0))),
        "undefined": float(np.isnan(each).mean()),
    }


def noise_of(each: np.ndarray) -> float:
    """Root mean variance of estimates [B, N] over their repetitions, over examples that all of them define."""
    variance = each.var(0, ddof=1)
    return float(np.sqrt(np.nanmean(variance)))


def crossing(values: dict[int, float], wish: float, *, falling: bool) -> float | None:
    """The models at which a curve reaches the wish, straight between sizes in log models (and log error).

    The smallest size where that has reached it already; None where the largest has not.
    """
    turned = {m: (np.log(wish) - np.log(v)) if falling else v - wish for m, v in values.items()}
    below = None
    for models, ahead in sorted(turned.items()):
        if ahead >= 0:
            if below is None:
                return float(models)
            share = -turned[below] / (ahead - turned[below])
            return float(np.exp(np.log(below) + share * (np.log(models) - np.log(below))))
        below = models
    return None


COUNTS, ERRORS = (16, 32, 64, 128, 256), (0.02, 0.05, 0.1)  # where the axes of the picture are marked


def picture(found: dict[str, Any]) -> bytes:
    """RMSE against models: a row a data set, a panel a statistic, a line a design."""
    figure = create_figure(9.5, 3 * len(found))
    colours = mpl.colormaps["tab10"].colors  # type: ignore[attr-defined]
    panels = np.atleast_2d(figure.subplots(len(found), len(STATISTICS), sharex=True, sharey=True))
    for row, (data, designs) in zip(panels, found.items(), strict=True):
        for axis, statistic in zip(row, STATISTICS, strict=True):
            for number, (design, said) in enumerate(designs.items()):
                points = {int(m): e["rmse"]["mean"] for m, e in said[statistic]["by_models"].items()}
                style = {"color": colours[number], "label": design, "linewidth": 1.3, "markersize": 3}
                axis.plot(list(points), list(points.values()), marker="o", **style)
            axis.axhline(WISH, color="#94a3b8", linestyle="--", linewidth=0.8)
            axis.set(xscale="log", yscale="log", title=f"{data}, {statistic}", xlabel="models")
            axis.set_xticks(COUNTS, [str(count) for count in COUNTS])
            axis.set_yticks(ERRORS, [str(error) for error in ERRORS])
            axis.minorticks_off()
        row[0].set_ylabel("RMSE to the iid reference")
    panels[0, 0].legend(frameon=False, fontsize=7)
    return encode_png(figure)


if __name__ == "__main__":
    tyro.cli(main)
