"""A user's own model: trained by a bank's recipe in plain PyTorch, and audited with that bank as its shadows."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from memscore.data.datasets import Splits
from tests.cases._support import CaseError, CommandResult, run_command


def draw_members(n_train: int, seed: int) -> np.ndarray:
    """bool [n_train]: a random half, as each model of the bank is trained on."""
    member = np.zeros(n_train, bool)
    member[np.random.default_rng(seed).permutation(n_train)[: n_train // 2]] = True
    return member


def train_by_recipe(bank: Path, model: nn.Module, splits: Splits, member: np.ndarray, seed: int) -> nn.Module:
    """Train a fresh network in place by the recipe in the bank's manifest: SGD, cosine schedule, full batches."""
    manifest = json.loads((bank / "manifest.json").read_text())
    recipe = manifest["recipe"]
    if (recipe["optimizer"], recipe["schedule"], recipe["augment"]) != ("sgd", "cosine", []):
        raise CaseError(f"the bank's recipe is no longer the one that this loop trains by: {recipe}")
    mean, std = (torch.tensor(manifest[name]).view(1, -1, 1, 1) for name in ("mean", "std"))
    images = (torch.from_numpy(splits.train.images).float() / 255 - mean) / std
    labels = torch.from_numpy(splits.train.labels)
    rows, rng, batch = np.flatnonzero(member), np.random.default_rng(seed), recipe["batch"]
    steps = round(recipe["epochs"] * len(rows) / batch)
    optimizer = torch.optim.SGD(
        model.parameters(), recipe["lr"], momentum=recipe["momentum"], weight_decay=recipe["weight_decay"]
    )
    order = np.concatenate([rng.permutation(rows) for _ in range(recipe["epochs"] + 1)])
    model.train()
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = recipe["lr"] * (1 + math.cos(math.pi * step / steps)) / 2
        taken = torch.from_numpy(order[step * batch : (step + 1) * batch])
        optimizer.zero_grad()
        cross_entropy(model(images[taken]), labels[taken]).backward()
        optimizer.step()
    return model.eval()


def write_ids(path: Path, ids: np.ndarray) -> None:
    """A list of ids, one a line."""
    path.write_text("".join(f"{example}\n" for example in ids.tolist()))


def audit(folder: Path, name: str, weights: dict[str, Tensor], *words: str) -> CommandResult:
    """Audit FOLDER/NAME.safetensors with the bank in FOLDER/bank."""
    path = folder / f"{name}.safetensors"
    save_file({key: value.contiguous() for key, value in weights.items()}, path)
    bank = str(folder / "bank")
    return run_command(folder, "memscore.attack", bank, "--model", str(path), *words)


def read_report(folder: Path, name: str) -> dict[str, Any]:
    """The curves in the file of an audit, by kind of evidence."""
    (path,) = (folder / "bank" / "reports").glob(f"audit-{name}-*.parquet")
    curves: dict[str, Any] = json.loads(pq.read_schema(path).metadata[b"curves"])
    return curves


def describe_end(folder: Path, name: str, result: CommandResult) -> str:
    """How an audit ended that should have said something."""
    if result.returncode:
        return f"exit code {result.returncode}, {result.output.strip()[-150:]!r}"
    area = read_report(folder, name)["lira"]["auc"]
    return f"AUC {area['value']:.3f} [{area['lo']:.3f}, {area['hi']:.3f}] without a warning"
