"""Distance to the decision boundary by DeepFool (Moosavi-Dezfooli et al. 2016, Algorithm 2; INST eq. 6).

    k*  = argmin over k != c of |f_k - f_c| / || grad f_k - grad f_c ||_2,      c the class that is answered
    r  += (|f_k* - f_c| + 1e-4) (grad f_k* - grad f_c) / || grad f_k* - grad f_c ||_2^2
    until the network decides otherwise at x + (1 + overshoot) r;   distance = || (1 + overshoot) r ||_2

Images are in pixel units, 0 black and 1 white, and are not clipped. All images of a batch take their steps together;
one that has crossed the boundary keeps its r. An image that does not cross it within the steps has no distance.
"""

import torch
from torch import Tensor, nn

SOURCE = "INST eq. 6, DeepFool (Moosavi-Dezfooli et al. 2016), in pixel units from 0 to 1"
MAX_STEPS = 50
OVERSHOOT = 0.02
"""The authors' numbers."""


def deepfool(
    model: nn.Module,
    images: Tensor,
    scale: Tensor,
    *,
    max_steps: int = MAX_STEPS,
    overshoot: float = OVERSHOOT,
) -> Tensor:
    """Compute the L2 distance of images to the nearest decision boundary that DeepFool finds.

    Args:
        model: in evaluation mode; not changed.
        images: [B, C, H, W], normalised.
        scale: [C], by how much a normalised value changes from black to white.
        max_steps: iterations.
        overshoot: share by which the boundary is crossed.

    Returns:
        float32 [B], in pixel units; NaN where the boundary was not crossed or the gradients vanish.
    """
    unit, start = scale.view(1, -1, 1, 1), images.detach()
    with torch.no_grad():
        answered = model(start).argmax(1)
    total, crossed = torch.zeros_like(start), torch.zeros(len(start), dtype=torch.bool, device=start.device)
    for _ in range(max_steps):
        active = (~crossed).nonzero().flatten()
        if not len(active):
            break
        step = find_step(model, start[active] + (1 + overshoot) * total[active] * unit, answered[active], unit)
        total[active] += step
        with torch.no_grad():
            moved = model(start[active] + (1 + overshoot) * total[active] * unit)
        crossed[active] = moved.argmax(1) != answered[active]
    norms = ((1 + overshoot) * total).flatten(1).norm(dim=1)
    # a step of zero gradients is infinite or NaN, and is no distance
    return torch.where(crossed & norms.isfinite(), norms, torch.nan)


def find_step(model: nn.Module, images: Tensor, answered: Tensor, unit: Tensor) -> Tensor:
    """Find each image's step to the nearest boundary of the linearised network, in pixel units."""
    images = images.detach().requires_grad_(True)
    logits = model(images)
    rows = torch.arange(len(images), device=images.device)
    n_classes = logits.shape[1]
    # The derivative by pixel units: a normalised value is `unit` pixel units.
    gradients = torch.stack(
        [torch.autograd.grad(logits[:, k].sum(), images, retain_graph=k + 1 < n_classes)[0] for k in range(n_classes)],
        dim=1,
    ) * unit.unsqueeze(1)
    # each other class against the one that is answered
    differences = gradients - gradients[rows, answered].unsqueeze(1)
    gaps = (logits - logits[rows, answered].unsqueeze(1)).detach().abs()
    lengths = differences.flatten(2).norm(dim=2)
    distances = (gaps / lengths).nan_to_num(nan=torch.inf)
    distances[rows, answered] = torch.inf
    nearest = distances.argmin(1)
    squared = lengths[rows, nearest] ** 2
    size = (gaps[rows, nearest] + 1e-4) / squared
    step: Tensor = size.view(-1, 1, 1, 1) * differences[rows, nearest]
    return step
