"""Leave examples out of a training set, as if they had never been there."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from memscore.data.id_lists import has_list_ending, read_matching_ids
from memscore.data.splits import Dataset, select_rows

OPTION = "--without"


@dataclass(frozen=True, kw_only=True, eq=False)
class Remainder:
    """A training set without some examples.

    Attributes:
        train: the remaining examples, in their order.
        ids: of the examples that were left out, sorted.
    """

    train: Dataset
    ids: tuple[str, ...]


def leave_out(train: Dataset, words: Sequence[str]) -> Remainder:
    """Leave examples out.

    Args:
        train: the training set.
        words: ids, or one file of ids as memscore.data.id_lists reads them.

    Returns:
        The remaining examples; all of them where there are no words.

    Raises:
        ValueError: a file that cannot be read, or an id that is none of the training set.
        FileNotFoundError: one word that names a file of ids, which is not there.
    """
    known = {str(example): row for row, example in enumerate(train.ids)}
    # An id may look like a file's name, as those of an image folder do, so ids come first.
    ids, origin = list(words), ""
    form = f"ids are as {str(train.ids[0])!r}, those of a bank are in its examples.parquet"
    if len(ids) == 1 and ids[0] not in known:
        if not Path(ids[0]).exists() and not has_list_ending(ids[0]):
            raise ValueError(f"{OPTION} {ids[0]!r} is no id of the training set and no file of ids; {form}")
        origin = f" of {ids[0]}"
        ids = [str(example) for example in read_matching_ids(ids[0], known, OPTION).ids]
    unknown = [example for example in ids if example not in known]
    for file in unknown if not origin else ():
        if has_list_ending(file) and Path(file).is_file():
            raise ValueError(
                f"{OPTION} takes one file of ids or ids, and got the file {file!r} among {len(ids)} ids; give it alone"
            )
    if unknown:
        raise ValueError(
            f"{OPTION} {unknown[0]!r}{origin} is no id of the training set"
            + (f", nor are {len(unknown) - 1} more" if len(unknown) > 1 else "")
            + f"; {form}"
        )
    staying = np.ones(len(train), dtype=bool)
    staying[[known[example] for example in ids]] = False
    return Remainder(train=train if staying.all() else select_rows(train, staying), ids=tuple(sorted(set(ids))))
