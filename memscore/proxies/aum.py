"""Area under the margin (Pleiss et al. 2020): z_y minus the largest other logit, averaged over training.

Differs from the paper: the margin is taken in one evaluation pass after each epoch, so that all examples are read from
the same weights, where the paper takes it from the training pass of each batch.
"""

import numpy as np
import torch
from torch import Tensor, nn

from memscore.proxies.epoch_mean import EpochMean
from memscore.proxies.per_example_gradients import evaluation_mode
from memscore.training.device_data import DeviceImages
from memscore.training.evaluation import evaluate_examples


def compute_margins(model: nn.Module, images: DeviceImages, labels: Tensor) -> np.ndarray:
    """The margin of each of the first N images at the weights as they stand.

    Args:
        model: on the images' device; afterwards as before, in weights and in mode.
        images: N or more, resident.
        labels: int64 [N], same device.

    Returns:
        float32 [N]; below 0 where another class wins. Lower is more memorized.
    """
    with evaluation_mode(model), torch.no_grad():
        return evaluate_examples(model, images, labels)["gap"]


def track_area_under_margin(model: nn.Module, images: DeviceImages, labels: Tensor) -> EpochMean:
    """The margin averaged over every epoch: hand it to train(..., at_epoch=...), then ask for its mean().

    Args:
        model: the one that is trained.
        images: N or more, resident.
        labels: int64 [N], same device.

    Returns:
        The running mean, [N]; lower is more memorized.
    """
    return EpochMean(lambda: compute_margins(model, images, labels))
