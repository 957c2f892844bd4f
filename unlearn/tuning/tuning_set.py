"""The forget set that parameters are chosen on, beside the one that is reported; and how far the two differ."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from memscore.data.splits import Splits
from unlearn.forget_sets import ForgetSet, find_score_name, parse_classes, select_forget_set
from unlearn.meta.partition import mean_score
from unlearn.trials.setup import UnlearningContext
from unlearn.tuning.methods import Method

SAME = "same"
"""Words for the forget set that is reported, where parameters are to be chosen on it too."""


def select_tuning_set(
    asked: UnlearningContext, words: str, judged_on: ForgetSet, embeddings: Callable[[], np.ndarray]
) -> ForgetSet:
    """The forget set that parameters are chosen on.

    Args:
        asked: the request, of the one that is reported.
        words: for it, in the user's words; "" for another of the same kind.
        judged_on: the one that is reported.
        embeddings: [n_train, E] of the first original.

    Returns:
        Of the same kind, without an example of that one; for classes as many others, those that follow; that one
        itself where a user's own list or a change of the data leaves no other, or where the words are "same".

    Raises:
        ValueError: there is no other of that size.
    """
    wish, splits, said = asked.options, asked.splits, words
    kind, _, part = wish.forget.partition(":")
    if words == SAME or (not words and (asked.planted or kind in {"id", "ids"})):
        return judged_on
    without = () if words else judged_on.rows
    try:
        if not words and kind == "class":
            words = next_classes(part, splits)
        found = select_forget_set(
            words or wish.forget, wish.size, splits, asked.scores.score, embeddings, wish.seed, without
        )
        return found if words else replace(found, name=f"another {found.name}")
    except ValueError as error:
        if said:
            raise ValueError(f"--tune-forget {said}: {error}") from None
        raise ValueError(
            f"no second forget set to choose parameters on: {error}; or name one with --tune-forget, or take the "
            f"reported one with --tune-forget {SAME}, which then is no longer unseen"
        ) from None


def next_classes(part: str, splits: Splits) -> str:
    """The classes after those of a forget set, as many, and none of them.

    Args:
        part: their numbers, as 3 or 0,1,3.
        splits: the data set.

    Returns:
        Words for a forget set: class:4 after class:3; after the last class comes class 0.

    Raises:
        ValueError: fewer are left.
    """
    own, n = parse_classes(part, splits), splits.n_classes
    after = [(max(own) + step) % n for step in range(1, n)]
    left = [number for number in after if number not in own]
    if len(left) < len(own):
        raise ValueError(f"class:{part} leaves {len(left)} of {n} classes, and another set like it has {len(own)}")
    return f"class:{','.join(map(str, left[: len(own)]))}"


def describe_score_difference(
    spec: str, tuned_on: ForgetSet, judged_on: ForgetSet, scored: Callable[[str], np.ndarray]
) -> str:
    """Where a score decides what is forgotten: its mean over both forget sets, which differ most in small data sets.

    Args:
        spec: the reported forget set in the user's words.
        tuned_on: that parameters are chosen on.
        judged_on: the reported one.
        scored: name of a score -> its value of each training row.

    Returns:
        A line; "" where no score decides, or both sets are one.
    """
    score = find_score_name(spec)
    if not score or tuned_on.rows == judged_on.rows:
        return ""
    values = scored(score)
    tuned, judged = (mean_score(values, one.rows) for one in (tuned_on, judged_on))
    return f"mean {score}: {tuned:.3f} of what parameters are chosen on, {judged:.3f} of what is reported"


def describe_outdated_scores(planted: ForgetSet | None, contenders: Sequence[Method]) -> str:
    """A line where parts or rounds are made by scores of the data before a forget set changed them."""
    refined, ranked = (
        any(one.cut.kind == "score" for one in contenders),
        any(one.risk is not None for one in contenders),
    )
    if planted is None or not (refined or ranked):
        return ""
    do = " and ".join(["refine"] * refined + ["rank"] * ranked)
    return f"{planted.name} changes the data, and the scores that {do} it are those of the data as they were"
