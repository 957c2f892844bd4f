"""What commands take where a user names no score and no size. Imports no torch, so that --help answers at once."""

from typing import TYPE_CHECKING

from unlearn.meta.worst_case import WORST_CASE

if TYPE_CHECKING:
    from memscore.store.store import Store

MEMORIZATION = "memorization_k"
DEFAULT_SCORES = (f"{MEMORIZATION}0.700", f"{MEMORIZATION}0.500")
"""RUM's own score, of models with keep fraction .7, and the score of estimate's default."""
DEFAULT_SIZE = 100
"""Number of examples of a forget set that a user names without a size."""


def find_default_score(store: "Store") -> str:
    """Find the score that is used if none is named.

    The first of DEFAULT_SCORES that the store has, else its only memorization score; else the last of DEFAULT_SCORES,
    which raises an error when it is read, with the command that computes it.
    """
    scores = [file.removesuffix(".parquet") for file in store.folder.names("scores")]
    memorization_scores = [name for name in scores if name.startswith(MEMORIZATION)]
    return next(
        (name for name in DEFAULT_SCORES if name in memorization_scores),
        memorization_scores[0] if len(memorization_scores) == 1 else DEFAULT_SCORES[-1],
    )


def complete_worst_case(spec: str, store: "Store") -> str:
    """Name the models of `worst-case` by their keep fraction: those of the default score, as worst-case:k0.500."""
    if spec != WORST_CASE:
        return spec
    return f"{WORST_CASE}:k{find_default_score(store).removeprefix(MEMORIZATION)}"
