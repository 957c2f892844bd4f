"""The same command twice, or stopped and continued, gives the same shards, whatever the network draws.

Augmentations differ between images, batches and models; a network with dropout is trained to the same bits every time.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from memscore.seeds import generator
from memscore.training.augmentation import sample_augmentation
from memscore.training.recipes import get_recipe
from tests.cases._support import CaseError, require_success, run_case, run_command

NETWORKS = """
import math
from torch import nn
def plain(shape, n_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), 64), nn.ReLU(), nn.Linear(64, n_classes))
def dropout(shape, n_classes):
    return nn.Sequential(
        nn.Flatten(), nn.Linear(math.prod(shape), 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, n_classes)
    )
"""


def check(folder: Path) -> list[str]:
    problems = check_augmentation()
    (folder / "theirs.py").write_text(NETWORKS)
    once = train_bank(folder, "once", "dropout", 8)
    again = train_bank(folder, "again", "dropout", 8)
    continued = train_bank(folder, "continued", "dropout", 4, 8)
    plain, plain_again = train_bank(folder, "plain", "plain", 8), train_bank(folder, "plain-again", "plain", 8)
    if differing(plain, plain_again):
        problems.append("two runs of one command differ without any dropout")
    if not differing(once, plain):
        problems.append("the network with dropout is trained as if it had none")
    for other, how in ((again, "two runs of one command"), (continued, "one run and a stopped and continued one")):
        if different := differing(once, other):
            problems.append(f"a network with dropout: {different} of {len(once)} models differ between {how}")
    return problems


def check_augmentation() -> list[str]:
    problems, batches = [], []
    augmented = replace(get_recipe("digits"), augment=("crop", "flip"))
    for model in range(3):
        rng = generator(0, "augment", "exact-k0.500", model)
        for _ in range(3):
            corners, mirrored = sample_augmentation(augmented, 64, rng)
            batches.append((*corners.ravel().tolist(), *mirrored.tolist()))
            if len(set(map(tuple, corners.T.tolist()))) < 20:
                problems.append("the images of one batch are cropped alike")
    if len(set(batches)) < len(batches):
        problems.append("two batches or two models are cropped alike")
    return problems


def train_bank(folder: Path, name: str, network: str, *counts: int) -> dict[str, np.ndarray]:
    """Train up to each count of models, a command each; the logit confidence of every model."""
    for count in counts:
        words = (
            "memscore.estimate", "--arch", f"theirs:{network}", "--recipe", "digits", "--epochs", "3",
            "--train-limit", "300", "--augment", "crop", "flip", "--design", "exact", "--block", "4",
            "--originals", "0", "--pool", "serial", "--models", str(count), "--store", str(folder / name),
        )  # fmt: skip
        require_success(run_command(folder, *words))
    paths = sorted((folder / name / "shards").glob("exact-*.parquet"))
    if len(paths) != counts[-1]:
        raise CaseError(f"{name}: {len(paths)} shards of {counts[-1]} models")
    return {path.name: np.array(pq.read_table(path)["logit_confidence"].to_pylist()) for path in paths}


def differing(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> int:
    """How many models differ in any bit."""
    if first.keys() != second.keys():
        raise CaseError(f"two banks of different models: {sorted(first)}, {sorted(second)}")
    return sum(not np.array_equal(first[name], second[name]) for name in first)


if __name__ == "__main__":
    run_case(check)
