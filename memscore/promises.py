"""Scores, learning events and influences that other files of a store say must be there."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from memscore.parquet import metadata_of
from memscore.records import read_record
from memscore.shards import model_index
from memscore.store import INFLUENCE_OPTIONS, Store


def promised_scores(store: Store, unreadable: Collection[str]) -> Iterator[str]:
    """Files of scores whose columns stand in scores.parquet and in no score's own file."""
    path = "scores.parquet"
    if any(file in unreadable or not store.folder.exists(file) for file in (path, "examples.parquet")):
        return
    files = [f"scores/{name}" for name in store.folder.names("scores")]
    if any(file in unreadable for file in files):
        return  # it is named already, and nobody knows its columns
    known = set(store.examples().column_names).union(*(store.read_table(file).column_names for file in files))
    lost = [column for column in store.read_table(path).column_names if column not in known]
    yield from (f"scores/{c}.parquet" for c in lost if not any(c.startswith(f"{other}_") for other in lost))


def promised_events(
    store: Store, receipts: Mapping[str, Mapping[str, Any]], shards: Collection[str], unreadable: Collection[str]
) -> Iterator[str]:
    """Learning events and proxies of originals that have a receipt, and those that a score was made from.

    Args:
        store: open.
        receipts: of originals that did not diverge, and of their proxies.
        shards: names of models that have one.
        unreadable: paths of damaged files.

    Yields:
        Paths, there or not.
    """
    keys = [receipt["key"] for receipt in receipts.values() if "ending" not in receipt]
    yield from (f"events/{key}.parquet" for key in keys)
    yield from (f"events/{r['key']}-{r['ending']}.parquet" for r in receipts.values() if "ending" in r)
    there = {name.removesuffix(".parquet") for name in store.folder.names("events")}
    for file in store.folder.names("scores"):
        if f"scores/{file}" in unreadable or not file.startswith(("events_bank_", "events_evaluation_")):
            continue
        said = metadata_of(store.read_table(f"scores/{file}").schema)
        if file.startswith("events_bank_"):
            models = {name for name in shards if model_index(name, said["models_of"]) is not None}
        else:
            models = {f"{key}-evaluation" for key in keys}
        if len(models & there) < int(said["models"]):
            yield from (f"events/{model}.parquet" for model in sorted(models))


def promised_influence(store: Store, unreadable: Collection[str]) -> dict[str, str]:
    """Files of influence that were written, by the record of each, or that a picture was drawn from -> what to do."""
    again = f"python -m memscore.influence {store.folder.shown}"
    promised: dict[str, str] = {}
    for report in store.folder.names("reports"):
        name, _, ending = report.removeprefix("influence_").rpartition(".")
        path = f"influence/{name}.parquet"
        if report.startswith("influence_") and ending == "png":
            promised.setdefault(path, f"`{again}` with the options it was made with makes it again")
        elif report.startswith("influence_") and ending == "json" and f"reports/{report}" not in unreadable:
            said = read_record(store.folder, f"reports/{report}")
            asked = " ".join(f"--{key.replace('_', '-')} {said[key]}" for key in INFLUENCE_OPTIONS if key in said)
            promised[path] = f"`{again} {asked}` makes it again"
    return promised
