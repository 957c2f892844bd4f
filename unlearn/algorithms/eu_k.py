"""EU-k: exact unlearning of the last k layers: reinitialize and retrain them on the retain set (Goel et al. 2022).

    min_(last k layers)  E_R[CE(theta(x), y)],  from theta_o with these layers as in a new network

They are drawn once (one released code draws them again at the start of each epoch), with the norms between and after
them and their running statistics (Goel's code keeps those of theta_o). `reinitialize` defines how layers are drawn;
Goel et al. use He's normal distribution. Trainable and frozen layers are those of CF-k.
"""

from dataclasses import dataclass

import numpy as np
from torch import nn

from unlearn.algorithms.cf_k import CFKConfig, train_last_layers
from unlearn.optimization.layers import find_last_layers, reinitialize
from unlearn.optimization.loop import StepCallback, copy_model
from unlearn.problem import ExampleSet


@dataclass(frozen=True, kw_only=True)
class EUKConfig(CFKConfig):
    """As CF-k, at a higher learning rate: new layers have farther to go."""

    lr: float = 0.03


def eu_k(
    theta_o: nn.Module,
    retain: ExampleSet,
    forget: ExampleSet,
    config: EUKConfig,
    rng: np.random.Generator,
    step_callback: StepCallback | None = None,
) -> nn.Module:
    """Reinitialize the last layers and train them on the retain set; the forget set is not read."""
    layers = find_last_layers(theta_o, retain.images.shape, config.k)
    # A whole new network is drawn and its last layers are taken: what a layer draws does not depend on k.
    theta, initial = copy_model(theta_o), reinitialize(theta_o, rng)
    for layer in layers:
        # state_dict holds running statistics too, so norms start anew.
        theta.get_submodule(layer).load_state_dict(initial.get_submodule(layer).state_dict())
    return train_last_layers(theta, layers, retain, config, rng, step_callback)
