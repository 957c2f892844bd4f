"""Exact copies among the examples of an audit, where membership of one copy shows as evidence about the other."""

import numpy as np

from memscore.data.duplicates import Copies, split_by_group


def describe_copies_in_audit(copies: Copies, member: np.ndarray | None) -> list[str]:
    """Describe the copies that the bank's training set has, or members with a copy that is no member.

    `member` is the truth, bool [n_train], if it is known. Empty where no copies change what the evidence says.
    """
    groups = [rows[rows < copies.sizes[0]] for rows in split_by_group(copies.groups)]
    groups = [rows for rows in groups if len(rows) > 1]
    if member is not None:
        groups = [rows for rows in groups if member[rows].any() and not member[rows].all()]
    if not groups:
        return []
    n, first = sum(map(len, groups)), " = ".join(copies.ids[_order(groups[0], member)[:2]].tolist())
    if member is None:
        return [
            f"{n} training examples of the bank are exact copies of another one there (as {first}): evidence about one "
            "is evidence about all its copies, and does not tell which of them the model was trained on"
        ]
    n_members = sum(int(member[rows].sum()) for rows in groups)
    return [
        f"{n_members} members and {n - n_members} others are exact copies of each other (as {first}): the model was "
        "trained on these images, so evidence about the others is right about the image and counted as false"
    ]


def _order(rows: np.ndarray, member: np.ndarray | None) -> np.ndarray:
    """Order the rows of a group such that the first two are a member and an other, where the truth is known."""
    if member is None:
        return rows
    return np.array([rows[member[rows]][0], rows[~member[rows]][0]])
