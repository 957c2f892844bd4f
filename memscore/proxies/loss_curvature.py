"""Loss curvature: how fast the loss's slope in input space turns around an example, averaged over training.

    sign         || grad_x l(x + z) - grad_x l(x) ||_2,   z = h s / ||s||_2,  s = sign(grad_x l(x))
    rademacher   mean over v of || grad_x l(x + h v) - grad_x l(x) ||_2,   v = +1 or -1 for each pixel

"sign" is the direction of CURE (Moosavi-Dezfooli et al. 2019) as RUM's released code takes it for SCALE 2.2; neither
form is divided by h. For small h the second is h ||H v||, and E ||H v||^2 = Tr(H^2) (Garg et al. 2023).

Differs from the papers: each epoch is scored in one evaluation pass after it, in float32, where RUM scores every batch
during it. Where the gradient is exactly 0 there is no direction; the loss is flat there and its curvature 0.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from memscore.choices import validate_choice
from memscore.proxies.epoch_mean import EpochMean
from memscore.proxies.per_example_gradients import compute_input_gradient, evaluation_mode
from memscore.training.device_data import DeviceImages

DIRECTIONS = ("sign", "rademacher")


@dataclass(frozen=True, kw_only=True)
class CurvatureConfig:
    """Which definition, and its numbers; checks itself.

    Attributes:
        direction: one of DIRECTIONS.
        h: length of the step z, or size of a probe's entries; in units of normalised pixels.
        probes: random directions; 1 for "sign", which has but one.
        source: where the numbers are from.
    """

    direction: str = "sign"
    h: float = 0.01
    probes: int = 1
    source: str = "RUM's released code: h 0.01, one direction"

    def __post_init__(self) -> None:
        validate_choice("curvature direction", self.direction, DIRECTIONS)
        if not 0 < self.h < np.inf:
            raise ValueError(f"h must be above 0 and finite, got {self.h}; RUM takes 0.01, Garg et al. 0.001")
        if self.probes < 1 or (self.direction == "sign" and self.probes > 1):
            raise ValueError(
                f"probes must be 1 or more, and 1 for direction 'sign', got {self.probes} for {self.direction!r}; "
                "more of them need direction 'rademacher'"
            )


CURVATURES: dict[str, CurvatureConfig] = {
    "sign": CurvatureConfig(),
    "rademacher": CurvatureConfig(
        direction="rademacher", h=1e-3, probes=10, source="Garg et al. 2023, released code: h 0.001, n 10"
    ),
}


def curvature(
    model: nn.Module,
    images: DeviceImages,
    labels: Tensor,
    config: CurvatureConfig,
    rng: np.random.Generator,
    batch: int = 256,
) -> np.ndarray:
    """Curvature of the loss around each of the first N images, at the weights as they stand.

    Args:
        model: on the images' device; afterwards as before, in weights and in mode.
        images: N or more, resident.
        labels: int64 [N], same device.
        config: which definition.
        rng: draws the probes, example by example, so that the batch size changes none.
        batch: examples a pass.

    Returns:
        [N], 0 or more; higher is more memorized.
    """
    parts = []
    with evaluation_mode(model):
        for start in range(0, len(labels), batch):
            rows = torch.arange(start, min(start + batch, len(labels)), device=labels.device)
            shown, truth = images.take(rows), labels[rows]

            def slope(at: Tensor, truth: Tensor = truth) -> Tensor:
                return compute_input_gradient(model, at, truth)

            parts.append(compute_gradient_change(slope, shown, config, rng).cpu().numpy())
    return np.concatenate(parts)


def track_curvature(
    model: nn.Module, images: DeviceImages, labels: Tensor, config: CurvatureConfig, rng: np.random.Generator
) -> EpochMean:
    """Curvature averaged over every epoch of training: hand it to train(..., at_epoch=...), then ask for its mean().

    Args:
        model: the one that is trained.
        images: N or more, resident.
        labels: int64 [N], same device.
        config: which definition.
        rng: draws the probes, other ones at every epoch.

    Returns:
        The running mean, [N].
    """
    return EpochMean(lambda: curvature(model, images, labels, config, rng))


def compute_gradient_change(
    slope: Callable[[Tensor], Tensor], images: Tensor, config: CurvatureConfig, rng: np.random.Generator
) -> Tensor:
    """How much the slope changes over one small step, by the definition that the config names.

    Args:
        slope: images -> the gradient of each one's loss, same shape.
        images: [B, ...].
        config: which definition.
        rng: draws the probes; "sign" draws none.

    Returns:
        [B].
    """
    here = slope(images)
    if config.direction == "sign":
        signs = here.sign()
        length = signs.flatten(1).norm(dim=1).clamp_min(1)  # at least 1 unless all are 0, and then the step is 0
        return _distance(slope(images + config.h * signs / _column(length, images)), here)
    probes = draw_rademacher_signs(images.shape, config.probes, rng).to(images)
    steps = [_distance(slope(images + config.h * probes[:, k]), here) for k in range(config.probes)]
    return torch.stack(steps).mean(0)


def draw_rademacher_signs(shape: torch.Size, probes: int, rng: np.random.Generator) -> Tensor:
    """Fair signs for every pixel of every example.

    Args:
        shape: [B, ...] of the examples.
        probes: n.
        rng: gives whole 64-bit words to each example, so the examples may come in any batches.

    Returns:
        int8 [B, n, ...], +1 or -1.
    """
    pixels = int(np.prod(shape[1:]))
    words = rng.integers(0, 2**64, (shape[0], -(-probes * pixels // 64)), dtype=np.uint64)
    bits = np.unpackbits(words.view(np.uint8), axis=1)[:, : probes * pixels]
    return torch.from_numpy(bits.astype(np.int8) * 2 - 1).view(shape[0], probes, *shape[1:])


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean, one an example."""
    distance: Tensor = (a - b).flatten(1).norm(dim=1)
    return distance


def _column(values: Tensor, like: Tensor) -> Tensor:
    """[B] as [B, 1, ...]."""
    return values.view(-1, *[1] * (like.ndim - 1))
