"""What killed processes leave is removed by the next one, and nothing of a process that lives."""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from cluster.leftovers import (
    FOLDER_NAME,
    OWNER,
    create_temporary_folder,
    is_owner_dead,
    make_owner,
    read_space,
    read_start,
    remove_leftovers,
)
from memscore.store.filesystem import Folder
from tests.fixtures import banks

ROOT = Path(__file__).parents[2]
HOST, PID = socket.gethostname(), os.getpid()
KILLED = """
import os, signal
from cluster.leftovers import create_temporary_folder
folder = create_temporary_folder("scores")
open(folder.name + "/array", "w").write("x")
print(folder.name, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """A folder for temporary files of the test's own, here and in processes that it starts."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def test_the_folder_of_a_killed_process_is_removed_by_the_next_one(temporary):
    done = subprocess.run(
        [sys.executable, "-c", KILLED], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == -signal.SIGKILL
    left = Path(done.stdout.strip())
    assert (left / "array").exists()
    assert FOLDER_NAME.fullmatch(left.name)
    with create_temporary_folder("search") as folder:
        assert [path.name for path in temporary.iterdir()] == [Path(folder).name]
        assert remove_leftovers() == 0  # it is of a process that lives
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("owner", "is_dead"),
    [
        (make_owner(), False),
        (f"{HOST}~{PID}", False),
        (f"{HOST}~{PID}-1-{read_space()}", True),  # the pid was used again
        (f"{HOST}~{PID}--", False),
        (f"{HOST}~{2**22 + 1}-1-{read_space()}", True),
        (f"{HOST}~{2**22 + 1}", True),
        (f"{HOST}~{2**22 + 1}-1-1", False),  # of another container
        (f"elsewhere~{2**22 + 1}-1-{read_space()}", False),
    ],
    ids=["alive", "pid", "pid used again", "unknown start", "dead", "dead pid", "other container", "other host"],
)
def test_an_owner_is_dead_only_where_that_is_known(owner, is_dead):
    assert is_owner_dead(re.fullmatch(OWNER, owner)) == is_dead


def test_the_start_of_a_process_is_after_that_of_its_parent_and_missing_without_one():
    assert 0 < int(read_start(os.getppid())) <= int(read_start(PID))
    assert read_start(2**22 + 1) == ""


def test_a_link_and_what_is_named_otherwise_stay(temporary):
    dead = f"{HOST}~{2**22 + 1}-1-{read_space()}"
    (temporary / "precious").mkdir()
    (temporary / f"memscore-scores~{dead}~a").symlink_to(temporary / "precious")
    (temporary / f"memscore-scores~{dead}").mkdir()
    (temporary / f"other-scores~{dead}~a").mkdir()
    (temporary / f"memscore-scores~{dead}~b").mkdir()
    assert remove_leftovers() == 1
    assert len(list(temporary.iterdir())) == 4


def test_taking_a_store_s_lock_removes_leftovers_in_it_at_any_depth(temporary):
    store = banks.bank(temporary / "bank")
    dead = f"{HOST}~{2**22 + 1}-1-{read_space()}"
    left = [Path(store.folder.path(f"{folder}.x~{dead}~0a.scratch")) for folder in ("", "shards/", "attempts/search/")]
    for path in [*left, temporary / f"memscore-search~{dead}~a" / "file"]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    with store.lock():
        assert [path for path in temporary.rglob("*") if "~" in path.name] == []
    assert Folder.from_url(store.url).names("shards") == store.folder.names("shards")
