"""From a store back to what is trained: an arm, a recipe, a network with its examples, the data on a device."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from memscore.images import Images, resident
from memscore.models import build, logits
from memscore.recipes import Recipe
from memscore.seeds import generator, torch_seed
from memscore.store import Store
from memscore.training import Assignment, stacks


def recipe_of(store: Store) -> Recipe:
    """The recipe as it stands in the manifest."""
    fields: dict[str, Any] = store.manifest.recipe
    return Recipe(**fields, source="the store's manifest")


def new_model(store: Store, family: str, index: int, device: torch.device) -> nn.Module:
    """A freshly initialised network: made on the CPU, so the same wherever it is then moved to."""
    manifest = store.manifest
    seed = torch_seed(manifest.seed, "init", family, index)
    return build(manifest.architecture, manifest.input_shape, manifest.n_classes, seed).to(device)


def assign(store: Store, family: str, index: int, model: nn.Module, member: np.ndarray) -> Assignment:
    """A model with its examples and its streams of chance."""
    seed = store.manifest.seed
    return Assignment(
        model=model,
        rows=np.flatnonzero(member),
        order=generator(seed, "batches", family, index),
        chance=generator(seed, "augment", family, index),
    )


_resident: dict[tuple[str, str, bool], tuple[Images, Tensor]] = {}  # one data set, kept between the jobs of a worker


def on_device(
    store: Store, images: np.ndarray, labels: np.ndarray, model: nn.Module, recipe: Recipe, device: torch.device
) -> tuple[Images, Tensor]:
    """All images and labels, normalised, on the device; kept for the next job of this process."""
    manifest, flat = store.manifest, stacks(model, recipe)
    place = (manifest.digest, str(device), flat)
    if place not in _resident:
        _resident.clear()
        truth = torch.from_numpy(np.array(labels)).to(device)
        _resident[place] = (resident(images, manifest.mean, manifest.std, device, flat=flat), truth)
    return _resident[place]


def forward(model: nn.Module, recipe: Recipe) -> Callable[[Tensor], Tensor]:
    """The network as a function from images to float32 logits, in evaluation mode."""
    model.eval()
    autocast = torch.bfloat16 if recipe.precision == "bfloat16" else None
    return lambda images: logits(model, images, autocast)


def parts(images: Images, n: int, batch: int = 1024) -> Iterator[Tensor]:
    """The first n images in batches."""
    device = images.pixels.device
    return (images.take(torch.arange(s, min(s + batch, n), device=device)) for s in range(0, n, batch))


@torch.no_grad()
def everything(model: nn.Module, recipe: Recipe, images: Images, n: int) -> Tensor:
    """Logits [n, K] of the first n images."""
    logits_of = forward(model, recipe)
    return torch.cat([logits_of(part) for part in parts(images, n)])
