"""Claim: the blend of counts and probit takes 1.25 to 1.7 times fewer models than counts for one RMSE, to 128 models.

Beside it the regression of held-out counts over examples (stacked), whose RMSE is smaller and which shrinks.

    python -m benchmarks.blend_efficiency --folder DIR [--cases NAME ...] [--fashion-folder DIR] [--quick]

Digits (1,000 examples, 10 % of the labels wrong) with an MLP 64-128-10 at keep .5 (iid and orthogonal), .7 and .75, and
with a small CNN; Fashion-MNIST with 10,000 examples and an MLP; and a bank of 10,000 examples whose gaps are drawn from
those of the digits' reference bank, so that its memorization is known exactly. Estimates from 16 to 256 models, several
times each from other models, are compared with the counts of a large iid bank of the same keep that holds none of them;
RMSE is corrected for its noise. For each it says the weight of the counts beside the best one, the RMSE that the blend
forecasts of itself and of other numbers of models, the error of the truly most memorized 6.7 % and how many of them
each estimate has in its own top, and how often the interval covers the reference (of stacked the one that jackknife and
mean bias would give): over all examples, and over those with a memorization above .05 that models without them get
right in 2 % or more; the reference's own noise is not subtracted there. Cases that are not measured keep their stored
results, each with its date. Banks are kept in the folder: the same command goes on where it was. --quick is a tiny run
to see that it works; it writes into the folder only.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tyro
from scipy.special import ndtri

from benchmarks.estimator_efficiency import DATA, crossing, said_by
from benchmarks.results_file import RESULTS, save
from cluster.pool import SerialPool
from memscore.estimators.memorization import memorization
from memscore.estimators.memorization_blend import BLENDED, estimate_blend
from memscore.estimators.memorization_stacked import (
    StackedFit,
    complete_stacked,
    compute_stacked_columns,
    draw_stacked_sets,
    fit_stacked,
    sum_for_stacked,
)
from memscore.estimators.statistic import compute_table
from memscore.pipeline.config import BankConfig
from memscore.statistics.correlation import TOP_FRACTION, top_overlap
from memscore.statistics.reliability import draw_random_halves

WISHES = (0.05, 0.03)
ESTIMATES = ("counts", "probit", "blend", "stacked")
SIZES = (16, 32, 64, 128, 256)
REPLICATES = 8
DRAWN = 10_000
MLP = {"data": "digits"} | DATA["digits"]
CNN = MLP | {"arch": "cnn-8-16", "epochs": 10}
FASHION = {"data": "fashion-mnist"} | DATA["fashion-mnist"] | {"train_limit": 10_000, "batch": 128, "epochs": 10}
FASHION_2000 = FASHION | {"train_limit": 2_000, "batch": 64, "epochs": 15}
FASHION_CNN = FASHION_2000 | {"arch": "cnn-8-16", "epochs": 10}

Outputs = dict[str, np.ndarray]


class Bank(NamedTuple):
    """A bank of one design: how its subsets are drawn, and models in it."""

    design: dict[str, Any]
    models: int


class Case(NamedTuple):
    """A training configuration, its iid reference bank, and the banks whose estimates are compared with it."""

    folder: str
    config: dict[str, Any]
    keep: float
    reference: int
    banks: dict[str, tuple[Bank, ...]]


def orthogonal(keep: float, *sizes: tuple[int, int]) -> tuple[Bank, ...]:
    """Orthogonal banks of (block size, models)."""
    design = {"design": "orthogonal", "keep": keep, "clusters": "pixels"}
    return tuple(Bank(design | {"block": block}, models) for block, models in sizes)


def iid(keep: float, models: int) -> tuple[Bank, ...]:
    """The iid bank that also holds the reference, first."""
    return (Bank({"design": "iid", "keep": keep}, models),)


CASES = {
    "digits, MLP": Case(
        "mlp", MLP, 0.5, 1536, {"iid": iid(0.5, 3584), "orthogonal": orthogonal(0.5, (16, 128), (32, 256), (64, 2048))}
    ),
    "digits, MLP, keep .7": Case("mlp", MLP, 0.7, 1536, {"iid": iid(0.7, 2560)}),
    "digits, MLP, keep .75": Case(
        "mlp", MLP, 0.75, 1024, {"iid": iid(0.75, 1024), "orthogonal": orthogonal(0.75, (16, 128), (64, 512))}
    ),
    "digits, CNN": Case("cnn", CNN, 0.5, 512, {"iid": iid(0.5, 896), "orthogonal": orthogonal(0.5, (64, 128))}),
    "Fashion-MNIST 10,000, MLP": Case("fashion", FASHION, 0.5, 256, {"iid": iid(0.5, 512)}),
    "Fashion-MNIST 2,000, MLP": Case(
        "fashion-2000", FASHION_2000, 0.5, 512, {"iid": iid(0.5, 1024), "orthogonal": orthogonal(0.5, (64, 512))}
    ),
    "Fashion-MNIST 2,000, CNN": Case(
        "fashion-2000-cnn", FASHION_CNN, 0.5, 256, {"iid": iid(0.5, 512), "orthogonal": orthogonal(0.5, (64, 256))}
    ),
}
DRAWN_CASE = "drawn from digits, 10,000 examples"


def main(
    folder: Path,
    cases: tuple[str, ...] = (*CASES, DRAWN_CASE),
    fashion_folder: str | None = None,
    quick: bool = False,
) -> None:
    """Train what is missing, and measure.

    Args:
        folder: where the banks lie or are to be made.
        cases: which of them.
        fashion_folder: where Fashion-MNIST's files are, if not where memscore looks for them.
        quick: a tiny run; its numbers mean nothing.
    """
    measured = {name: measure_case(folder, name, fashion_folder, quick) for name in cases}
    what = "counts, probit, their blend and a regression (stacked) against the counts of a large iid bank"
    document = {"what": what, "wishes": WISHES, "cases": measured}
    if quick:
        (folder / "quick.json").write_text(json.dumps(document, indent=2))
    else:
        document["cases"] = read_stored_cases() | measured
        save("blend_efficiency", document)
    print_table(measured)


def read_stored_cases() -> dict[str, Any]:
    """Read the cases of the stored results; those from before cases had dates get that of their file."""
    path = RESULTS / "blend_efficiency.json"
    document = json.loads(path.read_text()) if path.exists() else {"cases": {}}
    return {name: {"date": document["date"]} | case for name, case in document["cases"].items()}


def measure_case(folder: Path, name: str, fashion_folder: str | None, quick: bool) -> dict[str, Any]:
    """Measure each design of a case at each number of models."""
    case = CASES["digits, MLP" if name == DRAWN_CASE else name]
    if case.config["data"] == "fashion-mnist":
        case = case._replace(config=case.config | {"folder": fashion_folder})
    if quick:
        case = shrink(case)
    place = folder / case.folder
    today = datetime.now(UTC).date().isoformat()
    models = max([case.reference, *(bank.models for bank in case.banks["iid"])])
    all_iid = read_bank(place, case, Bank({"design": "iid", "keep": case.keep}, models), quick)
    reference = take(all_iid, slice(case.reference))
    if name == DRAWN_CASE:
        return {"date": today, "iid": measure(draw_replicates(reference, quick), None)}
    found = {}
    for design, banks in case.banks.items():
        if design == "iid":
            replicates = split(take(all_iid, slice(case.reference, None)), SIZES, 1)
            found[design] = measure(replicates, reference)
            continue
        parts: dict[int, list[tuple[Outputs, int]]] = {}
        for bank in banks:
            block = bank.design["block"]
            sizes = [size for size in SIZES if size == block or (bank is banks[-1] and size > block)]
            for size, each in split(read_bank(place, case, bank, quick), sizes, block).items():
                parts[size] = each
        found[design] = measure(parts, reference)
    return {"date": today} | {design: rows for design, rows in found.items() if rows["by_models"]}


def shrink(case: Case) -> Case:
    """What a quick run trains of a case."""
    config = case.config | {"train_limit": 200, "epochs": 2, "batch": 16}
    banks = {
        design: tuple(bank._replace(models=64 if design == "iid" else 2 * bank.design["block"]) for bank in banks[:1])
        for design, banks in case.banks.items()
    }
    return case._replace(config=config, reference=32, banks=banks)


def read_bank(place: Path, case: Case, bank: Bank, quick: bool) -> Outputs:
    """Train what a bank lacks, and read the outputs of its models, [M, N]."""
    name = f"{bank.design['design']}-{case.keep}" + (f"-b{bank.design['block']}" if "block" in bank.design else "")
    store = place / (f"quick-{name}" if quick else name)
    return said_by(BankConfig(**case.config), bank.design | {"store": str(store)}, bank.models, SerialPool())


def take(outputs: Outputs, models: slice) -> Outputs:
    """Take some models."""
    return {column: values[models] for column, values in outputs.items()}


def split(outputs: Outputs, sizes: tuple[int, ...] | list[int], block: int) -> dict[int, list[tuple[Outputs, int]]]:
    """Split a bank into replicates of each size, with the size of their blocks; at least two of a size, else none."""
    models = len(outputs["member"])
    return {
        size: [
            (take(outputs, slice(start, start + size)), block)
            for start in range(0, models - size + 1, size)[:REPLICATES]
        ]
        for size in sizes
        if models >= 2 * size
    }


def draw_replicates(reference: Outputs, quick: bool) -> dict[int, Iterator[tuple[Outputs, int]]]:
    """Draw banks of many examples, each with the gaps of one of the reference's, in and out; the truth goes along."""
    rng = np.random.default_rng(0)
    n = 500 if quick else DRAWN
    kinds = rng.integers(0, reference["member"].shape[1], n)
    truth = memorization(reference["correct"], reference["member"])[kinds]
    out = ~reference["member"]
    right_out = ((reference["correct"] & out).sum(0) / out.sum(0))[kinds]
    by_side = [[np.flatnonzero(models_of_kind) for models_of_kind in side.T] for side in (reference["member"], out)]

    def draw(models: int) -> Iterator[tuple[Outputs, int]]:
        for _ in range(2 if quick else REPLICATES // 2):
            member = rng.random((models, n)) < 0.5
            gap, confidence = np.empty((models, n), np.float32), np.empty((models, n), np.float32)
            for example, kind in enumerate(kinds):
                inside = member[:, example]
                for side, models_of_side in zip(by_side, (inside, ~inside), strict=True):
                    drawn = rng.choice(side[kind], int(models_of_side.sum()))
                    gap[models_of_side, example] = reference["gap"][drawn, kind]
                    confidence[models_of_side, example] = reference["logit_confidence"][drawn, kind]
            columns = {"member": member, "gap": gap, "logit_confidence": confidence, "correct": gap > 0}
            yield columns | {"truth": truth, "right_out": right_out}, 1

    return {size: draw(size) for size in SIZES}


def measure(replicates: dict[int, Any], reference: Outputs | None) -> dict[str, Any]:
    """Measure each size's replicates against a reference, or against the truth that goes along."""
    noise = 0.0
    truth = right_out = np.empty(0)
    if reference is not None:
        half = len(reference["member"]) // 2
        truth, first, second = (
            memorization(reference["correct"][models], reference["member"][models])
            for models in (slice(None), slice(half), slice(half, 2 * half))
        )
        noise = float(np.nanmean((first - second) ** 2)) / 4
        out = ~reference["member"]
        right_out = (reference["correct"] & out).sum(0) / out.sum(0)
    by_models = {}
    for size, each in sorted(replicates.items()):
        rows = [
            measure_replicate(outputs, block, outputs.get("truth", truth), outputs.get("right_out", right_out), noise)
            for outputs, block in each
        ]
        if len(rows) > 1:
            by_models[str(size)] = summarize(rows)
    return {
        "reference_rmse": float(np.sqrt(noise)),
        "models_for_rmse": {
            str(wish): {
                name: crossing({int(size): row[name]["mean"] for size, row in by_models.items()}, wish, falling=True)
                for name in ESTIMATES
            }
            for wish in WISHES
        },
        "by_models": by_models,
    }


def measure_replicate(
    outputs: Outputs, block: int, truth: np.ndarray, right_out: np.ndarray, noise: float
) -> dict[str, float]:
    """Measure the four estimates from one set of models."""
    models = len(outputs["member"])
    blocks, has_blocks = np.arange(models) // block, block > 1 and models >= 2 * block
    halves = draw_random_halves(blocks if has_blocks else np.arange(models), np.random.default_rng(0))
    table, fit = estimate_blend(outputs["correct"], outputs["gap"], outputs["member"], halves, has_blocks=has_blocks)
    stacked, stacked_fit = estimate_with_interval(outputs, blocks)
    counts, probit = (
        compute_table(statistic, outputs[statistic.signal], outputs["member"]) for statistic in BLENDED.values()
    )
    defined = ~np.isnan(table["value"] + stacked["lo"] + truth)
    uncertain = defined & (truth > 0.05) & (right_out > 0.02)

    def rmse(values: np.ndarray) -> float:
        return float(np.sqrt(max(np.mean((values - truth)[defined] ** 2) - noise, 0)))

    difference = (counts["value"] - probit["value"])[defined]
    best = float(difference @ (truth - probit["value"])[defined] / (difference @ difference))
    estimates = dict(zip(ESTIMATES, (counts, probit, table, stacked), strict=True))
    most = defined & (truth >= np.quantile(truth[defined], 1 - TOP_FRACTION))
    found = {name: rmse(each["value"]) for name, each in estimates.items()}
    for name, each in estimates.items():
        found |= {
            f"top_error_{name}": float((each["value"] - truth)[most].mean()),
            f"top_overlap_{name}": float(top_overlap(each["value"][defined], truth[defined])),
        }
    found |= {f"predicted_{size}": fit.predict_rmse(models / size) for size in SIZES if size != models and models >= 32}
    found |= {
        "weight": fit.weight,
        "best_weight": best,
        "forecast_rmse": fit.rmse,
        "forecast_rmse_stacked": stacked_fit.rmse,
        "undefined": float(np.isnan(table["value"]).mean()),
        "undefined_stacked": float(np.isnan(stacked["value"]).mean()),
        "width": float(np.mean((table["hi"] - table["lo"])[defined]) / np.mean((counts["hi"] - counts["lo"])[defined])),
    }
    for name, each in {"": table, "_counts": counts, "_stacked": stacked}.items():
        covered = (each["lo"] <= truth) & (truth <= each["hi"])
        found |= {
            f"coverage{name}": float(covered[defined].mean()),
            f"coverage_uncertain{name}": float(covered[uncertain].mean()),
            f"coverage_top{name}": float(covered[most].mean()),
        }
    return found


def estimate_with_interval(outputs: Outputs, blocks: np.ndarray) -> tuple[Outputs, StackedFit]:
    """Estimate by regression, with the interval that jackknife and mean bias would give each example."""
    sets = draw_stacked_sets(blocks, np.random.default_rng(0))
    columns = compute_stacked_columns(outputs, sets, fit_stacked([sum_for_stacked(outputs, sets)]))
    table, fit = complete_stacked(columns)
    reach = ndtri(0.975) * np.sqrt(columns["jackknife"] + fit.bias_share * columns["scale"])
    return table | {"lo": table["value"] - reach, "hi": table["value"] + reach}, fit


def summarize(rows: list[dict[str, float]]) -> dict[str, Any]:
    """Summarize replicates: mean and spread of each measure, and how many times fewer models than counts it takes."""
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    smaller = np.minimum(columns["counts"], columns["probit"])
    return {
        "replicates": len(rows),
        **{name: {"mean": float(values.mean()), "sd": float(values.std(ddof=1))} for name, values in columns.items()},
        "models_times": {name: float((columns["counts"].mean() / columns[name].mean()) ** 2) for name in ESTIMATES[1:]},
        "largest_blend_over_smaller": float((columns["blend"] / smaller).max()),
    }


def print_table(measured: dict[str, Any]) -> None:
    """Print RMSE, models in multiples and coverage of each case, design and number of models."""
    for case, designs in measured.items():
        for design, rows in ((name, rows) for name, rows in designs.items() if name != "date"):
            print(f"{case}, {design}: models for RMSE {json.dumps(rows['models_for_rmse'])}")
            for size, row in rows["by_models"].items():
                numbers = " ".join(f"{name} {row[name]['mean']:.4f}" for name in ESTIMATES)
                print(
                    f"  {size:>4} x {row['replicates']}: {numbers}, models x "
                    f"{' '.join(f'{times:.2f}' for times in row['models_times'].values())}, "
                    f"weight {row['weight']['mean']:.2f} "
                    f"(best {row['best_weight']['mean']:.2f}), forecast {row['forecast_rmse']['mean']:.4f}, covers "
                    f"{row['coverage']['mean']:.3f} {row['coverage_uncertain']['mean']:.3f}, width "
                    f"{row['width']['mean']:.2f}, worst {row['largest_blend_over_smaller']:.3f}"
                )


if __name__ == "__main__":
    tyro.cli(main)
