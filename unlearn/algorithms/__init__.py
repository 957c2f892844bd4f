"""Every algorithm by name: fn(theta_o, retain, forget, config, rng[, validation], watch=None) -> theta_u.

To add one, write its file here, one line below, and its line in tests/unlearn/test_contract.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from memscore.names import pick
from unlearn.algorithms.boundary_expand import (
    BoundaryExpandConfig,
    BoundaryExpandPlusConfig,
    boundary_expand,
    boundary_expand_plus,
)
from unlearn.algorithms.boundary_shrink import (
    BoundaryShrinkConfig,
    BoundaryShrinkPlusConfig,
    boundary_shrink,
    boundary_shrink_plus,
)
from unlearn.algorithms.finetune import FineTuneConfig, finetune
from unlearn.algorithms.gradient_ascent import GradientAscentConfig, gradient_ascent
from unlearn.algorithms.influence import InfluenceConfig, influence
from unlearn.algorithms.neggrad_plus import NegGradPlusConfig, neggrad_plus
from unlearn.algorithms.original import OriginalConfig, original
from unlearn.algorithms.retrain import RetrainConfig, retrain
from unlearn.algorithms.ssd import SSDConfig, ssd
from unlearn.algorithms.sure import SureConfig, sure


@dataclass(frozen=True, kw_only=True)
class Algorithm:
    """One line of the table.

    Attributes:
        fn: the algorithm.
        config: its frozen dataclass; SPACE says where a search looks, variant which of several forms it is.
        paper: whose it is.
        granularity: "class" where it was made to forget a whole class and harms the rest otherwise.
        reads_validation: whether it is handed the validation set.
        random_labels: whether it draws labels, and so needs more seeds than others (RUM: 6 in place of 3).
    """

    fn: Callable[..., nn.Module]
    config: Callable[..., Any]
    paper: str
    granularity: Literal["any", "class"] = "any"
    reads_validation: bool = False
    random_labels: bool = False


ALGORITHMS: dict[str, Algorithm] = {
    "original": Algorithm(fn=original, config=OriginalConfig, paper="RUM"),
    "retrain": Algorithm(fn=retrain, config=RetrainConfig, paper="RUM"),
    "finetune": Algorithm(fn=finetune, config=FineTuneConfig, paper="RUM"),
    "gradient-ascent": Algorithm(fn=gradient_ascent, config=GradientAscentConfig, paper="RUM, RSU"),
    "neggrad-plus": Algorithm(fn=neggrad_plus, config=NegGradPlusConfig, paper="Kurmanji et al. 2023, RUM"),
    "influence": Algorithm(fn=influence, config=InfluenceConfig, paper="Izzo et al. 2021, RUM"),
    "boundary-shrink": Algorithm(
        fn=boundary_shrink, config=BoundaryShrinkConfig, paper="Chen et al. 2023", granularity="class"
    ),
    "boundary-shrink-plus": Algorithm(
        fn=boundary_shrink_plus, config=BoundaryShrinkPlusConfig, paper="SURE", granularity="class"
    ),
    "boundary-expand": Algorithm(
        fn=boundary_expand, config=BoundaryExpandConfig, paper="Chen et al. 2023", granularity="class"
    ),
    "boundary-expand-plus": Algorithm(
        fn=boundary_expand_plus, config=BoundaryExpandPlusConfig, paper="SURE", granularity="class"
    ),
    "sure": Algorithm(fn=sure, config=SureConfig, paper="SURE", reads_validation=True),
    "ssd": Algorithm(fn=ssd, config=SSDConfig, paper="Foster et al. 2024, beyond the five papers"),
}


def algorithm(name: str) -> Algorithm:
    """The algorithm of that name; an unknown name is an error that offers the nearest one."""
    return ALGORITHMS[pick("algorithm", name, ALGORITHMS)]
