"""In which way a data set differs from the examples that a bank was made from."""

from collections.abc import Sequence

import pyarrow as pa

from memscore.data.splits import Splits, build_examples_table
from memscore.units import format_count


def describe_difference(stored: pa.Table, splits: Splits) -> str:
    """Describe in a clause how a data set whose fingerprint is another differs from a bank's examples.

    Args:
        stored: the bank's table of examples; its labels are compared as published, where it has them.
        splits: the data set.

    Returns:
        The first of these that differs: ids, their order, labels, images.
    """
    present = build_examples_table(splits)
    ids, stored_ids = present["id"].to_pylist(), stored["id"].to_pylist()
    new, gone = set(ids) - set(stored_ids), set(stored_ids) - set(ids)
    if new or gone:
        return _describe_other_ids(ids, stored_ids, new, gone)
    if ids != stored_ids:
        return f"the same {len(ids)} ids in another order or in other splits"
    labels, stored_labels = (
        [] if "label_true" not in t.column_names else t["label_true"].to_pylist() for t in (present, stored)
    )
    rows = [row for row, pair in enumerate(zip(labels, stored_labels, strict=False)) if pair[0] != pair[1]]
    if not rows:
        return "the same ids and labels with other images"
    first = f"{ids[rows[0]]} has {labels[rows[0]]}, the bank {stored_labels[rows[0]]}"
    # Ids that are positions stay when examples move, so that only labels and images show another order.
    moved = ", the same labels in another order" if sorted(labels, key=str) == sorted(stored_labels, key=str) else ""
    return f"{len(rows)} of {len(ids)} labels differ{moved} ({first})"


def _describe_other_ids(ids: Sequence[str], stored_ids: Sequence[str], new: set[str], gone: set[str]) -> str:
    """Describe how many ids are new or gone, with the first of each."""
    clauses = [
        f"{len(group)} {kind} (first {next(name for name in order if name in group)})"
        for group, kind, order in ((new, "new", ids), (gone, "missing", stored_ids))
        if group
    ]
    others = f", the bank {len(stored_ids)}" if len(ids) != len(stored_ids) else ""
    return f"{format_count(len(ids), 'example')}{others}: {' and '.join(clauses)}"
