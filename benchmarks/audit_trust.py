"""Claim: an audit is trusted for a model of the bank's recipe, and for no other that would mislead.

    python -m benchmarks.audit_trust [--fresh 20] [--data digits fashion-mnist generated]

Models are trained by a loop of its own on a random half of a bank's training set. "generated" is what the limits in
memscore/statistics/shadow_fit.py were chosen on: 8 classes of 3 prototypes each in noise. On digits and Fashion-MNIST
they are only tried. "untrusted" counts fresh models of the bank's own recipe that an audit does not trust.
"""

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.results_file import save, spread
from cluster.launch import PoolOptions
from memscore.analysis.audit import AuditResult, run_audit
from memscore.data.splits import Splits
from memscore.estimate import estimate_bank
from memscore.models.architectures import build_network
from memscore.pipeline.config import BankConfig
from memscore.pipeline.reload_data import reload_splits
from memscore.store.json_records import replace_nonfinite
from memscore.store.store import Store

BANKS: dict[str, dict[str, Any]] = {
    "digits": {"data": "digits"},
    "fashion-mnist": {"data": "fashion-mnist", "train_limit": 2500, "arch": "mlp-256", "recipe": "digits"},
    "generated": {"arch": "mlp-64", "recipe": "digits"},
}
MODELS = {"digits": (4, 16, 64, 256), "fashion-mnist": (16, 64), "generated": (4, 16, 64)}
OTHER_NETWORK = {"digits": "mlp-64-32", "fashion-mnist": "mlp-64-32", "generated": "mlp-32-32"}


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a model is trained, as far as it differs from the bank's recipe; factors of its learning rate and epochs."""

    arch: str = ""
    optimizer: str = "sgd"
    schedule: str = "cosine"
    lr: float = 0.0
    lr_factor: float = 1.0
    epochs_factor: float = 1.0
    weight_decay: float | None = None
    head: Callable[[], nn.Module] | None = None


class Changed(nn.Module):
    """A network whose outputs go through a function."""

    def __init__(self, network: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self.change = network, change

    def forward(self, images: Tensor) -> Tensor:
        """Compute the changed outputs."""
        return self.change(self.network(images))


def main(
    fresh: int = 20, data: tuple[str, ...] = ("digits", "fashion-mnist", "generated"), most_models: int = 256
) -> None:
    """Measure.

    Args:
        fresh: freshly trained models of the bank's recipe for each bank.
        data: names in BANKS.
        most_models: larger banks are left out.
    """
    torch.set_num_threads(1)
    measured: dict[str, Any] = {"what": "audits of models of the bank's recipe and of others", "fresh": fresh}
    for name in data:
        with tempfile.TemporaryDirectory() as folder:
            measured[name] = measure_data(name, Path(folder), fresh, most_models)
    save("audit_trust", replace_nonfinite(measured))


def measure_data(name: str, folder: Path, fresh: int, most_models: int) -> dict[str, Any]:
    """Audit fresh models against banks of several sizes, and others against the largest."""
    sizes, found = [models for models in MODELS[name] if models <= most_models], {}
    for models in sizes:
        store = train_bank(name, folder, models)
        splits = reload_splits(store, *([str(folder / "generated.npz")] if name == "generated" else []))
        results = [audit_fresh(store, splits, seed) for seed in range(fresh)]
        found[f"{models} models"] = {
            "untrusted": sum(not result.trusted for result in results),
            "of": fresh,
            "reasons": [reason for result in results for reason in result.reasons],
            "median_z": spread([fit.median for result in results for fit in result.fits.values() if fit]),
            "auc": spread([result.curves["lira"].auc.value for result in results]),
            "bank_auc": results[0].bank_auc,
            "expected_fpr": results[0].expected_fpr,
            "fpr": spread([measure_rate(result, members=False) for result in results]),
        }
    return {**found, f"others, {sizes[-1]} models": audit_others(store, splits, OTHER_NETWORK[name])}


def train_bank(name: str, folder: Path, models: int) -> Store:
    """Train a bank, exact in blocks of 4, so that there are small ones; the largest of digits as `make run` does."""
    options = dict(BANKS[name])
    if name == "generated":
        options["data"] = write_generated(folder / "generated.npz")
    if models < 256:
        options |= {"design": "exact", "block": 4}
    url = str(folder / f"{name}-{models}")
    estimate_bank(BankConfig(**options, models=models, originals=0, store=url), PoolOptions(pool="serial"))
    return Store.open(url)


def write_generated(path: Path) -> str:
    """Write 8x8 images of 8 classes: one of 3 prototypes of the class, in noise."""
    rng = np.random.default_rng(0)
    labels, prototypes = rng.integers(0, 8, 2400), rng.normal(0, 1, (8, 3, 8, 8))
    images = prototypes[labels, rng.integers(0, 3, 2400)] * 0.55 + rng.normal(0, 1, (2400, 8, 8))
    pixels = np.clip(images * 40 + 128, 0, 255).astype(np.uint8)
    np.savez(path, train_images=pixels[:1800], train_labels=labels[:1800], test_images=pixels[1800:],
             test_labels=labels[1800:])  # fmt: skip
    return str(path)


def draw_half(n: int, seed: int) -> np.ndarray:
    """Draw a random half, bool [n]."""
    member = np.zeros(n, bool)
    member[np.random.default_rng((seed, 7)).permutation(n)[: n // 2]] = True
    return member


def train_model(
    store: Store, splits: Splits, member: np.ndarray, seed: int, training: Training | None = None
) -> nn.Module:
    """Train a model by the bank's recipe, or as `training` differs from it."""
    training, recipe = training or Training(), store.manifest.recipe
    model = build_network(training.arch or store.manifest.architecture, splits.input_shape, splits.n_classes, seed)
    model = nn.Sequential(model, training.head()) if training.head else model
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (splits.mean, splits.std))
    images = (torch.from_numpy(splits.train.images).float() / 255 - mean) / std
    labels = torch.from_numpy(splits.train.labels)
    lr, epochs = training.lr or recipe["lr"] * training.lr_factor, round(recipe["epochs"] * training.epochs_factor)
    decay = recipe["weight_decay"] if training.weight_decay is None else training.weight_decay
    optimizer = (
        torch.optim.SGD(model.parameters(), lr, momentum=recipe["momentum"], weight_decay=decay)
        if training.optimizer == "sgd"
        else torch.optim.Adam(model.parameters(), lr)
    )
    rows, rng, batch = np.flatnonzero(member), np.random.default_rng(seed), recipe["batch"]
    steps = round(epochs * len(rows) / batch)
    order = np.concatenate([rng.permutation(rows) for _ in range(epochs + 1)])
    model.train()
    for step in range(steps):
        if training.schedule == "cosine":
            optimizer.param_groups[0]["lr"] = lr * (1 + math.cos(math.pi * step / steps)) / 2
        taken = torch.from_numpy(order[step * batch : (step + 1) * batch])
        optimizer.zero_grad()
        cross_entropy(model(images[taken]), labels[taken]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model.eval()


def audit_fresh(store: Store, splits: Splits, seed: int) -> AuditResult:
    """Audit a fresh model of the bank's recipe."""
    member = draw_half(len(splits.train), seed)
    return run_audit(store, train_model(store, splits, member, 1000 + seed), splits, member=member)


def measure_rate(result: AuditResult, *, members: bool) -> float:
    """Share of the members, or of the others, that are flagged."""
    flagged = np.array(result.table["verdict"].to_pylist(), bool)
    return float(flagged[result.table["member"].to_numpy(zero_copy_only=False) == members].mean())


def audit_others(store: Store, splits: Splits, network: str) -> dict[str, Any]:
    """Audit models of other recipes, and one of the bank's recipe in wrong ways."""
    member = draw_half(len(splits.train), 0)
    trainings = {
        "matched": Training(),
        "another MLP, constant rate, 40 epochs": Training(arch=network, schedule="constant", epochs_factor=4 / 3),
        "another MLP": Training(arch=network),
        "Adam .001, constant, 60 epochs": Training(optimizer="adam", schedule="constant", lr=1e-3, epochs_factor=2),
        "trained with a softmax head": Training(head=lambda: nn.Softmax(1)),
        "half the learning rate": Training(lr_factor=0.5),
        "1.5 times the epochs": Training(epochs_factor=1.5),
        "half the epochs": Training(epochs_factor=0.5),
        "constant learning rate": Training(schedule="constant"),
        "no weight decay": Training(weight_decay=0.0),
        "10 times the weight decay": Training(weight_decay=5e-3),
    }
    models = {name: train_model(store, splits, member, 1, training) for name, training in trainings.items()}
    matched = models["matched"]
    models["softmax after training"] = Changed(matched, lambda x: x.softmax(1))
    models["log-softmax"] = Changed(matched, lambda x: x.log_softmax(1))
    models["logits x .1"] = Changed(matched, lambda x: 0.1 * x)
    models["logits x 10"] = Changed(matched, lambda x: 10 * x)
    models["classes in another order"] = Changed(matched, lambda x: x.roll(1, 1))
    architecture = store.manifest.architecture
    models["untrained"] = build_network(architecture, splits.input_shape, splits.n_classes, 5).eval()
    models["trained on everything"] = train_model(store, splits, np.ones_like(member), 1)
    audits = {name: describe(run_audit(store, model, splits, member=member)) for name, model in models.items()}
    lists = {"inverted list": ~member, "list shifted by one": np.roll(member, 1), "all listed": np.ones_like(member)}
    audits |= {name: describe(run_audit(store, matched, splits, member=each)) for name, each in lists.items()}
    channels = len(splits.mean)
    wrong = replace(splits, mean=(0.0,) * channels, std=(1.0,) * channels)
    return {**audits, "--mean 0 --std 1": describe(run_audit(store, matched, wrong, member=member))}


def describe(result: AuditResult) -> dict[str, Any]:
    """What an audit says, in short."""
    area = result.curves["lira"].auc
    return {
        "trusted": result.trusted,
        "auc": [area.value, area.lo, area.hi],
        "z": {split: [fit.median, fit.spread] for split, fit in result.fits.items() if fit},
        "fpr": measure_rate(result, members=False),
        "tpr": measure_rate(result, members=True),
        "expected_fpr": result.expected_fpr,
        "reasons": list(result.reasons),
        "causes": list(result.causes),
    }


if __name__ == "__main__":
    tyro.cli(main)
