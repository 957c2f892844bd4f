"""Tables of exact and near copies among the images of a bank, in a terminal."""

from collections.abc import Sequence

from rich.console import Console

from memscore.analysis.near_copies import NearCopies, describe_threshold
from memscore.data.duplicates import SPLIT_NAMES, Copies, count_copies, split_by_group
from memscore.store.class_names import format_class
from memscore.store.copy_counts import COPIES_PATH
from memscore.store.remote import join_url
from memscore.tables.console import make_table, print_line
from memscore.tables.duplicates_lines import format_copies, print_copies

ROWS_SHOWN = 10


def print_copies_table(console: Console, copies: Copies, store: str, names: Sequence[str] = ()) -> None:
    """Print the first groups of exact copies, and what all of them mean."""
    groups, numbers = split_by_group(copies.groups), copies.split_numbers
    counts = count_copies(copies)
    if not groups:
        print_line(console, f"copies {format_copies(counts)}")
        return
    table = make_table(
        f"exact copies: {len(groups)} images that occur more than once", ("id", "labels", *SPLIT_NAMES), whole=("id",)
    )
    for rows in groups[:ROWS_SHOWN]:
        labels = ", ".join(format_class(label, names) for label in sorted(set(copies.labels[rows].tolist())))
        in_splits = [str(int((numbers[rows] == number).sum())) for number in range(len(SPLIT_NAMES))]
        table.add_row(str(copies.ids[rows[0]]), labels, *in_splits)
    console.print(table)
    print_copies(console, counts)
    print_line(console, f"every example with a copy: {join_url(store, COPIES_PATH)}")


def print_near_copies(console: Console, near: NearCopies, path: str, names: Sequence[str] = ()) -> None:
    """Print the most similar pairs of different images, and where the threshold comes from."""
    n = near.table.num_rows
    title = f"near copies by {near.space}: {n} of {near.compared} different images"
    table = make_table(title, ("id", "label", "nearest", "its label", "cosine"), whole=("id", "nearest"))
    columns = ("id", "label", "nearest_id", "nearest_label", "similarity")
    seen: set[frozenset[str]] = set()
    for values in near.table.select(columns).slice(0, 2 * ROWS_SHOWN).to_pylist():
        # two images that are each other's nearest are one pair
        pair = frozenset((values["id"], values["nearest_id"]))
        if pair not in seen and len(seen) < ROWS_SHOWN:
            seen.add(pair)
            labels = {key: format_class(values[key], names) for key in ("label", "nearest_label")}
            *texts, cosine = (values | labels).values()
            table.add_row(*(str(text) for text in texts), f"{cosine:.5f}")
    if n:
        console.print(table)
    else:
        print_line(console, title)
    print_line(
        console,
        f"near: cosine {near.threshold:.5f} or more ({describe_threshold(near.is_measured)}); {near.other_labels} with "
        f"another label than their nearest. Look at them: similar images of one class may be near too; all: {path}",
    )
