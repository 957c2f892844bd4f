"""Whether nodes see the store, checked in this process; two real nodes are in tests/cluster/test_two_nodes.py."""

import os
import shutil

import pytest

from memscore.store import visibility
from memscore.store.filesystem import Folder
from memscore.store.store import Store
from memscore.store.visibility import check_visibility, open_visible_store, require_visible_on_all_nodes
from tests.fixtures.banks import examples, manifest


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(visibility, "MARKER_TIMEOUT_S", 0.0)


@pytest.fixture
def store(tmp_path):
    return Store.create(str(tmp_path / "bank"), manifest(), examples())


def files(store):
    return sorted(os.listdir(store.folder.root))


def test_nodes_that_see_the_store_leave_nothing_in_it(store):
    before = files(store)
    require_visible_on_all_nodes(store, lambda function: {"a": reason} if (reason := function()) else {})
    assert files(store) == before


def test_a_store_of_the_same_identity_elsewhere_is_not_the_driver_s(store, tmp_path):
    shutil.copytree(store.url, tmp_path / "there")
    store.folder.replace("mark", b"1")
    assert check_visibility(store.url, "mark") is None
    assert check_visibility(str(tmp_path / "there"), "mark") == "a store is at this path, but it is not the driver's"
    assert check_visibility(str(tmp_path / "nowhere"), "mark") == "not visible there"
    assert not (tmp_path / "nowhere").exists()


def test_a_store_that_a_node_may_only_read_is_reported(store, monkeypatch):
    store.folder.replace("mark", b"1")

    def read_only(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Folder, "replace", read_only)
    assert check_visibility(store.url, "mark") == "not writable there (Read-only file system)"


def test_nodes_without_the_store_are_named_with_a_hint_and_the_marker_is_removed(store):
    before = files(store)
    reason = {f"node{k}": "not visible there" for k in range(5)}
    with pytest.raises(
        FileNotFoundError, match=r"cannot be used from 5 of the cluster's nodes .*node0: not .* and 2 more"
    ):
        require_visible_on_all_nodes(store, lambda function: reason)
    assert files(store) == before


def test_a_store_that_nodes_do_not_see_is_not_created(tmp_path):
    planned = Store.open_or_plan(str(tmp_path / "bank"), manifest())
    with pytest.raises(FileNotFoundError, match="cannot be used from 1 of the cluster's nodes"):
        require_visible_on_all_nodes(planned, lambda function: {"node": "not visible there"})
    assert os.listdir(tmp_path) == []
    require_visible_on_all_nodes(planned, lambda function: {"a": reason} if (reason := function()) else {})
    planned.create_files(examples())
    assert files(planned) == files(Store.create(str(tmp_path / "other"), manifest(), examples()))


def test_a_worker_that_does_not_see_the_store_ends_the_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not visible from node ") as caught:
        open_visible_store(str(tmp_path / "gone"))
    assert caught.value.stops_the_run
