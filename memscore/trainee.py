"""From a store back to what is trained: an arm, a recipe, a network with its examples, the data on a device."""

import logging
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from memscore.models.architectures import build
from memscore.seeds import generator, torch_seed
from memscore.store.store import Store
from memscore.training.device_data import Images, resident
from memscore.training.loop import Assignment, stacks
from memscore.training.recipes import Recipe

_log = logging.getLogger(__name__)


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
        architecture=architecture_of(store),
    )


def architecture_of(store: Store) -> str:
    """What `new_model` builds, as one name: the networks of two such names never share storage."""
    manifest = store.manifest
    return f"{manifest.architecture} of {manifest.n_classes} classes on {'x'.join(map(str, manifest.input_shape))}"


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
