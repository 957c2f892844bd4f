"""EL2N and GraNd: how wrong a network still is on an example, early in training (Paul, Ganguli & Dziugaite 2021).

    EL2N = || p - onehot(y) ||_2          GraNd = || grad_theta l(x, y) ||_2

both expected over initialisations: the caller averages over originals. The paper takes GraNd at the start of training
and EL2N after a few epochs (10 and 20 of 200); `EpochMean(..., epochs=(10,))` picks the epoch.
"""

import numpy as np
import torch
from torch import Tensor, nn

from memscore.models.architectures import count_parameters
from memscore.proxies.per_example_gradients import build_gradient_function, evaluation_mode
from memscore.training.device_data import DeviceImages

GRADIENT_BYTES = 64 * 2**20  # of gradients that stand in memory at once


def el2n(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Distance between the predicted distribution and the label.

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
    p[rows, labels] = 0
    return np.asarray(np.sqrt((p**2).sum(1) + p.sum(1) ** 2))


def grand(model: nn.Module, images: DeviceImages, labels: Tensor, chunk: int | None = None) -> np.ndarray:
    """Norm of each example's own gradient over all weights, in evaluation mode.

    Args:
        model: on the images' device; afterwards as before, in weights and in mode.
        images: N or more, resident.
        labels: int64 [N], same device.
        chunk: examples at once; None takes what GRADIENT_BYTES hold, at most 256.

    Returns:
        [N], 0 or more; higher is more memorized.
    """
    size = chunk or int(np.clip(GRADIENT_BYTES // (4 * count_parameters(model)), 1, 256))
    gradients, norms = build_gradient_function(model), []
    with evaluation_mode(model), torch.no_grad():
        for start in range(0, len(labels), size):
            rows = torch.arange(start, min(start + size, len(labels)), device=labels.device)
            slopes = gradients(images.take(rows), labels[rows])
            lengths = torch.stack([slope.flatten(1).norm(dim=1) for slope in slopes])
            norms.append(lengths.norm(dim=0).cpu().numpy())
    return np.concatenate(norms)
