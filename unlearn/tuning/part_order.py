"""The order in which parts are forgotten, as a user writes it: medium low high, or 2 1 3."""

from collections.abc import Sequence

from unlearn.forget_sets import LEVELS


def parse_order(words: Sequence[str], k: int) -> tuple[int, ...]:
    """Parse an order of k parts: low, medium and high if there are three, or 1, the part of the lowest scores, to k.

    Returns the parts, counted from 0, in the order in which they are forgotten. ValueError if the words do not name
    each part once.

    >>> parse_order(["medium", "low", "high"], 3)
    (1, 0, 2)
    """
    numbers = {str(part + 1): part for part in range(k)}
    names = dict(zip(LEVELS, range(k), strict=True)) if k == len(LEVELS) else {}
    # Words of one kind: low 2 high could be read in two ways.
    for known in (names, numbers):
        if sorted(words) == sorted(known):
            return tuple(known[word] for word in words)
    expected = f"{' '.join(LEVELS)}, or 1 2 3, in any order" if names else f"the numbers 1 to {k}, in any order"
    raise ValueError(
        f"--order {' '.join(words)} must name each of the {k} parts once, 1 being that of the lowest scores: {expected}"
    )


def name_order(order: Sequence[int]) -> str:
    """Name the variant that forgets parts in this order.

    >>> name_order((1, 0, 2)), name_order((2, 1, 0)), name_order((3, 0, 2, 1))
    ('rum-medium-low-high', 'rum-reversed', 'rum-4-1-3-2')
    """
    ascending = tuple(range(len(order)))
    if tuple(order) in {ascending, ascending[::-1]}:
        return "rum" if tuple(order) == ascending else "rum-reversed"
    names = LEVELS if len(order) == len(LEVELS) else [str(part + 1) for part in ascending]
    return "-".join(["rum", *(names[part] for part in order)])
