"""Exact copies of forgotten examples that stay: in the retain set, where an oracle learns them, or in held-out data."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from memscore.data.duplicates import Copies, count_copies, split_by_group
from memscore.tables.duplicates_lines import MEANINGS, describe_copies
from unlearn.forget_sets import ForgetSet
from unlearn.problem import validate_forget_rows

JUDGED_PAIRS = ("train-validation", "train-test")
"""Pairs of splits whose copies change what a trial is judged by."""


@dataclass(frozen=True, kw_only=True)
class RetainedCopies:
    """The forgotten examples with an exact copy in the retain set.

    Attributes:
        pairs: ids of each such example and of its first copy there.
        same_label: number of them with a copy of the same label there.
        n_forget: number of forgotten examples.
    """

    pairs: tuple[tuple[str, str], ...]
    same_label: int
    n_forget: int

    def describe(self) -> str:
        """Describe them and what they mean; empty without any."""
        if not self.pairs:
            return ""
        others = len(self.pairs) - self.same_label
        return (
            f"{len(self.pairs)} of {self.n_forget} forgotten examples have exact copies that stay in the retain set "
            f"(as {' = '.join(self.pairs[0])}{f'; {others} under other labels only' if others else ''}): the oracle is "
            "trained on these images too, so it does not show how a model forgets them; --with-copies, of trial and "
            "sweep, forgets the copies too"
        )


def find_retained_copies(copies: Copies, forget: Sequence[int]) -> RetainedCopies:
    """Find the forgotten examples, rows of the training set, with an exact copy in the retain set."""
    forgotten = np.zeros(copies.sizes[0], bool)
    forgotten[list(forget)] = True
    pairs, same_label = {}, 0
    for group in split_by_group(copies.groups):
        rows = group[group < copies.sizes[0]]
        retained = rows[~forgotten[rows]]
        for row in rows[forgotten[rows]].tolist() if len(retained) else ():
            pairs[row] = str(copies.ids[row]), str(copies.ids[retained[0]])
            same_label += bool((copies.labels[retained] == copies.labels[row]).any())
    return RetainedCopies(pairs=tuple(pairs[row] for row in sorted(pairs)), same_label=same_label, n_forget=len(forget))


def describe_held_out_copies(copies: Copies) -> list[str]:
    """Describe the training examples that validation or test holds too, by which trials are judged."""
    clauses = describe_copies(count_copies(copies))
    return [f"{clauses[pair]}: {MEANINGS[pair]}" for pair in JUDGED_PAIRS if pair in clauses]


def add_copies(copies: Copies, forget_set: ForgetSet) -> ForgetSet:
    """Add all exact copies in the training set to a forget set; ValueError if that is the whole training set."""
    groups = copies.groups[: copies.sizes[0]]
    forgotten_groups = np.unique(groups[list(forget_set.rows)])
    added = np.flatnonzero(np.isin(groups, forgotten_groups[forgotten_groups >= 0]))
    rows = np.union1d(added, forget_set.rows)
    n_added = len(rows) - len(forget_set.rows)
    if not n_added:
        return forget_set
    name = f"{forget_set.name} with {n_added} exact {'copy' if n_added == 1 else 'copies'}"
    # Copies may have labels of other classes, of which not all examples are forgotten then.
    return replace(forget_set, name=name, rows=tuple(validate_forget_rows(rows, len(groups)).tolist()), by_class=False)
