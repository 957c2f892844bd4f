"""The proxies that are taken while an original trains, and the seconds that each of them adds."""

import time
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

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
    """Hand it to `train(..., at_epoch=...)`; afterwards it has the mean of each proxy, and its seconds.

    Attributes:
        epoch_means: name -> what takes it.
        device: where the model is; what it still has to do for the training is not a proxy's time.
        seconds: name -> spent on it so far.
    """

    def __init__(self, takers: Mapping[str, EpochMean], device: torch.device) -> None:
        self.epoch_means, self.device = takers, device
        self.seconds = dict.fromkeys(takers, 0.0)

    def __call__(self, epoch: int) -> None:
        """Take every proxy that this epoch counts for."""
        for name, taker in self.epoch_means.items():
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            started = time.perf_counter()
            taker(epoch)
            self.seconds[name] += time.perf_counter() - started


def build_epoch_means(
    names: Iterable[str],
    model: nn.Module,
    images: DeviceImages,
    labels: Tensor,
    recipe: Recipe,
    steps: int,
    rng_of: Callable[[str], np.random.Generator],
) -> dict[str, EpochMean]:
    """What takes each of these proxies of the first N images, at the epochs that count for it.

    Curvature and area under the margin are averaged over every epoch (SCALE 2.2; Pleiss et al. 2020). EL2N and GraNd
    are taken once, after a tenth of the epochs: Paul et al. 2021 take EL2N after 10 or 20 of 200. Differs from that
    paper: GraNd too is taken there and not at initialisation.

    Args:
        names: proxies whose `taken` is EVERY or EARLY.
        model: the one that is trained.
        images: N or more, resident.
        labels: int64 [N], same device.
        recipe: of the training.
        steps: T of the training.
        rng_of: a stream for each proxy that draws.

    Returns:
        Name -> its running mean.
    """
    early = {find_early_epoch(recipe.epochs, steps)}

    def early_el2n() -> np.ndarray:
        with evaluation_mode(model):
            logits = predict_logits(model, recipe, images, len(labels))
        return el2n(logits.cpu().numpy(), labels.cpu().numpy())

    makers: dict[str, Callable[[], EpochMean]] = {
        "curvature-sign": lambda: track_curvature(model, images, labels, CURVATURES["sign"], rng_of("curvature-sign")),
        "curvature-rademacher": lambda: track_curvature(
            model, images, labels, CURVATURES["rademacher"], rng_of("curvature-rademacher")
        ),
        "aum": lambda: track_area_under_margin(model, images, labels),
        "el2n": lambda: EpochMean(early_el2n, early),
        "grand": lambda: EpochMean(lambda: grand(model, images, labels), early),
    }
    return {name: makers[name]() for name in names}


def find_early_epoch(epochs: int, steps: int) -> int:
    """The first epoch end at or after a tenth of the training; with fewer steps than epochs, some have no end.

    Args:
        epochs: of the recipe.
        steps: T.

    Returns:
        One of the epochs that training reports.

    >>> find_early_epoch(30, 1000), find_early_epoch(200, 5000), find_early_epoch(2, 10)
    (3, 20, 1)
    """
    ends = (epoch for _, epoch in split_into_windows(steps, epochs, steps) if epoch)
    return next(epoch for epoch in ends if epoch >= max(1, round(EARLY_SHARE * epochs)))
