"""Area under the margin (Pleiss et al. 2020): z_y minus the largest other logit, averaged over training.

Differs from the paper: the margin is taken in one evaluation pass after each epoch, so that all examples are read from
the same weights, where the paper takes it from the training pass of each batch.
"""

import numpy as np
import torch
from torch import Tensor, nn

from memscore.proxies.epoch_mean import EpochMean
from memscore.proxies.per_example_gradients import evaluating
from memscore.training.device_data import Images
from memscore.training.evaluation import observe


def margins(model: nn.Module, images: Images, labels: Tensor) -> np.ndarray:
    """The margin of each of the first N images at the weights as they stand.

    Args:
        model: on the images' device; afterwards as before, in weights and in mode.
        images: N or more, resident.
        labels: int64 [N], same device.

    Returns:
        float32 [N]; below 0 where another class wins. Lower is more memorized.
    """
    with evaluating(model), torch.no_grad():
        return observe(model, images, labels)["gap"]


def area_under_margin(model: nn.Module, images: Images, labels: Tensor) -> EpochMean:
    """The margin averaged over every epoch: hand it to train(..., at_epoch=...), then ask for its mean().

    Args:
        model: the one that is trained.
        images: N or more, resident.
        labels: int64 [N], same device.

    Returns:
        The running mean, [N]; lower is more memorized.
    """
    return EpochMean(lambda: margins(model, images, labels))
