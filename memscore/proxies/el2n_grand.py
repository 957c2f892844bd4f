"""EL2N and GraNd: error and gradient norm early in training (Paul et al. 2021).

    EL2N = || p - onehot(y) ||_2          GraNd = || grad_theta l(x, y) ||_2

both in expectation over initializations: the caller averages over originals. The paper computes GraNd at the start of
training and EL2N after a few epochs (10 and 20 of 200); `EpochMean(..., epochs=(10,))` selects the epoch.
"""

import numpy as np
import torch
from torch import Tensor, nn

from memscore.models.architectures import count_parameters
from memscore.proxies.per_example_gradients import build_gradient_function, evaluation_mode
from memscore.training.device_data import DeviceImages

GRADIENT_BYTES = 64 * 2**20  # of gradients in memory at once


def el2n(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Compute || p - onehot(y) ||_2, the distance between the predicted distribution and the label.

    1 - p_y is summed from the other classes, so it does not round to 0 where p_y rounds to 1.

    Args:
        logits: [N, K], K >= 2.
        labels: int64 [N].

    Returns:
        float64 [N] in [0, sqrt 2]; higher is more memorized.
    """
    z = np.asarray(logits, np.float64)
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    rows = np.arange(len(z))
    # p now holds the other classes only: their squares, and their sum 1 - p_y for the label's own entry
    p[rows, labels] = 0
    return np.asarray(np.sqrt((p**2).sum(1) + p.sum(1) ** 2))


def grand(model: nn.Module, images: DeviceImages, labels: Tensor, chunk: int | None = None) -> np.ndarray:
    """Compute || grad_theta l(x, y) ||_2 of each example over all weights, in evaluation mode.

    Args:
        model: on the images' device; its weights and mode are unchanged afterwards.
        images: N or more, on the device; the first N are scored.
        labels: int64 [N], same device.
        chunk: examples at once; None computes the number from GRADIENT_BYTES, at most 256.

    Returns:
        [N], 0 or more; higher is more memorized.
    """
    size = chunk or int(np.clip(GRADIENT_BYTES // (4 * count_parameters(model)), 1, 256))
    compute_gradients, norms = build_gradient_function(model), []
    # torch.func.grad computes gradients inside no_grad too, which only keeps them from being differentiated again
    with evaluation_mode(model), torch.no_grad():
        for start in range(0, len(labels), size):
            rows = torch.arange(start, min(start + size, len(labels)), device=labels.device)
            gradients = compute_gradients(images.take(rows), labels[rows])
            # [parameters, B]; the norm of the norms is the norm over all weights
            lengths = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients])
            norms.append(lengths.norm(dim=0).cpu().numpy())
    return np.concatenate(norms)
