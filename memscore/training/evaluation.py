"""Evaluate a trained model on every example: correctness and three numbers of its logits."""

import logging
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from memscore.models.architectures import compute_logits, embed
from memscore.models.random_state import seed_generators
from memscore.training.cuda_graphs import CudaGraphForward
from memscore.training.device_data import EVALUATION_BATCH, DeviceImages
from memscore.training.graph_recording import GraphCaptureError, handle_failed_recording
from memscore.training.numerics import get_autocast_dtype
from memscore.training.recipes import Recipe

_log = logging.getLogger(__name__)
CONVOLUTION_BATCH = 64  # for a CPU: the activations of 1024 images are larger than its cache, and take twice as long


def choose_evaluation_batch(model: nn.Module, device: torch.device) -> int:
    """Choose how many images are evaluated at once, by architecture and device alone."""
    # The last bits of an example's logits depend on the batch, so it never follows the number of images or of models.
    # Without convolutions a small batch is slower: an MLP reads all weights again for each.
    has_convolutions = any(isinstance(layer, _ConvNd) for layer in model.modules())
    return CONVOLUTION_BATCH if has_convolutions and device.type == "cpu" else EVALUATION_BATCH


def build_forward(model: nn.Module, recipe: Recipe, architecture: str = "") -> Callable[[Tensor], Tensor]:
    """Return a function from images [B, C, H, W] to float32 logits; puts the network in evaluation mode.

    With the name of the architecture, a GPU replays one graph for all models of that name, which differ in their
    weights only: it takes the weights of the first call. The graph gives no gradients.
    """
    model.eval()
    autocast, user = get_autocast_dtype(recipe.precision), object()

    def predict(images: Tensor) -> Tensor:
        graph = get_graph_forward(model, images, recipe, architecture) if architecture and images.is_cuda else None
        if graph is None:
            return compute_logits(model, images, autocast)
        # Once per model and not for each batch, unless another model was evaluated in between.
        if graph.user is not user:
            graph.load(model)
            graph.user = user
        return graph(images)

    return predict


_graph_cache: dict[tuple[object, ...], CudaGraphForward | None] = {}  # at most one, reused by a worker's jobs


def get_graph_forward(model: nn.Module, images: Tensor, recipe: Recipe, architecture: str) -> CudaGraphForward | None:
    """Return the graph for such networks and images; warn and return None without one."""
    # None is cached too, so that a network without a graph is tried, and warned about, once. Only one graph is kept: it
    # holds the activations of a batch. The name includes the shape of the images.
    tag = (architecture, recipe.precision, images.device)
    if tag not in _graph_cache:
        _graph_cache.clear()
        try:
            with handle_failed_recording(f"evaluation of {architecture}", 0, images.device):
                _graph_cache[tag] = CudaGraphForward(model, images, recipe)
        except GraphCaptureError as error:
            _log.warning("%s is evaluated without a CUDA graph, which is slower, because %s", architecture, error)
            _graph_cache[tag] = None
    return _graph_cache[tag]


def iterate_batches(images: DeviceImages, n: int, batch: int) -> Iterator[Tensor]:
    """Iterate over the first n images in batches; for their size see choose_evaluation_batch."""
    device = images.pixels.device
    return (images.take(torch.arange(s, min(s + batch, n), device=device)) for s in range(0, n, batch))


@torch.no_grad()
def predict_logits(
    model: nn.Module, recipe: Recipe, images: DeviceImages, n: int, architecture: str = "", seed: int | None = None
) -> Tensor:
    """Predict the logits [n, K] of the first n images; architecture as in build_forward, seed in evaluate_examples."""
    predict = build_forward(model, recipe, architecture)
    batch = choose_evaluation_batch(model, images.pixels.device)
    with seed_generators(seed, images.pixels.device):
        return torch.cat([predict(part) for part in iterate_batches(images, n, batch)])


@torch.no_grad()
def predict_embeddings(model: nn.Module, images: DeviceImages, n: int) -> Tensor:
    """Compute the float32 embeddings [n, E] of the first n images, outside autocast, as the model's mode has it."""
    batch = choose_evaluation_batch(model, images.pixels.device)
    return torch.cat([embed(model, part).float() for part in iterate_batches(images, n, batch)])


def logit_confidence(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute the log-odds of the label, log p_y / (1 - p_y), without forming p.

        phi = z_y - logsumexp_{k != y} z_k                          (Carlini et al. 2022, section IV-A)

    p_y = sigmoid(phi) and the loss is softplus(-phi), so neither is stored separately. Exact for two classes, finite
    where the softmax rounds to 0 or 1.

    Args:
        logits: float32 [B, K], K >= 2.
        labels: int64 [B].

    Returns:
        float32 [B]; higher means more confident in the label.
    """
    return _label_logits(logits, labels) - _other_logits(logits, labels).logsumexp(-1)


def gap(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute z_y minus the largest other logit; the model is right exactly when it is above 0.

    Args:
        logits: float32 [B, K], K >= 2.
        labels: int64 [B].

    Returns:
        float32 [B].
    """
    return _label_logits(logits, labels) - _other_logits(logits, labels).amax(-1)


def top_gap(logits: Tensor) -> Tensor:
    """Compute the largest logit minus the second largest (RSU, preliminaries).

    Args:
        logits: float32 [B, K], K >= 2.

    Returns:
        float32 [B], at least 0.
    """
    first, second = logits.topk(2, dim=-1).values.unbind(-1)
    return first - second


def evaluate_examples(
    predict: Callable[[Tensor], Tensor], images: DeviceImages, labels: Tensor, batch: int, *, seed: int | None = None
) -> dict[str, np.ndarray]:
    """Evaluate a model on every example, `batch` of them at once (choose_evaluation_batch).

    The seed is for networks that draw random numbers in evaluation mode too.

    Returns:
        correct bool [N]; logit_confidence, gap and top_gap float32 [N].
    """
    columns: list[tuple[Tensor, ...]] = []
    with torch.no_grad(), seed_generators(seed, labels.device):
        for start in range(0, len(labels), batch):
            rows = torch.arange(start, min(start + batch, len(labels)), device=labels.device)
            logits, batch_labels = predict(images.take(rows)), labels[rows]
            columns.append((logit_confidence(logits, batch_labels), gap(logits, batch_labels), top_gap(logits)))
    # Copied to the host once, at the end: each copy would wait for the device. A tie (gap 0) counts as wrong.
    confidence, margin, top = (torch.cat(column).cpu().numpy() for column in zip(*columns, strict=True))
    return {"correct": margin > 0, "logit_confidence": confidence, "gap": margin, "top_gap": top}


def _label_logits(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.gather(-1, labels[:, None])[:, 0]


def _other_logits(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.scatter(-1, labels[:, None], -torch.inf)
