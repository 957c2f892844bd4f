"""EU-k: forget exactly in the last k layers: draw them anew, and train them on the retain set (Goel et al. 2022).

    min_(last k layers)  E_R[CE(theta(x), y)],  from theta_o with these layers as in a new network

They are drawn once (one released code draws them again at the start of each epoch), with the norms between and after
them and their running statistics (Goel's code leaves those theta_o's). How a layer draws, `reinitialize` says; Goel's
draw from He's normal distribution. What trains and what is frozen is as in CF-k.
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
    """As CF-k, at a higher rate: what is new has farther to go."""

    lr: float = 0.03


def eu_k(
    theta_o: nn.Module,
    retain: ExampleSet,
    forget: ExampleSet,
    config: EUKConfig,
    rng: np.random.Generator,
    watch: StepCallback | None = None,
) -> nn.Module:
    """Draw the last layers, and descend on the retain set in them; the forget set is not read."""
    layers = find_last_layers(theta_o, retain.images.shape, config.k)
    theta, new = copy_model(theta_o), reinitialize(theta_o, rng)
    for layer in layers:
        theta.get_submodule(layer).load_state_dict(new.get_submodule(layer).state_dict())
    return train_last_layers(theta, layers, retain, config, rng, watch)
