"""Disks that are full or read-only: finished models are kept, and the same command goes on."""

import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from memscore.store.filesystem import Folder
from tests.fixtures.command import MODELS, RAY, SERIAL, SMALL, contents, ended, here, refused, shards, start

pytestmark = pytest.mark.usefixtures("home")


def mounted(*arguments):
    return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode == 0


@pytest.fixture
def disk(tmp_path, monkeypatch):
    """(folder, set_disk): a disk that can be made full, read-only or roomy; a stand-in where nothing may be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    real = mounted("-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place))
    state = {"error": None, "room": np.inf}
    opened = Path.open

    def open_or_fail(path, mode="r", *arguments, **options):
        if "x" in mode and place in path.parents and state["error"]:
            state["room"] -= 1
            if state["room"] < 0:
                raise OSError(state["error"], os.strerror(state["error"]))
        return opened(path, mode, *arguments, **options)

    def set_disk(kind):
        if real:
            options = {"full": "size=160k", "read-only": "ro", "roomy": "rw,size=64m"}[kind]
            assert mounted("-o", f"remount,{options}", str(place))
            return
        errors = {"full": (28, 12), "read-only": (30, 0), "roomy": (None, np.inf)}  # ENOSPC, EROFS
        state["error"], state["room"] = errors[kind]

    if not real:
        monkeypatch.setattr(Path, "open", open_or_fail)
    yield place, set_disk
    if real:
        subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_keeps_finished_models_and_the_same_command_goes_on(disk, small, monkeypatch, capsys):
    place, set_disk = disk
    for write in (Folder.publish, Folder.replace):
        monkeypatch.setattr(write, "__defaults__", (0.3,))  # seconds of patience
    flags = f"{SMALL} {SERIAL} --store {place / 'store'}"
    set_disk("full")
    line = refused(*here(flags, capsys))
    assert "No space left on device" in line
    assert "finished models are kept" in line
    kept = contents(place / "store", ["shards"])
    assert 0 < len(kept) < MODELS
    set_disk("roomy")
    assert here(flags, capsys)[0] == 0
    assert contents(place / "store") == contents(small)
    assert kept.items() <= contents(place / "store").items()


@pytest.mark.parametrize("pool", [SERIAL, pytest.param(RAY, marks=(pytest.mark.ray, pytest.mark.slow))])
def test_a_full_disk_is_reported_at_once_and_the_run_goes_on_when_there_is_room(pool, disk, small, tmp_path):
    """With the command's own patience of five minutes, in a process of its own: what a user sees, and when."""
    place, set_disk = disk
    if not os.path.ismount(place):
        pytest.skip("needs a disk that is full in other processes too, and may not mount one")
    set_disk("full")
    process = start(tmp_path, f"{SMALL} {pool} --store {place / 'store'}")
    line = next(line for line in process.stderr if "cannot write" in line)
    assert re.search(rf"cannot write {place}/store/\S+: No space left on device; it is tried again for 5 minutes", line)
    assert process.poll() is None
    assert len(shards(place / "store")) < MODELS
    set_disk("roomy")
    code, output = ended(process)
    assert code == 0, output
    assert contents(place / "store") == contents(small)


def test_a_read_only_store_is_refused(disk, capsys):
    place, set_disk = disk
    flags = f"{SMALL} {SERIAL} --store {place / 'store'}"
    assert here(flags, capsys)[0] == 0
    before = contents(place / "store")
    set_disk("read-only")
    more = flags.replace("--models 16", "--models 24")
    words = (
        f"error: cannot write into the store {place / 'store'}: Read-only file system; make it writable, or use another"
    )
    if os.path.ismount(place):
        assert refused(*here(more, capsys)) == f"{words} store"
    else:
        assert "Read-only file system" in refused(*here(more, capsys))
    if os.path.ismount(place):
        line = refused(*here(flags.replace("/store", "/another"), capsys))
        hint = "Read-only file system; make its place writable, or use another store"
        assert line == f"error: cannot make the store {place / 'another'}: {hint}"
    set_disk("roomy")
    assert contents(place / "store") == before
