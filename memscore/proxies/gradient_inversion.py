"""Gradient inversion: reconstruct an example from its gradient alone (PRMI of RSU).

The attacker knows the weights, the label and g = grad_theta l(x, y), and searches for the image whose gradient has the
same direction (Geiping et al. 2020):

    x^ = argmin_{x' in the box} 1 - <g(x'), g> / (||g(x')|| ||g||) + lambda TV(x')

by Adam on the sign of the gradient; TV is the mean absolute difference of neighbouring pixels, vertical plus
horizontal. Of several starts the one whose gradient matches best is selected, by the cost without TV as in their
released code: the attacker cannot see which is nearest to the example, and TV prefers a blurred one. The step size
falls tenfold after 3/8, 5/8 and 7/8 of the iterations.

The cost fixes a direction, so the contrast of the result drifts, and PSNR and SSIM follow the example's own brightness
and contrast. image_similarity.py has the measures that do not.

RSU (Fig. 1, Table 1) states neither settings nor when an attack counts as successful. Differs from Geiping et al.: 500
iterations and not 24,000; success is a threshold of this project, stated in the config.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from memscore.proxies.image_similarity import psnr, psnr_fitted, ssim, ssim_fitted
from memscore.proxies.per_example_gradients import PerExampleGradients, build_gradient_function, evaluation_mode

LR_DECAYS = (3 / 8, 5 / 8, 7 / 8)
ADAM_BETAS = (0.9, 0.999)


@dataclass(frozen=True, kw_only=True)
class InversionConfig:
    """Settings of the attack, and what counts as success; checks itself.

    Attributes:
        iterations: per start.
        lr: first step size, in normalised pixels.
        total_variation: lambda.
        restarts: random starts per example.
        success_psnr: decibels from which a reconstruction counts as a success; 20 is an error of a tenth of the range.
        source: of the numbers.
    """

    iterations: int = 500
    lr: float = 0.1
    total_variation: float = 0.1
    restarts: int = 1
    success_psnr: float = 20.0
    source: str = "Geiping et al. 2020, released code: signed Adam 0.1, total variation 0.1, boxed; iterations our own"

    def __post_init__(self) -> None:
        rules = (
            ("iterations", self.iterations >= 1, "1 or more"),
            ("lr", 0 < self.lr < np.inf, "above 0 and finite"),
            ("total_variation", 0 <= self.total_variation < np.inf, "0 or more and finite"),
            ("restarts", self.restarts >= 1, "1 or more"),
            ("success_psnr", np.isfinite(self.success_psnr), "finite"),
        )
        for name, holds, rule in rules:
            if not holds:
                raise ValueError(f"{name} must be {rule}, got {getattr(self, name)}")


def gradient_inversion(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    normalisation: tuple[tuple[float, ...], tuple[float, ...]],
    config: InversionConfig,
    rng: np.random.Generator,
    chunk: int = 64,
) -> dict[str, np.ndarray]:
    """Reconstruct each of these examples from its gradient, and compare the result with the example.

    Args:
        model: its weights and mode are not changed.
        images: [B, C, H, W], normalised, in the dtype and on the device of the model.
        labels: int64 [B], same device.
        normalisation: (mean, std) of each channel, for images in [0, 1].
        config: the attack.
        rng: draws the starts, example by example.
        chunk: examples attacked at once.

    Returns:
        psnr (decibels), ssim, psnr_fitted (decibels) and ssim_fitted, [B], higher is more exposed; success bool [B];
        objective [B], that of the selected image; and rebuilt float32 [B, C, H, W] in [0, 1].
    """
    # the box: normalised values of black and white, [1, C, 1, 1]
    mean, std = (torch.tensor(values).to(images).view(1, -1, 1, 1) for values in normalisation)
    box = (-mean / std, (1 - mean) / std)
    compute_gradients, results = build_gradient_function(model), []
    # evaluation mode: with batch statistics or dropout, the gradient would not be a function of the image alone
    with evaluation_mode(model):
        for part in torch.split(torch.arange(len(labels), device=labels.device), chunk):
            part_images, part_labels = images[part], labels[part]
            # [b, R, C, H, W], filled example by example, so that an example's starts do not depend on the chunk
            starts = torch.from_numpy(rng.standard_normal((len(part), config.restarts, *images.shape[1:]))).to(images)
            results.append(
                reconstruct_images(
                    compute_gradients,
                    normalize_gradients(compute_gradients(part_images, part_labels)),
                    part_labels,
                    starts,
                    box,
                    config,
                )
            )
    pixels, objective = (torch.cat(column) for column in zip(*results, strict=True))
    # compared as images in [0, 1], where PSNR has its usual peak of 1
    original, rebuilt = (images * std + mean).clamp(0, 1).cpu().numpy(), (pixels * std + mean).clamp(0, 1).cpu().numpy()
    similarity = psnr(original, rebuilt)
    return {
        "psnr": similarity,
        "ssim": ssim(original, rebuilt),
        "psnr_fitted": psnr_fitted(original, rebuilt),
        "ssim_fitted": ssim_fitted(original, rebuilt),
        "success": similarity >= config.success_psnr,
        "objective": objective.cpu().numpy(),
        "rebuilt": rebuilt.astype(np.float32),
    }


def reconstruct_images(
    compute_gradients: PerExampleGradients,
    target: tuple[Tensor, ...],
    labels: Tensor,
    starts: Tensor,
    box: tuple[Tensor, Tensor],
    config: InversionConfig,
) -> tuple[Tensor, Tensor]:
    """Minimize the objective from every start, and return the best match of each example.

    Args:
        compute_gradients: of memscore.proxies.per_example_gradients.build_gradient_function.
        target: the attacked gradients, one tensor [B, ...] per parameter, of length 1 over all of them.
        labels: int64 [B].
        starts: [B, R, C, H, W], R of them per example.
        box: darkest and brightest valid pixel, [1, C, 1, 1].
        config: the attack.

    Returns:
        [B, C, H, W] and its objective [B]: for each example from the start with the lowest matching cost.
    """
    # B searches at once, one start of every example after the other; a cost of NaN is never the lowest
    best = starts[:, 0]
    lowest, reached = (torch.full_like(starts[:, 0, 0, 0, 0], torch.inf) for _ in range(2))
    for start in starts.unbind(1):
        image = optimize_image(compute_gradients, target, labels, start, box, config)
        cost = compute_matching_cost(compute_gradients(image, labels), target).detach()
        lower = cost < lowest
        best = torch.where(lower[:, None, None, None], image, best)
        reached = torch.where(lower, cost + config.total_variation * compute_total_variation(image), reached)
        lowest = torch.where(lower, cost, lowest)
    return best, reached


def optimize_image(
    compute_gradients: PerExampleGradients,
    target: tuple[Tensor, ...],
    labels: Tensor,
    start: Tensor,
    box: tuple[Tensor, Tensor],
    config: InversionConfig,
) -> Tensor:
    """Run signed Adam from one start per example: Adam on sign(grad), then a projection into the box.

        s = sign(grad L(x)),   m <- b1 m + (1 - b1) s,   v <- b2 v + (1 - b2) s^2
        x <- clip(x - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + 1e-8))

    Args:
        compute_gradients: as in reconstruct_images.
        target: as in reconstruct_images.
        labels: int64 [B].
        start: [B, C, H, W], clipped first.
        box: darkest and brightest valid pixel, [1, C, 1, 1].
        config: the attack; lr falls tenfold at each of LR_DECAYS.

    Returns:
        [B, C, H, W], the last iterate, not the best one.
    """
    image = start.clamp(*box)
    first, second = torch.zeros_like(image), torch.zeros_like(image)
    for step in range(config.iterations):
        with torch.enable_grad():
            # a new leaf at every step: the graph of the last step must not be kept
            pixels = image.detach().requires_grad_()
            # grad of a grad: the objective is a function of weight gradients, and is differentiated by the pixels. The
            # examples do not depend on each other, so the gradient of the sum is each example's own.
            total = compute_objective(compute_gradients(pixels, labels), target, pixels, config.total_variation).sum()
            sign = torch.autograd.grad(total, pixels)[0].sign()
        # moments of the signs: a pixel whose sign does not change moves by the whole step size
        first = ADAM_BETAS[0] * first + (1 - ADAM_BETAS[0]) * sign
        second = ADAM_BETAS[1] * second + (1 - ADAM_BETAS[1]) * sign**2
        # both moments begin at 0, which 1 - beta^t corrects; the step size takes the first correction
        passed = sum(step >= share * config.iterations for share in LR_DECAYS)
        step_size = config.lr * 0.1**passed / (1 - ADAM_BETAS[0] ** (step + 1))
        image = (image - step_size * first / ((second / (1 - ADAM_BETAS[1] ** (step + 1))).sqrt() + 1e-8)).clamp(*box)
    return image


def compute_objective(
    gradients: tuple[Tensor, ...], target: tuple[Tensor, ...], image: Tensor, weight: float
) -> Tensor:
    """Compute 1 - cos(gradients, target) + weight * TV(image) per example (Geiping et al. 2020).

    Args:
        gradients: one tensor [B, ...] per parameter.
        target: the same for the attacked example, of length 1.
        image: [B, C, H, W].
        weight: lambda.

    Returns:
        [B], lower is a better match.
    """
    return compute_matching_cost(gradients, target) + weight * compute_total_variation(image)


def compute_matching_cost(gradients: tuple[Tensor, ...], target: tuple[Tensor, ...]) -> Tensor:
    """Compute 1 - cos(gradients, target), [B]; arguments as compute_objective's."""
    # summed parameter by parameter, so that no [B, P] copy of all gradients is made; the target has length 1
    along = torch.stack([(a * b).flatten(1).sum(1) for a, b in zip(gradients, target, strict=True)]).sum(0)
    square = torch.stack([(a * a).flatten(1).sum(1) for a in gradients]).sum(0)
    # the square root has no gradient at 0, where an image of zero gradient would become NaN
    return 1 - along / (square + torch.finfo(square.dtype).tiny).sqrt()


def compute_total_variation(image: Tensor) -> Tensor:
    """Compute the mean absolute difference of neighbours, vertical plus horizontal, [B] of [B, C, H, W]."""
    down = image.diff(dim=-2).abs().flatten(1).mean(1)
    across = image.diff(dim=-1).abs().flatten(1).mean(1)
    return down + across


def normalize_gradients(gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Normalize each example's gradient to length 1 over all parameters; zero gradients stay zero."""
    flat = [gradient.detach().flatten(1) for gradient in gradients]
    # by the largest entry first: the squares of a member's tiny gradient would underflow in float32
    largest = torch.stack([f.abs().amax(1) for f in flat]).amax(0)
    scaled = [f / torch.where(largest > 0, largest, 1.0)[:, None] for f in flat]
    # the largest entry is 1 after the scaling, so the length is 1 or more, and below it only where all entries are 0
    length = torch.stack([f.norm(dim=1) for f in scaled]).norm(dim=0).clamp_min(1)
    return tuple((f / length[:, None]).view_as(gradient) for f, gradient in zip(scaled, gradients, strict=True))
