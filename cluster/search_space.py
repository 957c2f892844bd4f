"""A search and the domains of its values, grids over them, and the conversion of values to and from Optuna's."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from numbers import Real
from typing import Any

Domain = tuple[Any, ...]
"""("log", low, high), ("uniform", low, high) or ("whole", low, high), ends included; or ("choice", (v1, v2, ...))."""

Values = dict[str, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Search:
    """One search among several that run side by side.

    Attributes:
        name: unique among the searches of a call.
        stream: name of its random draws, which several searches may share; "" for its own name.
        space: the domain of each value; without any, there is one evaluation.
        budget: evaluations in all, earlier ones included.
        job: the function's first argument, besides the values; must be picklable.
        initial: values that are evaluated before any are drawn, unless they were evaluated earlier. Some may lie
            outside of the space; then the sampler learns nothing from them.
        evaluated: values and objective of earlier, stored evaluations. They count towards the budget, are not repeated,
            and the sampler learns from them.
    """

    name: str
    space: Mapping[str, Domain]
    budget: int
    job: Any
    initial: Sequence[Mapping[str, Any]] = ()
    evaluated: Sequence[tuple[Mapping[str, Any], float]] = ()
    stream: str = ""

    def __post_init__(self) -> None:
        if self.budget < 1:
            raise ValueError(f"the search {self.name!r} has a budget of {self.budget} evaluations; give it 1 or more")
        for name, domain in self.space.items():
            _validate_domain(self.name, name, domain)
        for values in [*self.initial, *(values for values, _ in self.evaluated)]:
            if set(values) != set(self.space):
                raise ValueError(
                    f"the search {self.name!r} is given values of {sorted(values)}, but its space has "
                    f"{sorted(self.space)}; name exactly those"
                )


def restore_types(space: Mapping[str, Domain], values: Mapping[str, Any]) -> Values:
    """Restore the types and the order, which are those of the space, of values that were read from a file.

    >>> restore_types({"k": ("whole", 1, 9), "lr": ("log", 0.1, 1.0), "on": ("choice", ((1, 2), None))},
    ...         {"on": [1, 2], "lr": 1, "k": 3.0})
    {'k': 3, 'lr': 1.0, 'on': (1, 2)}
    """
    return {name: _restore_type(domain, values[name]) for name, domain in space.items()}


def make_values_key(values: Values) -> str:
    """Return a string that is the same for the same values, once their types are restored."""
    return repr(sorted(values.items()))


def to_optuna(space: Mapping[str, Domain], values: Values) -> dict[str, Any] | None:
    """Convert values with restored types to Optuna's, or return None if they lie outside of the space."""
    # a choice becomes its index, because Optuna takes only plain values for choices, and tuples are none
    if not all(_is_inside(domain, values[name]) for name, domain in space.items()):
        return None
    return {
        name: _find_index(domain[1], values[name]) if domain[0] == "choice" else values[name]
        for name, domain in space.items()
    }


def from_optuna(space: Mapping[str, Domain], params: Mapping[str, Any]) -> Values:
    """Convert Optuna's parameters to values."""
    return {name: domain[1][params[name]] if domain[0] == "choice" else params[name] for name, domain in space.items()}


def count_values(space: Mapping[str, Domain]) -> float:
    """Count the different values of a space: 1 where it is empty, infinite with a domain of real numbers."""
    return math.prod(_count_domain(domain) for domain in space.values())


def enumerate_values(space: Mapping[str, Domain]) -> list[Values]:
    """Return all values of a finite space."""
    return build_grid(space, {name: int(_count_domain(domain)) for name, domain in space.items()})


def build_grid(space: Mapping[str, Domain], counts: Mapping[str, int]) -> list[Values]:
    """Return the product of so many points of each domain."""
    points = [_build_points(domain, counts[name]) for name, domain in space.items()]
    return [dict(zip(space, row, strict=True)) for row in product(*points)]


def choose_grid_counts(search: str, space: Mapping[str, Domain], limit: int) -> dict[str, int]:
    """Choose the number of points of each domain, for a grid of at most so many points.

    A choice has all of its values. Numbers begin with one point each, the middle; then, as long as the grid fits, the
    domain with the fewest points gets one more, the first of them in the order of the space. Two and more points
    include both ends and are evenly spaced, on a log scale where the domain is one.

    Raises ValueError, naming the search, where the choices alone have more values than `limit`.

    >>> choose_grid_counts("a", {"lr": ("log", 0.01, 1.0), "on": ("choice", (True, False)), "k": ("whole", 1, 2)}, 13)
    {'lr': 3, 'on': 2, 'k': 2}
    """
    counts = {name: len(domain[1]) if domain[0] == "choice" else 1 for name, domain in space.items()}
    if math.prod(counts.values()) > limit:
        raise ValueError(
            f"a grid of the search {search!r} has at least {math.prod(counts.values())} points, all of its choices, "
            f"but {limit} evaluations are left for it; raise the budget, or draw with tpe or random"
        )
    # a domain whose next point would exceed the limit is left out; one with more points may still fit another, since
    # the grid then grows by a smaller factor
    while extensible := [
        name
        for name, domain in space.items()
        if domain[0] != "choice"
        and counts[name] < _count_domain(domain)
        and math.prod(counts.values()) // counts[name] * (counts[name] + 1) <= limit
    ]:
        counts[min(extensible, key=counts.__getitem__)] += 1
    return counts


def _validate_domain(search: str, name: str, domain: Domain) -> None:
    """Raise ValueError if nothing can be drawn from a domain."""
    kind, *rest = domain
    if kind == "choice" and len(rest) == 1 and len(rest[0]):
        return
    numbers = kind in {"log", "uniform", "whole"} and len(rest) == 2 and all(math.isfinite(x) for x in rest)
    valid = numbers and rest[0] <= rest[1] and (kind != "log" or rest[0] > 0)
    if not valid or (kind == "whole" and any(x != int(x) for x in rest)):
        raise ValueError(
            f"the domain of {name!r} in the search {search!r} is {domain!r}; it must be ('log', low, high) with "
            "low above 0, ('uniform', low, high), ('whole', low, high) or ('choice', (value, ...)), low not above high"
        )


def _restore_type(domain: Domain, value: Any) -> Any:
    if domain[0] == "choice":
        index = _find_index(domain[1], value)
        return value if index is None else domain[1][index]
    if not isinstance(value, Real):
        return value
    # a whole number that was stored as 3.0 is 3 again; one that is not whole stays as it is, outside of the space
    number = float(value)
    return int(number) if domain[0] == "whole" and number.is_integer() else number


def _find_index(choices: Sequence[Any], value: Any) -> int | None:
    """Return the index of a value among the choices; True is not 1, and a list counts as a tuple, as JSON stores it."""
    value = tuple(value) if isinstance(value, list) else value
    for index, choice in enumerate(choices):
        choice = tuple(choice) if isinstance(choice, list) else choice
        if choice == value and isinstance(choice, bool) == isinstance(value, bool):
            return index
    return None


def _is_inside(domain: Domain, value: Any) -> bool:
    if domain[0] == "choice":
        return _find_index(domain[1], value) is not None
    # NaN compares as false with both ends, so it is outside
    if not isinstance(value, Real) or not domain[1] <= value <= domain[2]:
        return False
    return domain[0] != "whole" or float(value).is_integer()


def _count_domain(domain: Domain) -> float:
    if domain[0] == "choice":
        return len(domain[1])
    if domain[1] == domain[2]:
        return 1
    return domain[2] - domain[1] + 1 if domain[0] == "whole" else math.inf


def _build_points(domain: Domain, count: int) -> list[Any]:
    """Return so many points of a domain, ends included; a single one is the middle."""
    if domain[0] == "choice":
        return list(domain[1])
    # evenly spaced in the logarithm where the domain is "log": shares in [0, 1] of the way from low to high
    low, high = (math.log(x) if domain[0] == "log" else x for x in domain[1:])
    shares = [k / (count - 1) for k in range(count)] if count > 1 else [0.5]
    raw = [low + (high - low) * share for share in shares]
    if domain[0] == "whole":
        return [round(x) for x in raw]
    # the ends exactly: exp(log(x)) may differ from x in the last digit, and lie outside of the domain
    ends = {0.0: float(domain[1]), 1.0: float(domain[2])}
    return [ends.get(share, math.exp(x) if domain[0] == "log" else x) for share, x in zip(shares, raw, strict=True)]
