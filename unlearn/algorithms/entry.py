"""What the table of algorithms says of each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn


@dataclass(frozen=True, kw_only=True)
class Algorithm:
    """One algorithm of the table.

    Attributes:
        fn: the algorithm, with the arguments of unlearn.algorithms.
        config: its frozen dataclass; SPACE is its search space, `variant` selects one of several forms.
        summary: what it does, for docs/reference/algorithms.md.
        paper: the papers that propose or compare it.
        granularity: "class" if it was made to forget a whole class and harms other examples otherwise.
        reads_validation: whether it gets the validation set.
        random_labels: whether it draws labels, and so needs more seeds than others (RUM: 6 instead of 3).
        check_fit: (network, (C, H, W), config) raises ValueError if it cannot change such a network, trained or not.
    """

    fn: Callable[..., nn.Module]
    config: Callable[..., Any]
    summary: str
    paper: str
    granularity: Literal["any", "class"] = "any"
    reads_validation: bool = False
    random_labels: bool = False
    check_fit: Callable[[nn.Module, tuple[int, int, int], Any], object] | None = None
