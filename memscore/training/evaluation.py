"""What a trained model says of every example: right or wrong, and three numbers of its logits."""

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
"""Images that are evaluated at once; the last bits of what is said of one may hang on it."""


def build_forward(model: nn.Module, recipe: Recipe, architecture: str = "") -> Callable[[Tensor], Tensor]:
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
        static = get_graph_forward(model, images, recipe, architecture) if architecture and images.is_cuda else None
        return static(model, images) if static else compute_logits(model, images, autocast)

    return logits_of


_graph_cache: dict[tuple[object, ...], CudaGraphForward | None] = {}  # one, kept between the jobs of a worker


def get_graph_forward(model: nn.Module, images: Tensor, recipe: Recipe, architecture: str) -> CudaGraphForward | None:
    """The graph for such networks and images; None, after a warning, if there can be none."""
    tag = (architecture, recipe.precision, images.device)
    if tag not in _graph_cache:
        _graph_cache.clear()
        try:
            _graph_cache[tag] = CudaGraphForward(model, images, recipe)
        except GraphCaptureError as refusal:
            _log.warning("%s is evaluated without a CUDA graph, which is slower, because %s", architecture, refusal)
            _graph_cache[tag] = None
    return _graph_cache[tag]


def iterate_batches(images: DeviceImages, n: int, batch: int = EVALUATION_BATCH) -> Iterator[Tensor]:
    """The first n images in batches."""
    device = images.pixels.device
    return (images.take(torch.arange(s, min(s + batch, n), device=device)) for s in range(0, n, batch))


@torch.no_grad()
def predict_logits(model: nn.Module, recipe: Recipe, images: DeviceImages, n: int, architecture: str = "") -> Tensor:
    """Logits [n, K] of the first n images; for the architecture see forward."""
    logits_of = build_forward(model, recipe, architecture)
    return torch.cat([logits_of(part) for part in iterate_batches(images, n)])


PREDICTION_COLUMNS = ("correct", "logit_confidence", "gap", "top_gap")


def logit_confidence(logits: Tensor, labels: Tensor) -> Tensor:
    """How sure a model is of the label, as log-odds: log p_y / (1 - p_y), without forming p.

        phi = z_y - logsumexp_{k != y} z_k                          (Carlini et al. 2022, section IV-A)

    p_y = sigmoid(phi) and the loss is softplus(-phi), so neither is stored a second time. Exact for two classes, finite
    where the softmax rounds to 0 or 1.

    Args:
        logits: float32 [B, K], K >= 2.
        labels: int64 [B].

    Returns:
        float32 [B]; higher means surer of the label.
    """
    return _own(logits, labels) - _others(logits, labels).logsumexp(-1)


def gap(logits: Tensor, labels: Tensor) -> Tensor:
    """z_y minus the largest other logit; the model is right exactly when it is above 0.

    Args:
        logits: float32 [B, K], K >= 2.
        labels: int64 [B].

    Returns:
        float32 [B].
    """
    return _own(logits, labels) - _others(logits, labels).amax(-1)


def top_gap(logits: Tensor) -> Tensor:
    """The largest logit minus the second largest, whatever the label is (RSU, preliminaries).

    Args:
        logits: float32 [B, K], K >= 2.

    Returns:
        float32 [B], at least 0.
    """
    first, second = logits.topk(2, dim=-1).values.unbind(-1)
    return first - second


def evaluate_examples(
    logits_of: Callable[[Tensor], Tensor], images: DeviceImages, labels: Tensor, batch: int = 1024
) -> dict[str, np.ndarray]:
    """What one model says of every example, in the order of the examples.

    Args:
        logits_of: images [B, C, H, W] -> float32 logits [B, K], of a network in evaluation mode.
        images: N images on the model's device.
        labels: int64 [N], same device.
        batch: images a forward pass; part of the numbers' bits, so every engine uses the same.

    Returns:
        correct bool [N] and logit_confidence, gap, top_gap float32 [N]; correct is gap > 0, so a tie counts as wrong.
    """
    parts: list[tuple[Tensor, ...]] = []
    with torch.no_grad():
        for start in range(0, len(labels), batch):
            rows = torch.arange(start, min(start + batch, len(labels)), device=labels.device)
            logits, truth = logits_of(images.take(rows)), labels[rows]
            parts.append((logit_confidence(logits, truth), gap(logits, truth), top_gap(logits)))
    confidence, margin, top = (torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True))
    return {"correct": margin > 0, "logit_confidence": confidence, "gap": margin, "top_gap": top}


def _own(logits: Tensor, labels: Tensor) -> Tensor:
    """z_y of each row."""
    return logits.gather(-1, labels[:, None])[:, 0]


def _others(logits: Tensor, labels: Tensor) -> Tensor:
    """The logits with the label's own set to minus infinity."""
    return logits.scatter(-1, labels[:, None], -torch.inf)
