"""A measure of the user's own, named module:function.

    def mean_loss(inputs): return float                     one column, mean_loss
    def share(inputs): return {"easy": ..., "hard": ...}    two, share_easy and share_hard

The function gets EvaluationInputs. What it declares stands in attributes of it, all optional: `best` ("max", "min", by
default "oracle": nearest to theta_r's value, and then its gaps are columns too), `unit`, `ideal`, `needs` ("outputs";
"weights" gives ModelInputs) and `splits`: it is computed with the validation and with the test set in
`inputs.held_out`, and its columns end in their names, unless `splits = ()` says that it reads neither.
"""

import inspect
import numbers
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from memscore.user_functions import explain_user_error, import_user_function
from unlearn.measures.inputs import HELD_OUT_SPLITS, Best, Column, Measure

KIND = "measure"
MEANING = "a function of unlearn.measures.inputs.EvaluationInputs that returns a number or a dict of numbers"
IDEALS: dict[Best, str] = {"oracle": "theta_r's", "max": "the largest", "min": "the smallest", "none": ""}


def load_measure(name: str) -> Measure:
    """Import a measure of the user's own and check what it declares.

    Args:
        name: module:function.

    Returns:
        Its declaration, with one Column for all columns that the function gives.

    Raises:
        ValueError: it cannot be imported, or an attribute of it is another value than those above.
    """
    return _describe_measure(name, import_user_function(KIND, name, MEANING))


@cache
def _describe_measure(name: str, function: Callable[..., Any]) -> Measure:
    best: Any = getattr(function, "best", "oracle")
    needs: Any = getattr(function, "needs", "outputs")
    splits = getattr(function, "splits", () if needs == "weights" else HELD_OUT_SPLITS)
    if best not in IDEALS:
        raise ValueError(f"{KIND} {name}: best must be one of {', '.join(IDEALS)}, got {best!r}")
    if needs not in {"outputs", "weights"}:
        raise ValueError(f"{KIND} {name}: needs must be outputs or weights, got {needs!r}")
    if (
        not isinstance(splits, tuple | list)
        or not set(splits) <= set(HELD_OUT_SPLITS)
        or (splits and needs != "outputs")
    ):
        raise ValueError(f"{KIND} {name}: splits must be () or some of {HELD_OUT_SPLITS} of outputs, got {splits!r}")
    stem = name.partition(":")[2]
    column = Column(
        best=best,
        unit=str(getattr(function, "unit", "")),
        ideal=str(getattr(function, "ideal", IDEALS[best])),
        description=(inspect.getdoc(function) or f"of {name}").partition("\n")[0],
    )

    def measure(inputs: Any) -> dict[str, float]:
        with explain_user_error(KIND, name):
            values = function(inputs)
        if isinstance(values, Mapping):
            columns = {f"{stem}_{key}": value for key, value in values.items()}
        else:
            columns = {stem: values}
        for key, value in columns.items():
            # 0-dimensional arrays and tensors are numbers too: float() takes them.
            if not isinstance(value, numbers.Real) and getattr(value, "ndim", None) != 0:
                raise ValueError(f"{KIND} {name} must return numbers, got {type(value).__name__} for {key}")
        return {key: float(value) for key, value in columns.items()}

    return Measure(
        fn=measure,
        columns={stem: column},
        needs=needs,
        summary=column.description,
        paper="the user's own",
        splits=tuple(splits),
    )
