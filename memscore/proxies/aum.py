"""Area under the margin (Pleiss et al. 2020): z_y minus the largest other logit.

Differs from the paper: the margin is computed in one evaluation pass after each epoch, so that all examples are
evaluated with the same weights, where the paper uses the training pass of each batch.
"""

import numpy as np
import torch
from torch import Tensor, nn

from memscore.proxies.epoch_mean import EpochMean
from memscore.proxies.per_example_gradients import evaluation_mode
from memscore.training.device_data import DeviceImages
from memscore.training.evaluation import choose_evaluation_batch, evaluate_examples


def compute_margins(model: nn.Module, images: DeviceImages, labels: Tensor) -> np.ndarray:
    """Compute the margin of each of the first N images at the current weights.

    Args:
        model: on the images' device; its weights and mode are unchanged afterwards.
        images: N or more, on the device; the first N are scored.
        labels: int64 [N], same device.

    Returns:
        float32 [N]; below 0 where another class has a larger logit. Lower is more memorized.
    """
    with evaluation_mode(model), torch.no_grad():
        return evaluate_examples(model, images, labels, choose_evaluation_batch(model, labels.device))["gap"]


def track_area_under_margin(model: nn.Module, images: DeviceImages, labels: Tensor) -> EpochMean:
    """Track the mean margin, [N], lower if memorized: pass it as train(..., on_epoch_end=...), then call mean()."""
    return EpochMean(lambda: compute_margins(model, images, labels))
