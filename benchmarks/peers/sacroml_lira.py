"""Peer: SACRO-ML's LiRA attack on one target model, shadow models included.

python sacroml_lira.py FOLDER    (in this folder, in an environment with sacroml)
"""

import logging
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import task as given
import torch
from sacroml.attacks.likelihood_attack import LIRAAttack
from sacroml.attacks.target import Target
from task import Net, Task, report
from torch.utils.data import DataLoader, TensorDataset

HERE = "sacroml_lira.py"  # the tool imports it by a path below the working folder


class Shadow(Net):
    """The network under the name and the signature that the tool builds shadow models with."""


def train(model: torch.nn.Module, dataloader: DataLoader, epochs: int, lr: float) -> None:  # type: ignore[type-arg]
    """The training function that the tool imports from this file; its labels come as it makes them."""
    given.train(model, dataloader, epochs, lr)


def main() -> None:
    """Train the target, then let the tool attack it."""
    started, task = time.perf_counter(), Task.given()
    torch.set_num_threads(1)
    logging.getLogger().setLevel(logging.ERROR)
    pixels, labels = task.data()
    n, classes = task.n_train, int(labels.max()) + 1
    rows = np.random.default_rng(0).permutation(n)
    inside, outside = rows[: round(task.keep * n)], rows[round(task.keep * n) :]
    torch.manual_seed(0)
    sizes = task.network(classes)
    target = Shadow(**sizes)
    kept = TensorDataset(torch.from_numpy(pixels[inside]), torch.from_numpy(labels[inside]))
    settings = {"epochs": task.epochs, "lr": task.lr}
    train(target, DataLoader(kept, batch_size=task.batch, shuffle=True), **settings)
    attacked = Target(
        model=target,
        model_module_path=HERE,
        model_name="Shadow",
        model_params=sizes,
        train_module_path=HERE,
        train_params=settings,
        batch_size=task.batch,
        X_train=pixels[inside],
        y_train=labels[inside],
        X_test=pixels[outside],
        y_test=labels[outside],
    )
    folder = Path(task.folder) / "sacroml"
    attack = LIRAAttack(output_dir=str(folder), write_report=False, n_shadow_models=task.models, mode="online-carlini")
    attack.attack(attacked)
    with torch.no_grad():
        right = target(torch.from_numpy(pixels[n:])).argmax(1).numpy() == labels[n:]
    found = float(attack.attack_metrics[0]["AUC"])
    report(started, test_accuracy=float(right.mean()), auc=found, version=version("sacroml"))


if __name__ == "__main__":
    main()
