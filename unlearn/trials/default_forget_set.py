"""The forget set of a command that names none: the union of RUM's Table 1, as large as the bank has two of."""

import bisect
from collections.abc import Callable
from dataclasses import replace

from memscore.store.store import Store
from unlearn.forget_sets import SizeTooLargeError, select_forget_set
from unlearn.trials.default_scores import find_default_score
from unlearn.trials.setup import UnlearningContext, zero_embeddings

PARTS = 3
"""Parts of the union of low, medium and high, so its sizes are multiples."""
MAX_SIZE = 3000
"""The size in RUM's Table 1, which is not exceeded."""


def choose_default_forget(store: Store) -> str:
    """Choose the specification of the forget set where none is named.

    Raises ValueError if the store has no memorization score.
    """
    score = find_default_score(store)
    if f"{score}.parquet" not in store.folder.names("scores"):
        raise ValueError(
            f"--forget is left out, which takes a set by memorization, and {store.folder.display_name} has no score "
            f"{score}; compute it with `python -m memscore.estimate`, or name a forget set, as --forget random"
        )
    return f"{score}:union"


def choose_default_size(context: UnlearningContext, size: int | None) -> tuple[UnlearningContext, str]:
    """Choose the size of a context's default forget set; return the context with it, and a line on the choice.

    A size that the user gave stays. Raises ValueError if the score has too few distinct values for a union.
    """
    spec, most = context.forget, min(MAX_SIZE, len(context.splits.train) // 2)
    if size is not None:
        return replace(context, size=size), f"forget set {spec} of {size}; --forget names another"
    size = find_largest_size(most, lambda size: check_two_sets(context, size))
    if not size:
        raise ValueError(
            f"--forget is left out, and {spec} has no two sets without a common example in this bank, since too few "
            "examples are memorized; name a forget set, as --forget random"
        )
    return (
        replace(context, size=size),
        f"forget set {spec} of {size}, a third each of the least, half and most memorized: the largest of which "
        "the bank has two without a common example; --forget and --size take others",
    )


def check_two_sets(context: UnlearningContext, size: int) -> None:
    """Raise SizeTooLargeError if a bank has no second forget set of that kind and size beside the first."""
    excluded: tuple[int, ...] = ()
    for _ in range(2):
        excluded = select_forget_set(
            context.forget,
            size,
            context.splits,
            context.score_store.score,
            lambda: zero_embeddings(context.splits),
            context.seed,
            excluded,
        ).rows


def find_largest_size(most: int, check: Callable[[int], object]) -> int:
    """Find the largest multiple of PARTS up to `most` whose check raises no SizeTooLargeError; 0 if there is none."""

    def is_too_large(parts: int) -> bool:
        try:
            check(PARTS * parts)
        except SizeTooLargeError:
            return True
        return False

    return PARTS * bisect.bisect_left(range(1, most // PARTS + 1), True, key=is_too_large)
