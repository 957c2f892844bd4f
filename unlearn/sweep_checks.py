"""What a sweep refuses, before a model is trained for it."""

from collections.abc import Sequence

import numpy as np

from unlearn.algorithms import algorithm
from unlearn.contenders import Contender
from unlearn.forget_sets import ForgetSet
from unlearn.meta.partition import by_row
from unlearn.paths import Terms
from unlearn.trials.config import refuse_unfit
from unlearn.trials.setup import Request


def refuse_contenders(asked: Request, contenders: Sequence[Contender]) -> None:
    """Stop where an algorithm cannot do with this bank.

    Args:
        asked: the store and its data.
        contenders: what is compared.

    Raises:
        ValueError: an algorithm that cannot change the bank's networks, or one that reads validation examples, or the
            choice itself, where the bank holds out none.
    """
    known = {name: contender for contender in contenders for name in contender.plan}
    for name, contender in known.items():
        refuse_unfit(asked.store, name, dict(contender.params(name)))
        if algorithm(name).reads_validation and not len(asked.bench.validation):
            raise ValueError(f"{name} reads validation examples, and the bank holds out none; use --validation 0.1")
    if not len(asked.bench.selection):
        raise ValueError(
            f"parameters are chosen on validation examples, and {asked.store.folder.shown} holds out none; use a bank "
            "made with --validation 0.1"
        )


def refuse_rounds(asked: Request, contender: Contender, forget: ForgetSet) -> None:
    """Stop where RSU would have an empty round, or could not rank.

    Args:
        asked: the data and its scores.
        contender: in rounds or not.
        forget: what it forgets.

    Raises:
        ValueError: more rounds than examples, or than classes where those are admitted whole; a risk that is no score,
            or undefined for an example to forget.
    """
    rounds = contender.rounds_over(forget.rows, lambda name: by_row(name, asked.scores.score, asked.splits.train.ids))
    if rounds is None:
        return
    rows = np.array(forget.rows)
    there = len(rows) if rounds.unit == "example" else len(np.unique(asked.bench.labels[rows]))
    if rounds.n > there:
        one, many = ("example", "examples") if rounds.unit == "example" else ("class", "classes")
        what = one if there == 1 else many
        raise ValueError(
            f"--rounds {rounds.n}: {forget.name} has {there} {what}, and each round of rsu admits at least one; use "
            f"--rounds {there} or fewer"
        )


def refuse_unmatched(asked: Request, terms: Terms, tuned_on: ForgetSet) -> None:
    """Stop where the blind selection has nothing to compare the forget set with.

    Args:
        asked: the data.
        terms: which selections are made.
        tuned_on: the forget set that parameters are chosen on.

    Raises:
        ValueError: a class of it has no example among those that selection reads.
    """
    if "blind" not in terms.select:
        return
    bench = asked.bench
    lacking = np.setdiff1d(bench.labels[np.array(tuned_on.rows)], bench.labels_true[bench.selection])
    if len(lacking):
        raise ValueError(
            f"the blind selection compares what is forgotten with unseen examples of its classes, and class "
            f"{', '.join(map(str, lacking.tolist()))} of {tuned_on.name} has none among the {len(bench.selection)} "
            "validation examples that selection reads; use --select oracle, or a bank with a larger --validation"
        )
