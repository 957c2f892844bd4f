"""Loss curvature: how much the loss's input gradient changes around an example.

    sign         || grad_x l(x + z) - grad_x l(x) ||_2,   z = h s / ||s||_2,  s = sign(grad_x l(x))
    rademacher   mean over v of || grad_x l(x + h v) - grad_x l(x) ||_2,   v = +1 or -1 for each pixel

"sign" is the direction of CURE (Moosavi-Dezfooli et al. 2019) as RUM's released code uses it for SCALE 2.2; neither
form is divided by h. For small h the second is the mean of h ||H v||, where E ||H v||^2 = Tr(H^2) = ||H||_F^2 (Garg
et al. 2023): it ranks examples by the Frobenius norm of the Hessian H, not by its trace. A mean of norms is at most the
root of the mean square, so it lies some percent below h ||H||_F, for all examples alike.

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
    """The definition of curvature and its settings; checks itself.

    Attributes:
        direction: one of DIRECTIONS.
        h: length of the step z, or size of a probe's entries; in units of normalised pixels.
        probes: random directions; 1 for "sign", which has only one.
        source: of the numbers.
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
    """Compute the loss curvature around each of the first N images, by the config's definition.

    Args:
        model: on the images' device; its weights and mode are unchanged afterwards.
        images: N or more, on the device.
        labels: int64 [N], same device.
        config: the definition.
        rng: draws the probes, example by example, so that they do not depend on the batch size.
        batch: examples per pass.

    Returns:
        [N], 0 or more; higher is more memorized. "rademacher" estimates h ||H||_F (Frobenius norm), from below.
    """
    parts = []
    with evaluation_mode(model):
        for start in range(0, len(labels), batch):
            rows = torch.arange(start, min(start + batch, len(labels)), device=labels.device)
            batch_images, batch_labels = images.take(rows), labels[rows]

            def compute_gradient(pixels: Tensor, labels: Tensor = batch_labels) -> Tensor:
                return compute_input_gradient(model, pixels, labels)

            parts.append(compute_gradient_change(compute_gradient, batch_images, config, rng).cpu().numpy())
    return np.concatenate(parts)


def track_curvature(
    model: nn.Module, images: DeviceImages, labels: Tensor, config: CurvatureConfig, rng: np.random.Generator
) -> EpochMean:
    """Track mean curvature, [N], with new probes every epoch: pass it as train(..., on_epoch_end=...), then mean()."""
    return EpochMean(lambda: curvature(model, images, labels, config, rng))


def compute_gradient_change(
    compute_gradient: Callable[[Tensor], Tensor], images: Tensor, config: CurvatureConfig, rng: np.random.Generator
) -> Tensor:
    """Compute || grad(x + step) - grad(x) ||_2 for the config's step, or its mean over probes.

    Args:
        compute_gradient: images -> the gradient of each image's loss, same shape.
        images: [B, ...].
        config: the definition.
        rng: draws the probes; "sign" draws none.

    Returns:
        [B], 0 or more.
    """
    # a finite difference of gradients: the Hessian times the step, up to O(h^2)
    gradient = compute_gradient(images)
    if config.direction == "sign":
        signs = gradient.sign()
        # the root of the number of pixels with a gradient: 1 or more, unless all are 0, and then the step is 0
        length = signs.flatten(1).norm(dim=1).clamp_min(1).view(-1, *[1] * (images.ndim - 1))  # [B, 1, ...]
        return _distance(compute_gradient(images + config.h * signs / length), gradient)
    # [B, n, ...]; one backward pass for each probe, so that the memory of activations does not grow with n
    probes = draw_rademacher_signs(images.shape, config.probes, rng).to(images)
    steps = [_distance(compute_gradient(images + config.h * probes[:, k]), gradient) for k in range(config.probes)]
    return torch.stack(steps).mean(0)


def draw_rademacher_signs(shape: torch.Size, probes: int, rng: np.random.Generator) -> Tensor:
    """Draw +1 or -1 with equal probability for every pixel of every example and probe.

    Args:
        shape: [B, ...] of the examples.
        probes: n.
        rng: draws the signs, example by example.

    Returns:
        int8 [B, n, ...], +1 or -1.
    """
    # One random bit per sign, in whole 64-bit words per example: B examples take the same words from the stream in one
    # call as in several, so the signs do not depend on the batch size. Bits of the last word beyond n signs are unused.
    pixels = int(np.prod(shape[1:]))
    words = rng.integers(0, 2**64, (shape[0], -(-probes * pixels // 64)), dtype=np.uint64)
    bits = np.unpackbits(words.view(np.uint8), axis=1)[:, : probes * pixels]
    return torch.from_numpy(bits.astype(np.int8) * 2 - 1).view(shape[0], probes, *shape[1:])


def _distance(a: Tensor, b: Tensor) -> Tensor:
    distance: Tensor = (a - b).flatten(1).norm(dim=1)
    return distance
