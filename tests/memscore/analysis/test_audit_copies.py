"""Copies on both sides of an audit are counted and named; copies on one side are not."""

import numpy as np
import pytest

from memscore.analysis.audit_copies import describe_copies_in_audit
from memscore.data.duplicates import Copies

GROUPS = np.array([0, -1, 0, 1, 1, 2, 3, 3, -1, 2])  # the last two rows are test examples


@pytest.fixture
def copies():
    ids = np.array([f"id{row}" for row in range(10)])
    return Copies(groups=GROUPS, ids=ids, labels=np.zeros(10, int), sizes=(8, 0, 2))


def test_members_with_a_copy_among_the_others_are_counted(copies):
    member = np.array([False, True, True, True, True, True, False, False])
    (line,) = describe_copies_in_audit(copies, member)
    assert line.startswith("1 members and 1 others are exact copies of each other (as id2 = id0)")
    # a group that is on one side, and a copy in the test set, mix nothing
    member[0] = True
    assert describe_copies_in_audit(copies, member) == []


def test_without_the_truth_all_copies_of_the_training_set_are_counted(copies):
    (line,) = describe_copies_in_audit(copies, None)
    assert line.startswith("6 training examples of the bank are exact copies of another one there (as id0 = id2)")
    none = Copies(groups=np.full(10, -1), ids=copies.ids, labels=copies.labels, sizes=copies.sizes)
    assert describe_copies_in_audit(none, None) == []
