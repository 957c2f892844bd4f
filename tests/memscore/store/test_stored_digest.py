"""The digest of stored shards: their footers are read once, and again after every change, whoever made it."""

import os

import pytest

from memscore.store.filesystem import Folder
from memscore.store.shards import build_shard_path, compute_stored_digest, hash_shards
from memscore.store.store import Store
from tests.fixtures.banks import ARM, bank, path_of, shard

NAME = ARM["name"]
HOUR_S = 3600


@pytest.fixture
def store(tmp_path):
    return bank(tmp_path / "bank")


@pytest.fixture
def opened(monkeypatch):
    """Paths of the shards that are opened."""
    paths, open_file = [], Folder.open

    def note_and_open(folder, relpath):
        paths.append(relpath)
        return open_file(folder, relpath)

    monkeypatch.setattr(Folder, "open", note_and_open)
    return paths


def age(store, seconds=HOUR_S):
    """Make all shards older."""
    for path in path_of(store, "shards").iterdir():
        status = path.stat()
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns - int(seconds * 1e9)))


def digest(store):
    return compute_stored_digest(store.folder, NAME, store.build_shard_metadata(NAME), store.manifest.n_rows)


def expected(store):
    return hash_shards(NAME, store.find_valid_shards(NAME, verify=False))


def test_footers_are_read_once(store, opened):
    age(store)
    first = digest(store)
    assert first == expected(store)
    opened.clear()
    assert digest(store) == digest(Store.open(store.url)) == first
    assert opened == []


def test_a_shard_that_another_process_adds_removes_or_replaces_is_seen(store):
    age(store)
    digests, (first, second) = [digest(store)], sorted(store.find_valid_shards(NAME, verify=False))[:2]
    contents = path_of(store, build_shard_path(NAME, first)).read_bytes()
    path_of(store, build_shard_path(NAME, first)).unlink()
    digests.append(digest(store))
    # Another's bytes of the same name: a whole shard, but of another model.
    other = path_of(store, build_shard_path(NAME, second))
    mine = other.read_bytes()
    other.write_bytes(contents)
    digests.append(digest(store))
    other.write_bytes(mine)
    store.write_shard(f"{NAME}-00077", NAME, shard(9))
    digests.append(digest(store))
    assert digests[-1] == expected(store)
    assert len(set(digests)) == 4


def test_what_changed_just_now_is_read_again(store, opened):
    digest(store)
    opened.clear()
    digest(store)
    assert len(opened) == len(store.folder.names("shards"))


def test_a_change_of_manifest_or_arm_is_seen(store):
    age(store)
    valid = digest(store)
    other = compute_stored_digest(
        store.folder, NAME, store.build_shard_metadata(NAME) | {"run_hash": "0" * 16}, store.manifest.n_rows
    )
    assert (valid, other) == (expected(store), hash_shards(NAME, {}))
    assert valid != other


def test_times_in_the_future_are_no_reason_to_trust_a_listing(store, opened):
    age(store, -HOUR_S)
    digest(store)
    opened.clear()
    digest(store)
    assert opened
