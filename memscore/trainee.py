"""From a store back to what is trained: an arm, a recipe, a network with its examples, the data on a device."""

import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from memscore.captured import CapturedForward
from memscore.graphs import CannotCapture
from memscore.images import Images, resident
from memscore.models.architectures import build, logits
from memscore.recipes import Recipe
from memscore.seeds import generator, torch_seed
from memscore.store.store import Store
from memscore.training import Assignment, stacks

_log = logging.getLogger(__name__)
PART = 1024
"""Images that are evaluated at once; the last bits of what is said of one may hang on it."""


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


def forward(model: nn.Module, recipe: Recipe, architecture: str = "") -> Callable[[Tensor], Tensor]:
    """The network as a function from images to float32 logits, in evaluation mode.

    Args:
        model: on the images' device.
        recipe: whose precision it computes in.
        architecture: of the model; with it a GPU replays one graph for all models of this architecture, in which only
            the weights differ. It gives no gradients.

    Returns:
        A function of images [B, C, H, W].
    """
    model.eval()
    autocast = torch.bfloat16 if recipe.precision == "bfloat16" else None

    def logits_of(images: Tensor) -> Tensor:
        static = static_forward(model, images, recipe, architecture) if architecture and images.is_cuda else None
        return static(model, images) if static else logits(model, images, autocast)

    return logits_of


_static: dict[tuple[object, ...], CapturedForward | None] = {}  # one, kept between the jobs of a worker


def static_forward(model: nn.Module, images: Tensor, recipe: Recipe, architecture: str) -> CapturedForward | None:
    """The graph for such networks and images; None, after a warning, if there can be none."""
    tag = (architecture, recipe.precision, images.device)
    if tag not in _static:
        _static.clear()
        try:
            _static[tag] = CapturedForward(model, images, recipe)
        except CannotCapture as refusal:
            _log.warning("%s is evaluated without a CUDA graph, which is slower, because %s", architecture, refusal)
            _static[tag] = None
    return _static[tag]


def parts(images: Images, n: int, batch: int = PART) -> Iterator[Tensor]:
    """The first n images in batches."""
    device = images.pixels.device
    return (images.take(torch.arange(s, min(s + batch, n), device=device)) for s in range(0, n, batch))


@torch.no_grad()
def everything(model: nn.Module, recipe: Recipe, images: Images, n: int, architecture: str = "") -> Tensor:
    """Logits [n, K] of the first n images; for the architecture see forward."""
    logits_of = forward(model, recipe, architecture)
    return torch.cat([logits_of(part) for part in parts(images, n)])


def keep_to_share(device: torch.device) -> None:
    """Where workers share a GPU, no more of its memory than this one's part: what is beyond it raises here alone."""
    share = os.environ.get("MEMSCORE_GPU_SHARE")  # the pool says it to each worker
    if share and device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(float(share), device)
