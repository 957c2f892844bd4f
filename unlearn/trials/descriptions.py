"""What the columns of trials mean, stored beside them: a store is read where neither unlearn nor a user's measure is.

`trials/measures.json` has the declaration of every measure of this version, and of each of the user's own that a
command computed. Pages about a bank read it (memscore.report), since memscore imports no unlearning.
"""

from collections.abc import Iterable
from typing import Any

from memscore.store.json_records import encode_record, read_record
from memscore.store.parquet import CorruptFile
from memscore.store.store import Store
from memscore.store.trial_files import DESCRIPTIONS_PATH
from unlearn.measures import MEASURES, get_measures
from unlearn.measures.inputs import Measure


def write_descriptions(store: Store, names: Iterable[str] = ()) -> None:
    """Store what the columns of all measures mean, those of the user's own among `names` too; others are kept."""
    # a user's own measures of earlier commands stay: their functions may be gone
    columns = read_stored_descriptions(store)
    for measure in (MEASURES | get_measures(names)).values():
        columns |= describe_measure(measure)
    # not over an equal one: stores are copied by the times of their files
    content = encode_record({"columns": columns})
    if not store.folder.exists(DESCRIPTIONS_PATH) or store.folder.read(DESCRIPTIONS_PATH) != content:
        store.folder.replace(DESCRIPTIONS_PATH, content)


def read_stored_descriptions(store: Store) -> dict[str, Any]:
    """Read what is stored already; nothing where there is nothing, or it is damaged and written anew."""
    if not store.folder.exists(DESCRIPTIONS_PATH):
        return {}
    try:
        return dict(read_record(store.folder, DESCRIPTIONS_PATH)["columns"])
    except CorruptFile:
        return {}


def describe_measure(measure: Measure) -> dict[str, dict[str, Any]]:
    """Describe the columns of a measure as the record holds them, by their names without the ending of a split."""
    return {
        name: {
            "best": column.best,
            "unit": column.unit,
            "ideal": column.ideal,
            "description": column.description,
            "paper": measure.paper,
            "endings": [f"_{split}" for split in measure.splits],
        }
        for name, column in measure.columns.items()
    }
