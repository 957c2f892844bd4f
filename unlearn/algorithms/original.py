"""No unlearning: theta_u = theta_o. The baseline of every table, and RUM's choice at low memorization."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import nn

from unlearn.optimization.loop import StepCallback, copy_model
from unlearn.problem import ExampleSet
from unlearn.search_space import Domain


@dataclass(frozen=True, kw_only=True)
class OriginalConfig:
    """No options."""

    SPACE: ClassVar[dict[str, Domain]] = {}


def original(
    theta_o: nn.Module,
    retain: ExampleSet,
    forget: ExampleSet,
    config: OriginalConfig,
    rng: np.random.Generator,
    step_callback: StepCallback | None = None,
) -> nn.Module:
    """Copy theta_o; no example is read."""
    return copy_model(theta_o).eval()
