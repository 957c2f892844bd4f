"""Read a bank's data again from where they were read, as data.json says, and check them by their fingerprint."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from memscore.data.datasets import NAMED_DATASETS, load_dataset, read_published, split_published
from memscore.data.difference import describe_difference
from memscore.data.splits import Splits
from memscore.store.store import Store

READING_OPTIONS = ("test", "resize", "skip_bad", "without")
"""Arguments of load_dataset that records of earlier versions lack, and that decide what is read."""


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """Where data are read from: the name and folder that load_dataset takes."""

    name: str
    folder: str | None = None

    @property
    def place(self) -> str:
        """The name, and the folder where there is one, for a message."""
        return self.name if self.folder is None else f"{self.name} in {self.folder}"


def is_function(name: str) -> bool:
    """Return whether a data set's or network's name is module:function, which is code that would be run."""
    return re.fullmatch(r"[\w.]+:\w+", name) is not None


def is_built_in(name: str) -> bool:
    """Return whether a data set is one that memscore knows by name, wherever its files are."""
    return name in NAMED_DATASETS


def find_recorded_source(origin: Mapping[str, Any]) -> DataSource:
    """Return where data.json says that data were read; a user's own folder or file by its absolute path."""
    name, folder, path = (origin.get(key) for key in ("name", "folder", "path"))
    if is_built_in(str(name)) or not path:
        return DataSource(name=str(name), folder=folder)
    return DataSource(name=str(path))


def locate_data(store: Store, data: str | None, folder: str | None) -> DataSource:
    """Find where a bank's data are to be read: where the user says, else where they were read, else by their name.

    ValueError with the flag to give: for a function that only the record names, which is code and might be anybody's,
    and for a recorded folder or file that is not there.
    """
    bank, origin = store.folder.display_name, store.read_origin()
    if data is not None:
        return DataSource(name=data, folder=folder)
    if not origin or not origin.get("name"):
        return _locate_by_manifest(store, folder)
    recorded = find_recorded_source(origin)
    if is_function(recorded.name):
        raise ValueError(
            f"the data of {bank} came from the function {recorded.name}, which is code and runs only where you name "
            f"it: add --data {recorded.name}"
        )
    if folder is not None:
        return replace(recorded, folder=folder)
    lacking = recorded.folder if is_built_in(recorded.name) else recorded.name
    if lacking is not None and not Path(lacking).expanduser().exists():
        flag = f"--folder FOLDER, where {recorded.name} is" if recorded.folder else "--data PATH, where they are"
        raise ValueError(f"the data of {bank} were read from {lacking}, which is not there; give {flag} now")
    return recorded


def _locate_by_manifest(store: Store, folder: str | None) -> DataSource:
    """Return the manifest's name of the data, all that a store of 0.1.0 knows; ValueError if it names a store."""
    name = store.manifest.data
    if folder is None and not is_built_in(name) and (Path(name) / "manifest.json").exists():
        raise ValueError(
            f"{store.folder.display_name} knows only the name of its data, {name!r}, and the folder of that name here "
            "is a store; give --data PATH of the data"
        )
    return DataSource(name=name, folder=folder)


def reload_splits(store: Store, data: str | None = None, folder: str | None = None) -> Splits:
    """Load again the data set that a bank was made from, whatever the current folder, with its own normalization.

    Place and options of reading come from data.json, label noise and seed from the manifest. In a store of 0.1.0, which
    has no data.json, the manifest gives the name, and the options follow from the sizes of its splits. `data` and
    `folder` are as estimate's, where the data are now; a recorded function is called only if `data` names it.
    ValueError if nothing can be read there, or its fingerprint is another: it says what differs and what to give.
    """
    manifest, origin = store.manifest, store.read_origin() or {}
    source = locate_data(store, data, folder)
    try:
        splits = _read_as_recorded(store, source, origin) if "validation" in origin else _read_by_sizes(store, source)
    except (ValueError, FileNotFoundError) as error:
        raise ValueError(
            f"the bank's data {source.place!r} cannot be read again as the bank read it: {error} (--data takes what "
            "estimate's --data was)"
        ) from error
    if splits.fingerprint != manifest.fingerprint:
        raise ValueError(
            f"the data {source.place!r} is not what {store.folder.display_name} was made from: its fingerprint is "
            f"{splits.fingerprint[:12]}, the bank's {manifest.fingerprint[:12]} "
            f"({describe_difference(store.examples(), splits)}); give --data or --folder of the same"
        )
    # the bank's own normalization, not one that is computed again
    return replace(splits, mean=manifest.mean, std=manifest.std)


def _read_as_recorded(store: Store, source: DataSource, origin: Mapping[str, Any]) -> Splits:
    """Read the data with the options of data.json; links are followed, since the fingerprint tells what they show."""
    manifest = store.manifest
    return load_dataset(
        source.name,
        folder=source.folder,
        validation=origin["validation"],
        train_limit=origin.get("train_limit"),
        label_noise=float(manifest.label_changes.get("label_noise", 0.0)),
        seed=manifest.seed,
        follow_links=True,
        **{name: origin[name] for name in READING_OPTIONS if origin.get(name)},
    )


def _read_by_sizes(store: Store, source: DataSource) -> Splits:
    """Read the data with options that follow from the sizes of the bank's splits."""
    manifest = store.manifest
    n_train, n_validation, _ = manifest.split_sizes
    noise = float(manifest.label_changes.get("label_noise", 0.0))
    # The data set's default split is tried first; if its fingerprint is another, the share and the limit are computed
    # back from the sizes.
    published = read_published(source.name, source.folder, follow_links=True)
    splits = split_published(published, label_noise=noise, seed=manifest.seed)
    total = len(splits.train) + len(splits.validation)
    if splits.fingerprint == manifest.fingerprint or n_train + n_validation > total:
        return splits
    # a publisher's own validation split cannot be asked for by a share, so a share is given only where needed
    validation = None if len(splits.validation) == n_validation else n_validation / total
    limit = None if n_train + n_validation == total else n_train
    return split_published(published, validation=validation, train_limit=limit, label_noise=noise, seed=manifest.seed)
