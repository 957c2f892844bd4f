"""Say that data have changed since a bank of the same options was made from them."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any

from memscore.data.difference import describe_difference
from memscore.data.splits import Splits
from memscore.store.filesystem import Folder
from memscore.store.manifest import Manifest
from memscore.store.remote import join_url, split_options
from memscore.store.store import Store
from memscore.units import format_count

READING_KEYS = ("validation", "test", "train_limit", "resize", "skip_bad", "without")
"""Keys of data.json that decide how data are read from their place, which an equal command gives again."""
MOST_BANKS = 20
"""Most banks beside a new one that are compared with it."""


def note_changed_data(url: str, manifest: Manifest, splits: Splits) -> tuple[str, ...]:
    """Note a bank beside a new one that an equal command made when its data were others; no line without one.

    `url` is the default location of the new bank, whose name but for the hash is that of banks of equal options.
    """
    folder = Folder.from_url(url)
    if folder.exists("manifest.json", retry_s=0):
        return ()
    # the name without its hash; the options of a URL stand behind it
    base, mark, options = split_options(url)
    home, stem = f"{base.rpartition('/')[0]}{mark}{options}", PurePosixPath(base).name.rpartition("-")[0]
    names = [name for name in Folder.from_url(home).folders("") if name.rpartition("-")[0] == stem]
    for name in names[:MOST_BANKS]:
        # a folder there may be no store, or one that is being deleted
        with suppress(OSError, ValueError):
            store = Store.open(join_url(home, name))
            if is_same_but_for_data(store, manifest, splits.origin):
                clause = describe_difference(store.examples(), splits)
                return (
                    f"the data have changed since the bank {store.folder.display_name} was made from them by an equal "
                    f"command ({clause}); this is a new bank, which uses none of its models",
                )
    return ()


def is_same_but_for_data(store: Store, manifest: Manifest, origin: Mapping[str, Any]) -> bool:
    """Return whether an equal command made a store, though from data of another fingerprint."""
    stored, stored_origin = store.manifest, store.read_origin() or {}
    place, stored_place = (record.get("path") or record.get("name") for record in (origin, stored_origin))
    names = ("data", "architecture", "recipe", "label_changes", "seed")
    return (
        stored.fingerprint != manifest.fingerprint
        and place == stored_place
        and all(getattr(stored, name) == getattr(manifest, name) for name in names)
        and all(stored_origin.get(key) == origin.get(key) for key in READING_KEYS)
    )


def require_same_left_out(url: str, manifest: Manifest, splits: Splits) -> None:
    """Raise ValueError if the store there is of the same data without other examples than --without names."""
    if not Folder.from_url(url).exists("manifest.json", retry_s=0):
        return
    store = Store.open(url)
    origins: list[Mapping[str, Any]] = [store.read_origin() or {}, splits.origin]
    stored, requested = (set(origin.get("without") or ()) for origin in origins)
    if store.manifest.data != manifest.data or stored == requested:
        return
    kept = f"without {format_count(len(stored), 'other example')}" if stored else "with all of them"
    raise ValueError(
        f"--without leaves out {format_count(len(requested), 'training example')}, and the bank "
        f"{store.folder.display_name} was trained {kept}: no example is left out of a stored bank, nor put back; give "
        "another --store for a bank of its own"
    )


def require_unchanged_data(url: str, manifest: Manifest, splits: Splits) -> None:
    """Raise ValueError that says what differs if an equal command made the store there from other data."""
    if not Folder.from_url(url).exists("manifest.json", retry_s=0):
        return
    store = Store.open(url)
    if is_same_but_for_data(store, manifest, splits.origin):
        raise ValueError(
            f"the data have changed since {store.folder.display_name} was made from them: "
            f"{describe_difference(store.examples(), splits)}; put them back as they were, or give another --store"
        )
