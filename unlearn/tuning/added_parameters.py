"""Parameters that a search adds to those that have a range of their own: an algorithm's epochs, or its batch."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from memscore.choices import validate_choice
from unlearn.algorithms import get_algorithm
from unlearn.search_space import AROUND


def check_added(names: Sequence[str], fixed: Mapping[str, Mapping[str, Any]], compared: Sequence[str]) -> None:
    """Check the parameters that --search adds, as ALGORITHM.NAME.

    `fixed` are the parameters with fixed values of each algorithm, `compared` the algorithms that take part. Raises
    ValueError for another form, an algorithm that does not take part, a parameter that is not epochs or batch or that
    the algorithm lacks, or one that is fixed.
    """
    for name in names:
        algorithm, point, field = name.rpartition(".")
        if not point:
            raise ValueError(f"--search {name!r} must be ALGORITHM.NAME, as finetune.epochs")
        if algorithm not in compared:
            raise ValueError(f"--search {name}: {algorithm} is not compared; known: {', '.join(sorted(set(compared)))}")
        known = [option.name for option in fields(get_algorithm(algorithm).config)]  # type: ignore[arg-type]
        validate_choice(
            f"parameter that --search adds to those of {algorithm}", field, [n for n in AROUND if n in known]
        )
        if field in fixed.get(algorithm, {}):
            raise ValueError(
                f"--search {name} searches what has a fixed value, {field}={fixed[algorithm][field]}, by --set or "
                "--steps paper; leave one of them out"
            )
