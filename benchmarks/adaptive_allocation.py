"""Claim: leaving uncertain examples out more often does not save models, since it changes what is estimated.

    python -m benchmarks.adaptive_allocation --folder DIR [--quick]

Nearly all of the variance of memorization is on the side of the models without the example, so an allocation by Neyman
leaves examples out more often whose predictions are uncertain. Digits (1,000 examples, 10 % wrong labels, MLP
64-128-10): 64 models find the examples that models without them get right in 3 to 97 %. Those are then in a share of
.35 or .25 of the subsets, the others in as much more that the mean is .5. Counts from 32, 64 and 128 such models are
compared with those of 1,536 iid models at keep .5, as are counts from other iid models at .5; `bias` is what more
models do not remove. Banks at .5 are kept in the folder, and are those of benchmarks.blend_efficiency. --quick is a
tiny run to see that it works; it writes into the folder only.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from benchmarks.blend_efficiency import CASES, Bank, Outputs, read_bank, shrink, take
from benchmarks.estimator_efficiency import noise_of
from benchmarks.results_file import save
from memscore.estimators.memorization import memorization
from memscore.pipeline.config import BankConfig
from memscore.pipeline.jobs import build_model, evaluate_queries, load_on_device, make_training_run, read_recipe
from memscore.pipeline.runner import prepare_bank
from memscore.pipeline.train_bank import build_shared_data
from memscore.seeds import generator
from memscore.statistics.correlation import rmse
from memscore.training.augmentation import list_test_time_augmentations
from memscore.training.loop import train
from memscore.training.numerics import float32_matmul, single_threaded
from memscore.training.recipes import count_steps

SHARES = (0.35, 0.25)
SIZES = (32, 64, 128)
MODELS, FIRST, GROUP = 512, 64, 32
CASE = CASES["digits, MLP"]


def main(folder: Path, quick: bool = False) -> None:
    """Train what is missing, and measure.

    Args:
        folder: where the banks lie or are to be made.
        quick: a tiny run; its numbers mean nothing.
    """
    case, models = (shrink(CASE), 32) if quick else (CASE, MODELS)
    bank = Bank({"design": "iid", "keep": 0.5}, case.reference + models + FIRST)
    outputs = read_bank(folder / "mlp", case, bank, quick)
    reference, rest = take(outputs, slice(case.reference)), take(outputs, slice(case.reference, None))
    others, first = take(rest, slice(models)), take(rest, slice(models, None))
    right_out = (first["correct"] & ~first["member"]).sum(0) / (~first["member"]).sum(0)
    is_uncertain = (right_out > 0.03) & (right_out < 0.97)
    url = folder / "mlp" / ("quick-iid-0.5" if quick else "iid-0.5")
    measured: dict[str, Any] = {"iid": measure(others, reference)}
    for share in SHARES:
        rest_share = (0.5 - share * is_uncertain.mean()) / (1 - is_uncertain.mean())
        keep = np.where(is_uncertain, share, rest_share)
        allocated = train_allocated(BankConfig(**case.config), bank.design, keep, models, url)
        measured[str(share)] = measure(allocated, reference) | {"others": float(rest_share)}
    document = {"uncertain": float(is_uncertain.mean()), "models": models, "shares": measured}
    text = json.dumps(document, indent=2)
    print(text)
    if quick:
        (folder / "quick-adaptive.json").write_text(text)
    else:
        save("adaptive_allocation", document)


def train_allocated(config: BankConfig, design: dict[str, Any], keep: np.ndarray, models: int, url: Path) -> Outputs:
    """Train models whose subsets hold each example with a probability of its own, as many steps as at keep .5.

    They are trained as those of the store at `url`, into which nothing is written.
    """
    bank = prepare_bank(BankConfig(**vars(config) | design | {"store": str(url), "models": models, "originals": 0}))
    store, shared, n = bank.store, build_shared_data(bank.splits, None), len(bank.splits.train)
    recipe, cpu = read_recipe(store), torch.device("cpu")
    # names of random streams, which no arm of a bank has
    arm = f"allocated-{keep.min():.3f}"
    member = generator(store.manifest.seed, "subsets", arm).random((models, n)) < keep
    correct = np.empty((models, n), bool)
    with single_threaded(), float32_matmul(cpu):
        for start in range(0, models, GROUP):
            indices = range(start, min(start + GROUP, models))
            networks = [build_model(store, arm, index, cpu) for index in indices]
            data, labels = load_on_device(store, shared.images, shared.labels, networks[0], recipe, cpu)
            runs = [
                make_training_run(store, arm, index, network, member[index])
                for index, network in zip(indices, networks, strict=True)
            ]
            train(runs, data, labels, recipe, count_steps(recipe, 0.5, n))
            for index, run in zip(indices, runs, strict=True):
                queries = list_test_time_augmentations(recipe, 1)
                correct[index] = evaluate_queries(run, recipe, queries, data, labels, None)["correct"][:n]
    return {"member": member, "correct": correct}


def measure(outputs: Outputs, reference: Outputs) -> dict[str, Any]:
    """Measure counts from parts of a bank against a reference, whose noise is subtracted."""
    half, models = len(reference["member"]) // 2, len(outputs["member"])
    truth, *halves = (estimate(reference, part) for part in (slice(None), slice(half), slice(half, 2 * half)))
    noise = (rmse(*halves) / 2) ** 2
    errors = {}
    for size in SIZES:
        parts = [estimate(outputs, slice(start, start + size)) for start in range(0, models - size + 1, size)]
        if len(parts) > 1:
            values = [np.sqrt(max(rmse(part, truth) ** 2 - noise, 0)) for part in parts]
            errors[str(size)] = {"replicates": len(parts), "mean": np.mean(values), "sd": np.std(values, ddof=1)}
    # the whole bank's own noise, from halves of it, is no bias either
    own = [estimate(outputs, part) for part in (slice(models // 2), slice(models // 2, None))]
    squared = rmse(estimate(outputs, slice(None)), truth) ** 2 - noise - (noise_of(np.array(own)) ** 2) / 2
    return {"rmse": errors, "bias": float(np.sqrt(max(squared, 0)))}


def estimate(outputs: Outputs, models: slice) -> np.ndarray:
    """Estimate memorization by counts from some models."""
    return memorization(outputs["correct"][models], outputs["member"][models])


if __name__ == "__main__":
    tyro.cli(main)
