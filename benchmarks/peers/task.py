"""What every peer is given: one data file, one network, one eager training loop; without memscore."""

import itertools
import json
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader


@dataclass(frozen=True, kw_only=True)
class Task:
    """One comparison.

    Attributes:
        folder: where to write; holds data.npz (pixels float32 [N, D], labels int64 [N], train first) and task.json.
        image: channels, height and width.
        layers: "linear" or "convolution".
        widths: hidden layers, or channels of the convolutions.
        epochs: of training.
        batch: examples a step.
        lr: the cosine starts from it.
        keep: share of the training set in a subset.
        models: how many.
        n_train: rows of the file that are training examples; the others are test examples.
    """

    folder: str
    image: tuple[int, int, int]
    layers: str
    widths: tuple[int, ...]
    epochs: int
    batch: int
    lr: float
    keep: float
    models: int
    n_train: int

    @classmethod
    def given(cls) -> "Task":
        """The task in the folder on the command line."""
        return cls(**json.loads((Path(sys.argv[1]) / "task.json").read_text()))

    def network(self, classes: int) -> dict[str, Any]:
        """Arguments of the network."""
        return {"image": self.image, "layers": self.layers, "widths": self.widths, "classes": classes}

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """Pixels and labels."""
        with np.load(Path(self.folder) / "data.npz", allow_pickle=False) as kept:
            return kept["pixels"], kept["labels"]


class Net(nn.Module):
    """A network with ReLU on rows of pixels: fully connected, or 3x3 convolutions with 2x2 max pooling."""

    def __init__(self, image: tuple[int, int, int], layers: str, widths: tuple[int, ...], classes: int) -> None:
        super().__init__()
        channels, height, width = image
        is_convolution = layers == "convolution"
        sizes = (channels if is_convolution else math.prod(image), *widths)
        body: list[nn.Module] = [nn.Unflatten(1, tuple(image))] if is_convolution else []
        for n_in, n_out in itertools.pairwise(sizes):
            if is_convolution:
                body += [nn.Conv2d(n_in, n_out, 3, padding=1), nn.MaxPool2d(2), nn.ReLU()]
            else:
                body += [nn.Linear(n_in, n_out), nn.ReLU()]
        shrink = 2 ** len(widths)
        pixels = (height // shrink) * (width // shrink) if is_convolution else 1
        self.body = nn.Sequential(*body, nn.Flatten())
        self.output = nn.Linear(sizes[-1] * pixels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        scores: Tensor = self.output(self.body(x))
        return scores


def train(model: nn.Module, loader: DataLoader[Any], epochs: int, lr: float) -> None:
    """SGD with momentum .9, weight decay 5e-4 and a cosine by the step, as a tutorial writes it."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4)
    total, step = epochs * len(loader), 0
    model.train()
    for _ in range(epochs):
        for images, labels in loader:
            for group in optimizer.param_groups:
                group["lr"] = lr * (1 + math.cos(math.pi * step / total)) / 2
            step += 1
            optimizer.zero_grad()
            cross_entropy(model(images), labels).backward()
            optimizer.step()


@torch.no_grad()
def confidence(model: nn.Module, pixels: Tensor, labels: Tensor) -> np.ndarray:
    """True-class probability of every row."""
    model.eval()
    return model(pixels).softmax(1)[torch.arange(len(labels)), labels].numpy()


def report(started: float, **said: Any) -> None:
    """One line of JSON for the script that called this one."""
    print(json.dumps({"seconds_inside": time.perf_counter() - started, **said}))
