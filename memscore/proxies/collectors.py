"""Compute proxies at the ends of epochs while an original trains, and time each of them."""

import time
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from memscore.models.random_state import seed_generators
from memscore.proxies.aum import track_area_under_margin
from memscore.proxies.el2n_grand import el2n, grand
from memscore.proxies.epoch_mean import EpochMean
from memscore.proxies.loss_curvature import CURVATURES, track_curvature
from memscore.proxies.per_example_gradients import evaluation_mode
from memscore.training.device_data import DeviceImages
from memscore.training.evaluation import predict_logits
from memscore.training.loop import split_into_windows
from memscore.training.recipes import Recipe

EARLY_SHARE = 0.1


class ProxyCollector:
    """Callback for `train(..., on_epoch_end=...)`: running means of proxies, and the seconds spent on each."""

    def __init__(self, epoch_means: Mapping[str, EpochMean], device: torch.device, seed: int | None = None) -> None:
        self.epoch_means, self.device, self.seed = epoch_means, device, seed
        self.seconds = dict.fromkeys(epoch_means, 0.0)

    def __call__(self, epoch: int) -> None:
        """Compute every proxy that includes this epoch."""
        for name, epoch_mean in self.epoch_means.items():
            # a GPU runs behind the CPU: training steps in its queue would count as this proxy's time. No second wait
            # is needed at the end, since every proxy returns NumPy values.
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            started = time.perf_counter()
            # what the network draws does not depend on which other proxies are computed
            with seed_generators(self.seed, self.device):
                epoch_mean(epoch)
            self.seconds[name] += time.perf_counter() - started


def build_epoch_means(
    names: Iterable[str],
    model: nn.Module,
    images: DeviceImages,
    labels: Tensor,
    recipe: Recipe,
    steps: int,
    make_rng: Callable[[str], np.random.Generator],
) -> dict[str, EpochMean]:
    """Build the running mean of each of these proxies over the first N images.

    Curvature and area under the margin are averaged over every epoch (SCALE 2.2; Pleiss et al. 2020). EL2N and GraNd
    are computed once, after a tenth of the epochs: Paul et al. 2021 compute EL2N after 10 or 20 of 200. Differs from
    that paper: GraNd is computed at that epoch too, and not at initialization.

    Args:
        names: proxies whose `stage` is EVERY_EPOCH or EARLY_EPOCH.
        model: the model in training.
        images: N or more, on the device.
        labels: int64 [N], same device.
        recipe: its epochs say when the early ones are computed.
        steps: T of the training; with fewer steps than epochs, not every epoch has an end.
        make_rng: proxy -> its random stream; called only for proxies that draw.

    Returns:
        Name -> running mean, whose mean() is [N].
    """
    early_epochs = {find_early_epoch(recipe.epochs, steps)}

    def compute_el2n() -> np.ndarray:
        # predict_logits leaves the model in evaluation mode; the training that goes on needs its own mode back
        with evaluation_mode(model):
            logits = predict_logits(model, recipe, images, len(labels))
        return el2n(logits.cpu().numpy(), labels.cpu().numpy())

    # functions, so that a proxy that is not requested draws no random stream
    builders: dict[str, Callable[[], EpochMean]] = {
        "curvature-sign": lambda: track_curvature(
            model, images, labels, CURVATURES["sign"], make_rng("curvature-sign")
        ),
        "curvature-rademacher": lambda: track_curvature(
            model, images, labels, CURVATURES["rademacher"], make_rng("curvature-rademacher")
        ),
        "aum": lambda: track_area_under_margin(model, images, labels),
        "el2n": lambda: EpochMean(compute_el2n, early_epochs),
        "grand": lambda: EpochMean(lambda: grand(model, images, labels), early_epochs),
    }
    return {name: builders[name]() for name in names}


def find_early_epoch(epochs: int, steps: int) -> int:
    """Find the first epoch end at or after a tenth of the training.

    Returns:
        One of the epochs that training passes to the callback: with fewer steps than epochs, it skips some.

    >>> find_early_epoch(30, 1000), find_early_epoch(200, 5000), find_early_epoch(2, 10)
    (3, 20, 1)
    """
    ends = (epoch for _, epoch in split_into_windows(steps, epochs, steps) if epoch)
    return next(epoch for epoch in ends if epoch >= max(1, round(EARLY_SHARE * epochs)))
