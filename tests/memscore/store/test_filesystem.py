"""Publishing: whole files or none, the first writer wins, errors with hints; also on other file systems."""

import errno
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import boto3
import numpy as np
import pytest
from moto.server import ThreadedMotoServer
from pyarrow import fs

from memscore.store import filesystem
from memscore.store.filesystem import Folder, acquire_lock
from memscore.store.remote import WriteFailed
from memscore.store.shards import format_model_name
from memscore.store.store import Store
from tests.fixtures.banks import ARM, bank, examples, manifest, shard


@pytest.fixture
def folder(tmp_path):
    made = Folder.from_url(tmp_path / "bank")
    made.create()
    return made


@pytest.fixture(scope="module")
def bucket():
    """URL of a bucket on an S3 server of our own."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"aws_access_key_id": "k", "aws_secret_access_key": "hush", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=f"http://{host}:{port}", **keys).create_bucket(Bucket="bank")
    yield f"s3://k:hush@bank/run?endpoint_override={host}:{port}&scheme=http&region=us-east-1"
    server.stop()


def other_folders(tmp_path, bucket):
    """Folders at a file:// URL, on a file system that is neither local nor an object store, and on S3."""
    local = fs.LocalFileSystem()
    return [
        Folder.from_url(f"file://{tmp_path}/by-url"),
        Folder(url="sub://", root="in/sub", filesystem=fs.SubTreeFileSystem(str(tmp_path), local)),
        Folder.from_url(bucket),
    ]


def test_files_are_whole_or_absent_on_every_file_system(tmp_path, bucket):
    for folder in [Folder.from_url(tmp_path / "plain"), *other_folders(tmp_path, bucket)]:
        folder.create()
        assert folder.names("a") == []
        assert folder.publish("a/x", b"one")
        assert not folder.publish("a/x", b"two")
        assert folder.read("a/x") == b"one"
        folder.replace("a/x", b"three")
        folder.replace("y", b"")
        assert (folder.read("a/x"), folder.read("y")) == (b"three", b"")
        assert (folder.names("a"), folder.names()) == (["x"], ["y"])
        folder.move("a/x", "b/z")
        assert (folder.names("a"), folder.names("b")) == ([], ["z"])
        folder.remove("b/z")
        folder.remove("b/z")
        assert not folder.exists("b/z")
        with pytest.raises(FileNotFoundError):
            folder.read("b/z")


def test_a_whole_store_lives_on_s3(bucket):
    url = bucket.replace("/run?", "/another?")
    store = bank(url)
    store = Store.open(url)
    with store.lock():
        assert list(store.find_valid_shards(ARM["name"])) == [0, 1, 2]
    (block,) = store.read_blocks(ARM["name"], [0, 1, 2], ["gap"])
    np.testing.assert_array_equal(block.columns["gap"], [shard(i)["gap"][:40] for i in range(3)])
    name = f"shards/{format_model_name(ARM['name'], 1)}.parquet"
    store.folder.replace(name, store.folder.read(name)[:-9])
    assert list(store.check(ARM["name"]).damaged) == [name]
    store.quarantine(name)
    assert store.write_shard(format_model_name(ARM["name"], 1), ARM["name"], shard(1))
    assert list(store.find_valid_shards(ARM["name"], verify=False)) == [0, 1, 2]
    with pytest.raises(ValueError, match="is another one") as refused:
        Store.create(url, manifest(seed=1), examples())
    assert "hush" not in str(refused.value)


def test_a_bucket_that_is_not_there_is_refused_at_once(bucket):
    began = time.monotonic()
    with pytest.raises(WriteFailed, match=r"cannot write s3://nowhere/run/x: NO_SUCH_BUCKET.*make the bucket first"):
        Folder.from_url(bucket.replace("@bank/run", "@nowhere/run")).publish("x", b"1")
    assert time.monotonic() - began < 30


def test_an_unknown_kind_of_url_is_refused_without_its_password():
    with pytest.raises(ValueError, match=r"cannot open foo://\*\*\*@host/x: .*give a path, or a URL such as s3://"):
        Folder.from_url("foo://me:hush@host/x")


def test_a_publisher_killed_at_any_time_leaves_no_partial_file(folder):
    """kill -9 in the middle of publishing, ten times over; what has a name is whole."""
    code = textwrap.dedent(
        """
        import sys
        from memscore.store.filesystem import Folder
        folder = Folder.from_url(sys.argv[1])
        print("ready", flush=True)
        for number in range(10**6):
            folder.publish(f"a/{sys.argv[2]}-{number}", bytes([number % 256]) * 300_000)
            folder.replace("a/latest", bytes([number % 256]) * 300_000)
        """
    )
    for attempt in range(10):
        with subprocess.Popen(
            [sys.executable, "-c", code, folder.root, str(attempt)], stdout=subprocess.PIPE
        ) as publisher:
            publisher.stdout.readline()
            time.sleep(0.005 + 0.014 * attempt)
            publisher.send_signal(signal.SIGKILL)
    names = folder.names("a")
    assert len(names) > 10
    for name in names:
        content = folder.read(f"a/{name}")
        assert len(content) == 300_000, name
        assert len(set(content)) == 1, name
    folder.remove_temporary_files()
    assert sorted(os.listdir(folder.path("a"))) == names


def test_of_writers_that_race_exactly_one_wins_each_file(folder):
    """Eight threads and one file, fifty times; the file holds what the winner wrote."""
    for number in range(50):
        won, start = [], threading.Barrier(8)

        def write(writer, number=number, won=won, start=start):
            start.wait()
            if folder.publish(f"a/{number}", f"{writer}".encode() * 1000):
                won.append(writer)

        writers = [threading.Thread(target=write, args=(writer,)) for writer in range(8)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        assert len(won) == 1
        assert folder.read(f"a/{number}") == f"{won[0]}".encode() * 1000
    assert all(not name.endswith(".scratch") for name in os.listdir(folder.path("a")))


def failing(monkeypatch, number, times=10**9):
    """Make the disk's links fail with one error number, the first times; the list counts the calls."""
    calls, link = [], os.link

    def fail(*paths):
        calls.append(paths)
        if len(calls) <= times:
            raise OSError(number, os.strerror(number), paths[1])
        link(*paths)

    monkeypatch.setattr(filesystem.os, "link", fail)
    return calls


def test_a_full_disk_is_retried_until_the_time_ends(folder, monkeypatch, caplog):
    calls = failing(monkeypatch, errno.ENOSPC)
    with pytest.raises(
        WriteFailed, match=r"cannot write .*/bank/x: No space left.*tried for .* s.*give the same command again"
    ):
        folder.publish("x", b"1", retry_s=0.5)
    assert len(calls) == 3  # at 0, .1 and .3 s
    assert [record.getMessage() for record in caplog.records] == [
        f"cannot write {folder.root}/x: No space left on device; it is tried again for 0.5 s, then the run stops. Free "
        "some space, or make the store writable, and the run goes on; finished models are kept"
    ]
    assert os.listdir(folder.root) == []


def test_a_full_disk_that_empties_in_time_is_no_error_and_logged_before_the_wait(folder, monkeypatch, caplog):
    calls = failing(monkeypatch, errno.ENOSPC, times=2)
    waited = []
    monkeypatch.setattr(time, "sleep", lambda s: waited.append((s, len(caplog.records))))
    assert folder.publish("x", b"1")
    assert (len(calls), folder.read("x")) == (3, b"1")
    assert waited == [(0.1, 1), (0.2, 1)]
    assert "it is tried again for 5 minutes" in caplog.records[0].getMessage()
    assert re.search(r"/x is written after all, 0 s later; the run goes on$", caplog.records[1].getMessage())


def test_a_disk_too_full_for_the_lock_is_one_line_with_a_hint(folder, monkeypatch):
    monkeypatch.setattr("memscore.store.filesystem.os.pwrite", raise_full)
    with pytest.raises(
        OSError,
        match=r"^cannot write into the store /.*: No space left on device; free some space, or use another store$",
    ):
        acquire_lock(folder).__enter__()


def raise_full(*arguments):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_disk_that_cannot_be_written_is_refused_at_once(folder, monkeypatch, number):
    calls = failing(monkeypatch, number)
    with pytest.raises(WriteFailed, match=os.strerror(number)) as refused:
        folder.publish("x", b"1")
    assert len(calls) == 1
    again = pickle.loads(pickle.dumps(refused.value))
    assert (type(again), again.stops_the_run, str(again)) == (WriteFailed, True, str(refused.value))


@pytest.fixture
def small_disk(tmp_path, monkeypatch):
    """A folder with room for 1 MB: a file system of its own, or a sync that fails where the process may not mount."""
    path = tmp_path / "small"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", path]
    mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    if not mounted:
        monkeypatch.setattr(filesystem.os, "fsync", full_beyond_1_mb(path))
    yield Folder.from_url(path)
    if mounted:
        subprocess.run(["umount", path], check=True)


def full_beyond_1_mb(path):
    """Return an fsync for a disk that detects late that it is full."""

    def sync(descriptor):
        if sum(entry.stat().st_size for entry in os.scandir(path / "a")) > 2**20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return sync


def test_a_disk_that_fills_up_keeps_what_is_there(small_disk):
    assert small_disk.publish("a/x", b"1" * 500_000)
    with pytest.raises(WriteFailed, match="No space left on device"):
        small_disk.publish("a/y", b"2" * 900_000, retry_s=0.2)
    assert os.listdir(small_disk.path("a")) == ["x"]
    assert small_disk.publish("a/z", b"3" * 1000)


def test_a_disk_without_links_gets_the_file_by_renaming(folder, monkeypatch):
    failing(monkeypatch, errno.EOPNOTSUPP)
    assert folder.publish("a/x", b"1")
    assert not folder.publish("a/x", b"2")
    assert (folder.read("a/x"), os.listdir(folder.path("a"))) == (b"1", ["x"])


def test_a_folder_that_vanished_is_not_made_anew(folder):
    Path(folder.root).rmdir()
    with pytest.raises(WriteFailed, match="No such file"):
        folder.publish("a/x", b"1", retry_s=0.1)
    assert not Path(folder.root).exists()


def test_temporary_files_of_dead_processes_and_old_ones_are_removed_and_others_stay(folder):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host, hour_ago = socket.gethostname(), time.time() - 3700
    of_dead, of_this, of_other_host, old = (
        Path(folder.root) / f".x~{name}.scratch"
        for name in (f"{host}~{dead.pid}~0a", f"{host}~{os.getpid()}~0b", "far~1~0c", "far~1~0d")
    )
    for path in (of_dead, of_this, of_other_host, old):
        path.touch()
    os.utime(old, (hour_ago, hour_ago))
    assert folder.names() == []
    assert folder.remove_temporary_files() == 2
    assert sorted(os.listdir(folder.root)) == sorted([of_this.name, of_other_host.name])


def test_a_second_driver_is_refused_by_pid_and_host_until_the_first_dies(folder):
    code = "import sys, time; from memscore.store.filesystem import Folder, acquire_lock\n"
    code += "with acquire_lock(Folder.from_url(sys.argv[1])): print('in', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, folder.root], stdout=subprocess.PIPE) as first:
        first.stdout.readline()
        with (
            pytest.raises(BlockingIOError, match=rf"in use by pid {first.pid} on host {socket.gethostname()}"),
            acquire_lock(folder),
        ):
            pass
        first.kill()
    with acquire_lock(folder), pytest.raises(BlockingIOError, match=f"pid {os.getpid()}"), acquire_lock(folder):
        pass
    with acquire_lock(folder):
        pass
