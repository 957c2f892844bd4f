"""Evaluate a trained model on every example: correctness and three numbers of its logits."""

import logging
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from memscore.models.architectures import compute_logits
from memscore.training.cuda_graphs import CudaGraphForward, GraphCaptureError
from memscore.training.device_data import DeviceImages
from memscore.training.recipes import Recipe

_log = logging.getLogger(__name__)
EVALUATION_BATCH = 1024
"""Images evaluated at once; the last bits of an example's logits may depend on it."""


def build_forward(model: nn.Module, recipe: Recipe, architecture: str = "") -> Callable[[Tensor], Tensor]:
    """Build a function from images to float32 logits, with the network in evaluation mode.

    Args:
        model: on the images' device.
        recipe: its precision is used.
        architecture: of the model; if given, a GPU replays one graph for all models of this architecture, which differ
            in their weights only. The graph gives no gradients.

    Returns:
        A function of images [B, C, H, W].
    """
    model.eval()
    autocast = torch.bfloat16 if recipe.precision == "bfloat16" else None

    def predict(images: Tensor) -> Tensor:
        graph = get_graph_forward(model, images, recipe, architecture) if architecture and images.is_cuda else None
        return graph(model, images) if graph else compute_logits(model, images, autocast)

    return predict


_graph_cache: dict[tuple[object, ...], CudaGraphForward | None] = {}  # at most one, reused by a worker's jobs


def get_graph_forward(model: nn.Module, images: Tensor, recipe: Recipe, architecture: str) -> CudaGraphForward | None:
    """Return the graph for such networks and images; warn and return None without one."""
    tag = (architecture, recipe.precision, images.device)
    if tag not in _graph_cache:
        _graph_cache.clear()
        try:
            _graph_cache[tag] = CudaGraphForward(model, images, recipe)
        except GraphCaptureError as error:
            _log.warning("%s is evaluated without a CUDA graph, which is slower, because %s", architecture, error)
            _graph_cache[tag] = None
    return _graph_cache[tag]


def iterate_batches(images: DeviceImages, n: int, batch: int = EVALUATION_BATCH) -> Iterator[Tensor]:
    """Iterate over the first n images in batches."""
    device = images.pixels.device
    return (images.take(torch.arange(s, min(s + batch, n), device=device)) for s in range(0, n, batch))


@torch.no_grad()
def predict_logits(model: nn.Module, recipe: Recipe, images: DeviceImages, n: int, architecture: str = "") -> Tensor:
    """Predict the logits [n, K] of the first n images; for the architecture see build_forward."""
    predict = build_forward(model, recipe, architecture)
    return torch.cat([predict(part) for part in iterate_batches(images, n)])


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
    predict: Callable[[Tensor], Tensor], images: DeviceImages, labels: Tensor, batch: int = 1024
) -> dict[str, np.ndarray]:
    """Evaluate one model on every example, in the order of the examples.

    Args:
        predict: images [B, C, H, W] -> float32 logits [B, K], of a network in evaluation mode.
        images: N images on the model's device.
        labels: int64 [N], same device.
        batch: images per forward pass; the last bits depend on it, so every engine uses the same value.

    Returns:
        correct bool [N] and logit_confidence, gap, top_gap float32 [N]; correct is gap > 0, so a tie counts as wrong.
    """
    columns: list[tuple[Tensor, ...]] = []
    with torch.no_grad():
        for start in range(0, len(labels), batch):
            rows = torch.arange(start, min(start + batch, len(labels)), device=labels.device)
            logits, batch_labels = predict(images.take(rows)), labels[rows]
            columns.append((logit_confidence(logits, batch_labels), gap(logits, batch_labels), top_gap(logits)))
    confidence, margin, top = (torch.cat(column).cpu().numpy() for column in zip(*columns, strict=True))
    return {"correct": margin > 0, "logit_confidence": confidence, "gap": margin, "top_gap": top}


def _label_logits(logits: Tensor, labels: Tensor) -> Tensor:
    """Return z_y of each row."""
    return logits.gather(-1, labels[:, None])[:, 0]


def _other_logits(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the logits with the label's set to minus infinity."""
    return logits.scatter(-1, labels[:, None], -torch.inf)
