"""The folder that goes along with a job: what is in it, and what is too large."""

import os
import random
import re
import time
import zipfile
from pathlib import Path

import pytest

from cluster import packaging
from cluster.packaging import pack

ROOT = Path(__file__).parents[2]


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def list_names(archive):
    with zipfile.ZipFile(archive) as packed:
        return sorted(packed.namelist())


def test_what_the_ignore_files_name_and_environments_stay_behind(tmp_path):
    folder = tmp_path / "work"
    paths = ("mine", "sub/code", "sub/big", "sub/deep/big", "data/x", "cache/y", "__pycache__/z", ".venv/python")
    write(folder, dict.fromkeys(paths, b"1"))
    (folder / ".gitignore").write_text("/data\n")
    (folder / ".rayignore").write_text("cache/\n")
    (folder / "sub" / ".rayignore").write_text("big\n")
    pack(folder, tmp_path / "a.zip")
    assert list_names(tmp_path / "a.zip") == [".gitignore", ".rayignore", "mine", "sub/.rayignore", "sub/code"]


def test_ray_would_send_the_same_files_of_this_repository(tmp_path):
    from ray._private.ray_constants import get_runtime_env_default_excludes
    from ray._private.runtime_env.packaging import create_package

    ours, theirs = tmp_path / "ours.zip", tmp_path / "theirs.zip"
    assert pack(ROOT, ours) < 3 * 2**19
    create_package(str(ROOT), theirs, include_gitignore=True, excludes=get_runtime_env_default_excludes())
    assert list_names(ours) == sorted(name for name in list_names(theirs) if not name.endswith("/"))
    assert {"memscore/estimate.py", "cluster/deploy/local.sh"} <= set(list_names(ours))


def test_equal_folders_give_equal_bytes_and_scripts_stay_executable(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / name, {"x": b"1", "run": b"#!/bin/sh"})
        (tmp_path / name / "run").chmod(0o755)
        os.utime(tmp_path / name / "x", (len(name), 10**9))
        pack(tmp_path / name, tmp_path / f"{name}.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as packed:
        assert [packed.getinfo(name).external_attr >> 16 for name in ("run", "x")] == [0o755, 0o644]


def test_links_are_followed_but_not_in_circles(tmp_path):
    write(tmp_path / "work", {"x": b"1"})
    write(tmp_path / "beside", {"y": b"2"})
    (tmp_path / "work" / "beside").symlink_to(tmp_path / "beside")
    (tmp_path / "work" / "again").symlink_to(tmp_path / "work")
    (tmp_path / "work" / "nowhere").symlink_to(tmp_path / "gone")
    pack(tmp_path / "work", tmp_path / "a.zip")
    assert list_names(tmp_path / "a.zip") == ["beside/y", "x"]


def test_a_folder_over_the_limit_is_refused_naming_the_largest_and_the_remedy(tmp_path):
    noise = random.Random(0)
    folder = tmp_path / "work"
    write(folder, {f"data/{k}.npy": noise.randbytes(500_000) for k in range(4)})
    write(folder, {"runs/log": noise.randbytes(1_000_000), "small": b"1"})
    with pytest.raises(ValueError, match="Ray takes 1 MiB zipped, and its files have 3 MB; the largest ") as caught:
        pack(folder, tmp_path / "a.zip", limit_bytes=2**20)
    assert "data/ 2 MB, runs/ 1 MB, small 0 MB" in str(caught.value)
    assert f"{folder}/.rayignore" in str(caught.value)
    (folder / ".rayignore").write_text("data/\nruns/\n")
    assert pack(folder, tmp_path / "a.zip", limit_bytes=2**20) < 1000


def test_what_zips_well_may_be_larger_than_the_limit(tmp_path):
    write(tmp_path / "work", {"zeros": bytes(5_000_000)})
    assert pack(tmp_path / "work", tmp_path / "a.zip", limit_bytes=2**20) < 10_000


def get_refusal(folder, archive):
    """Return the error, which must be one line and come without reading the folder to its end."""
    began = time.monotonic()
    with pytest.raises((ValueError, OSError)) as caught:
        pack(folder, archive)
    assert time.monotonic() - began < 10
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_that_is_none_is_refused(tmp_path):
    assert re.match(
        r"--working-dir .*/gone is no folder; give the one", get_refusal(tmp_path / "gone", tmp_path / "a.zip")
    )
    (tmp_path / "file").touch()
    assert "/file is a file, and no folder; give" in get_refusal(tmp_path / "file", tmp_path / "a.zip")


@pytest.mark.parametrize("root", ["/", "//", "/tmp/.."])
def test_the_whole_file_system_is_refused_unread(root, tmp_path):
    assert "is the whole file system; give the command's own folder" in get_refusal(Path(root), tmp_path / "a.zip")


def test_gigabytes_and_endless_folders_are_refused_before_they_are_packed(tmp_path, monkeypatch):
    write(tmp_path / "work", {"code": b"1", "data/x": b""})
    os.truncate(tmp_path / "work" / "data" / "x", 3 * 2**30)  # no bytes on the disk; zipping them takes half a minute
    message = get_refusal(tmp_path / "work", tmp_path / "a.zip")
    assert "more than 2,000 MiB are not even zipped" in message
    assert "the first 2 of its files have 3,221 MB already; the largest are data/ 3,221 MB, code 0 MB" in message
    assert not (tmp_path / "a.zip").exists()
    monkeypatch.setattr(packaging, "MAX_FILES", 3)
    write(tmp_path / "many", dict.fromkeys("abcdef", b"1"))
    message = get_refusal(tmp_path / "many", tmp_path / "a.zip")
    assert "job: at most 3 files are sent, and the first 4 of its files have 0 MB already" in message
    assert "the largest are a 1 files, b 1 files" in message


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            PermissionError(13, "Permission denied"),
            r"cannot be read \(Permission denied\); make it readable, name it in",
        ),
        (
            FileNotFoundError(2, "No such file or directory"),
            "was removed while it was packed; submit again when nobody writes",
        ),
    ],
)
def test_what_cannot_be_read_is_named_with_remedies(error, words, tmp_path, monkeypatch):
    write(tmp_path / "code", {"code": b"1", "secret": b"2"})
    opened = Path.open

    def refused(path, *arguments, **options):
        if path.name == "secret":
            error.filename = str(path)
            raise error
        return opened(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", refused)
    assert re.match(
        rf"{tmp_path}/code/secret {words}.*{tmp_path}/code/\.rayignore",
        get_refusal(tmp_path / "code", tmp_path / "a.zip"),
    )
