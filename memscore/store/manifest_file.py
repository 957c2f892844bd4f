"""manifest.json in a folder: read it, and tell whether it is the one that the shards there were made under.

Each shard holds a hash of the manifest and its arm, so that a manifest that was lost or damaged is found again by the
command that made the store, and one that was copied in from another store is recognized by the shards' own.
"""

from memscore.store.filesystem import Folder
from memscore.store.json_records import require_same
from memscore.store.manifest import CorruptManifest, Manifest
from memscore.store.shards import match_shards
from memscore.units import format_count

OTHER_MANIFEST_REASON = "it is another store's, for no shard here was made under it"
REMAKE_MANIFEST = (
    "the command that made the store, run again with the same options, writes manifest.json again and keeps the models"
)


def read_manifest(folder: Folder, retry_s: float = 0.0) -> Manifest:
    """Read the manifest of a store; each error (missing, damaged, of another version) says what to do."""
    try:
        return Manifest.from_json(folder.read("manifest.json", retry_s))
    except FileNotFoundError:
        folder.require_bucket()
        if shards := folder.names("shards"):
            raise FileNotFoundError(
                f"{folder.display_name} has {format_count(len(shards), 'shard')} and no manifest.json, which says "
                "what they are; "
                f"{REMAKE_MANIFEST}; or put it back from a copy"
            ) from None
        raise FileNotFoundError(
            f"no store at {folder.display_name} (it has no manifest.json); create one with "
            f"`python -m memscore.estimate --store {folder.display_name}`, "
            "or give a shared path or s3:// URL that this machine sees"
        ) from None
    except CorruptManifest as error:
        raise CorruptManifest(format_manifest_error(folder, str(error))) from None
    except ValueError as error:
        raise ValueError(f"cannot read {folder.display_path('manifest.json')}: {error}") from None


def require_same_store(folder: Folder, stored: Manifest, requested: Manifest) -> None:
    """Raise ValueError if the store in a folder has another identity than requested, or another store's manifest."""
    hint = "give another store for this run"
    if stored.imported != requested.imported:
        kind = "imported from somebody else's arrays" if stored.imported else "trained by memscore.estimate"
        raise ValueError(f"the bank in {folder.display_name} was {kind} and stays so; {hint}")
    is_from_another_store = match_shards(folder, stored.digest) is False
    try:
        require_same(stored.identity(), requested.identity(), f"the store {folder.display_name}", hint)
    except ValueError:
        # Another store may have this run's identity only in its shards: then it is the manifest that must go.
        if not (is_from_another_store and match_shards(folder, requested.digest)):
            raise
    if is_from_another_store:  # training would call every shard damaged
        raise ValueError(format_manifest_error(folder, OTHER_MANIFEST_REASON))


def require_own_manifest(folder: Folder, manifest_digest: str) -> None:
    """Raise CorruptManifest if all shards of a store were made under another manifest than the one that it has."""
    if match_shards(folder, manifest_digest) is False:
        raise CorruptManifest(format_manifest_error(folder, OTHER_MANIFEST_REASON))


def require_own_shards(folder: Folder, manifest_digest: str) -> None:
    """Raise if shards without a manifest were not made under this one, which would call all of them damaged."""
    shards = folder.names("shards")
    if shards and not (made_under_it := match_shards(folder, manifest_digest)):
        reason = (
            "no readable arm tells what they are"
            if made_under_it is None
            else "they are of other data, another network, recipe or seed than this run"
        )
        raise ValueError(
            f"{folder.display_name} has {format_count(len(shards), 'shard')} and no manifest.json, and {reason}; use "
            "the options that "
            "they were made with, put manifest.json back from a copy, or give another --store"
        )


def find_manifest_fault(folder: Folder) -> str:
    """Return why a store's manifest.json is not its own or not what was written; empty if it is."""
    try:
        manifest = Manifest.from_json(folder.read("manifest.json"))
    except CorruptManifest as error:
        return str(error)
    return OTHER_MANIFEST_REASON if match_shards(folder, manifest.digest) is False else ""


def format_manifest_error(folder: Folder, reason: str) -> str:
    """Say why a manifest cannot be used, and what to do: it is moved away, and written again if the shards fit."""
    return (
        f"cannot read {folder.display_path('manifest.json')}: {reason}; "
        f"`python -m memscore.bank verify {folder.display_name} --set-aside` moves it away, and {REMAKE_MANIFEST}"
    )
