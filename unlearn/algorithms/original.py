"""Do nothing: theta_u = theta_o. The row beneath every table, and the first choice of RUM for what is not memorized."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import nn

from unlearn.optimization.loop import Watch, copy_of
from unlearn.problem import Examples
from unlearn.search_space import Space


@dataclass(frozen=True, kw_only=True)
class OriginalConfig:
    """Nothing to choose."""

    SPACE: ClassVar[dict[str, Space]] = {}


def original(
    theta_o: nn.Module,
    retain: Examples,
    forget: Examples,
    config: OriginalConfig,
    rng: np.random.Generator,
    watch: Watch | None = None,
) -> nn.Module:
    """A copy of theta_o; no example is read."""
    return copy_of(theta_o).eval()
