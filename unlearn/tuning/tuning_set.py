"""The forget set for tuning, besides the one that methods are judged on, and how far the two differ."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np

from memscore.data.splits import Splits
from memscore.seeds import generator
from memscore.units import format_count
from unlearn.class_arguments import parse_classes
from unlearn.forget_sets import ForgetSet, SizeTooLargeError, find_score_name, select_forget_set
from unlearn.meta.partition import mean_score
from unlearn.meta.worst_case import WORST_CASE
from unlearn.trials.forgotten_copies import describe_held_out_copies, find_retained_copies
from unlearn.trials.setup import UnlearningContext
from unlearn.tuning.config import SweepConfig
from unlearn.tuning.methods import Method

LEFT_OUT_SHARES = (1 / 3, 1 / 6)
"""Shares of the examples that a tuning does not select from, the first that leaves enough; else none is left out."""
FEWEST = 2
"""Tunings that have an interval at all."""
SAME = "same"
"""Value of --tune-forget for tuning on the judged forget set itself."""


def select_tuning_sets(
    config: SweepConfig, context: UnlearningContext, judged_set: ForgetSet, embeddings: Callable[[], np.ndarray]
) -> list[ForgetSet]:
    """Select the forget set of each tuning; see select_tuning_set.

    With several tunings a random third of the other examples is left out of each, so that their sets differ; a smaller
    share, or none, where the bank has too few examples for that. A set that the user names is that of every tuning.
    """
    if config.tunings == 1 or config.tune_forget:
        return [select_tuning_set(config, context, judged_set, embeddings)] * config.tunings
    # All tunings leave out the same share, so that none of them has a milder set than another.
    for share in LEFT_OUT_SHARES:
        with suppress(SizeTooLargeError):
            return [
                select_tuning_set(config, context, judged_set, embeddings, tuning, share)
                for tuning in range(config.tunings)
            ]
    return [select_tuning_set(config, context, judged_set, embeddings, tuning) for tuning in range(config.tunings)]


def select_tuning_set(
    config: SweepConfig,
    context: UnlearningContext,
    judged_set: ForgetSet,
    embeddings: Callable[[], np.ndarray],
    tuning: int = 0,
    left_out: float = 0.0,
) -> ForgetSet:
    """Select the forget set that parameters are chosen on.

    A set of the same kind without an example of the judged one, unless --tune-forget names one; for classes as many
    others, those that follow; the judged set itself where a user's list or a change of the data leaves no other, or
    where --tune-forget is "same". `embeddings` is [n_train, E] of the first original; `left_out` is the share of the
    other examples that this tuning does not select from. Raises ValueError if there is no other set of that size.
    """
    spec, splits = config.tune_forget, context.splits
    kind, _, part = context.forget.partition(":")
    # A list of the user and a change of the data have no second set of their kind.
    if spec == SAME or (not spec and (context.injected or kind in {"id", "ids"})):
        return judged_set
    # A set that the user names may overlap the judged one; the tables say by how much.
    excluded = () if spec else (*judged_set.rows, *draw_left_out(config.seed, tuning, left_out, len(splits.train)))
    try:
        # Excluding rows leaves no example of a class, so other classes are taken instead.
        if not spec and kind == "class":
            spec = next_classes(part, splits, tuning)
        tuning_set = context.complete(
            select_forget_set(
                spec or context.forget,
                context.size,
                splits,
                context.score_store.score,
                embeddings,
                config.seed,
                excluded,
            )
        )
        return tuning_set if spec else replace(tuning_set, name=f"another {tuning_set.name}")
    # The message must name what the user can change: the option given, or the one to give.
    except ValueError as error:
        if config.tune_forget:
            raise ValueError(f"--tune-forget {config.tune_forget}: {error}") from None
        message = (
            f"no second forget set to choose parameters on: {error}; or name one with --tune-forget, or take the "
            f"reported one with --tune-forget {SAME}, which then is no longer unseen"
        )
        # with a smaller judged set, more examples are left for the second one
        kind_of_error = SizeTooLargeError if isinstance(error, SizeTooLargeError) else ValueError
        raise kind_of_error(message) from None


def draw_left_out(seed: int, tuning: int, share: float, n: int) -> tuple[int, ...]:
    """Draw the rows that a tuning does not select from: each of n with this probability."""
    # Each row by itself, not a fixed number of them: a row's draw does not depend on the size of the data set.
    drawn = generator(seed, "tuning-set", index=tuning).random(n) < share
    return tuple(np.flatnonzero(drawn).tolist())


def next_classes(part: str, splits: Splits, tuning: int = 0) -> str:
    """Choose as many classes as class:`part` has: those that follow, and none of its own.

    class:4 after class:3; class 0 follows the last class. Each further tuning takes those that follow, starting over
    where none is left. Raises ValueError if fewer classes are left.
    """
    classes, n = parse_classes(part, splits), splits.n_classes
    following = [(max(classes) + step) % n for step in range(1, n)]
    remaining = [number for number in following if number not in classes]
    if len(remaining) < len(classes):
        raise ValueError(
            f"class:{part} leaves {len(remaining)} of {n} classes, and another set like it has {len(classes)}"
        )
    chosen = [remaining[(tuning * len(classes) + step) % len(remaining)] for step in range(len(classes))]
    return f"class:{','.join(map(str, chosen))}"


def describe_score_difference(
    spec: str, tuning_sets: Sequence[ForgetSet], judged_set: ForgetSet, read_score: Callable[[str], np.ndarray]
) -> str:
    """Describe the mean score of all forget sets, which differ most in small data sets.

    "" if no score selects them, or if all sets are the same.
    """
    score = find_score_name(spec)
    # The worst case is selected by two scores, of which one is turned: its mean would say nothing.
    if (
        not score
        or spec.startswith(WORST_CASE)
        or all(tuning_set.rows == judged_set.rows for tuning_set in tuning_sets)
    ):
        return ""
    values = read_score(score)
    means = sorted({f"{mean_score(values, tuning_set.rows):.3f}" for tuning_set in tuning_sets})
    tuning_means = means[0] if len(means) == 1 else f"{means[0]} to {means[-1]}"
    return (
        f"mean {score}: {tuning_means} of what parameters are chosen on, {mean_score(values, judged_set.rows):.3f} of "
        "what is reported"
    )


def describe_tunings(tuning_sets: Sequence[ForgetSet]) -> str:
    """Describe what intervals are over: how many tunings, and how many examples their sets have in common."""
    if len(tuning_sets) == 1:
        return (
            "one tuning: intervals are over originals, given its choice of parameters; --tunings 3 repeats the choice"
        )
    shared = len(set.intersection(*(set(tuning_set.rows) for tuning_set in tuning_sets)))
    size = max(len(tuning_set.rows) for tuning_set in tuning_sets)
    line = (
        f"{len(tuning_sets)} tunings, each with draws and originals of its own; their forget sets of "
        f"{format_count(size, 'example')} have {shared} in common"
    )
    if len(tuning_sets) == FEWEST:
        line += "; an interval over two is 12.7 standard errors to each side, --tunings 3 is 4.3"
    return line if shared < size else f"{line}, so intervals leave out what another set would change"


def describe_copies_of_sets(context: UnlearningContext, *forget_sets: ForgetSet) -> list[str]:
    """Describe the exact copies that stay of each forget set, and those that validation and test hold."""
    distinct = {forget_set.rows: forget_set.name for forget_set in reversed(forget_sets)}
    # The sets of several tunings have one name, and copies of their own.
    described = [(name, find_retained_copies(context.copies, rows).describe()) for rows, name in distinct.items()]
    lines = dict.fromkeys(f"{name}: {line}" for name, line in described if line)
    return [*lines, *describe_held_out_copies(context.copies)]


def describe_outdated_scores(injected: ForgetSet | None, methods: Sequence[Method]) -> str:
    """Describe that parts or rounds use scores of the data before a forget set changed them."""
    refines, ranks = (
        any(method.partition.kind == "score" for method in methods),
        any(method.risk is not None for method in methods),
    )
    if injected is None or not (refines or ranks):
        return ""
    verbs = " and ".join(["refine"] * refines + ["rank"] * ranks)
    return f"{injected.name} changes the data, and the scores that {verbs} it are those of the data as they were"
