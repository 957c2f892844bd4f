"""Do nothing: theta_u = theta_o. The row beneath every table, and the first choice of RUM for what is not memorized."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import nn

from unlearn.optimization.loop import StepCallback, copy_model
from unlearn.problem import ExampleSet
from unlearn.search_space import Domain


@dataclass(frozen=True, kw_only=True)
class OriginalConfig:
    """Nothing to choose."""

    SPACE: ClassVar[dict[str, Domain]] = {}


def original(
    theta_o: nn.Module,
    retain: ExampleSet,
    forget: ExampleSet,
    config: OriginalConfig,
    rng: np.random.Generator,
    watch: StepCallback | None = None,
) -> nn.Module:
    """A copy of theta_o; no example is read."""
    return copy_model(theta_o).eval()
