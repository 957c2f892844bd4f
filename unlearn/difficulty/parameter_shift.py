"""Distance of parameter shift: how far unlearning one example moves the weights (INST 3.3.2, eq. 5).

    absolute = || theta_u - theta_o ||_1
    layers   = mean over layers of mean |theta_u - theta_o|
    KL       = KL(softmax(theta_o) || softmax(theta_u)) over all weights as one vector
    activations = || phi_u(x_f) - phi_o(x_f) ||_2,  phi what the last layer reads of the same input

The paper reports a "KL-divergence of the model's parameters" and does not define it; this is one reading.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

SOURCE = "INST eq. 5"
KL_SOURCE = "INST Table 1, not defined there: of the softmax of all weights"
LAYERS_SOURCE = "INST Figs 8 and 9: mean over layers of the mean absolute change"
ACTIVATIONS_SOURCE = "INST 3.3.2: distance of the embeddings of the same input"


def compute_layer_shifts(theta_o: nn.Module, theta_u: nn.Module) -> dict[str, float]:
    """Compute the mean absolute change of each parameter, by its name."""
    before = dict(theta_o.named_parameters())
    return {
        name: float((parameter.detach() - before[name].detach()).abs().mean())
        for name, parameter in theta_u.named_parameters()
    }


def compute_parameter_shifts(theta_o: nn.Module, theta_u: nn.Module) -> dict[str, float]:
    """Compute parameter_shift, parameter_shift_layers and parameter_kl of two networks of the same parameters."""
    before, after = (flatten(dict(model.named_parameters())) for model in (theta_o, theta_u))
    layers = compute_layer_shifts(theta_o, theta_u)
    log_before, log_after = before.log_softmax(0), after.log_softmax(0)
    return {
        "parameter_shift": float((after - before).abs().sum()),
        "parameter_shift_layers": sum(layers.values()) / len(layers),
        "parameter_kl": float((log_before.exp() * (log_before - log_after)).sum()),
    }


def flatten(parameters: Mapping[str, Tensor]) -> Tensor:
    """Flatten parameters to one vector; float64, since a KL of many almost equal shares loses all float32 digits."""
    # in the order of names, so that layers of both networks meet
    return torch.cat([parameters[name].detach().double().flatten() for name in sorted(parameters)])
