"""Whatever stands in a user's file, it is read or refused by its name, in time, and nothing outside is read or written.

Valid files are changed at random: bytes, and pieces of text that mean something to a reader. Archives are changed both
as they are and in the content of a member, with a checksum that is right again.
"""

import gzip
import io
import json
import os
import struct
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from memscore import reading_limit
from memscore.analysis.external_arrays import ExternalArrays
from memscore.analysis.import_bank import build_shard, read_arrays
from memscore.data.datasets import read_published
from memscore.data.id_lists import read_matching_ids
from memscore.models.checkpoint_files import read_checkpoint

PIECES = (
    *(b"../", b"/", b"\\", b"..", b"C:", b"./", b"//", b"secret.png", b"\0", b" ", b"\n", b"\r", b"\t"),
    *(b",", b";", b"|", b'"', b"'", b"[", b"]", b"{", b"}", b":", b"-1", b"1e9", b"99999999999999", b"null", b"true"),
    *(b"\xff\xff\xff\xff", b"\xff\xfe", b"\x80", b"\xc3\xa9", b"[" * 2000, b"x" * 5000, b",a" * 500, b"\n" * 500),
)
IDS = [f"all/{k:05d}" for k in range(12)]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of file: what is changed, how a file is built from that, where it lies and how it is read."""

    content: bytes
    path: str
    read: Callable[[Path], Any]
    build: Callable[[bytes], bytes] = bytes
    names: str = ""

    @property
    def named_in_messages(self) -> str:
        return self.names or self.path.rpartition("/")[2]


def write_image(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((3, 3), value, np.uint8)).save(path)


def dump(save, *arguments, **options):
    buffer = io.BytesIO()
    save(buffer, *arguments, **options)
    return buffer.getvalue()


def replace_member(archive, name):
    """Return a function that builds the archive again with another content of a member."""

    def build(content):
        buffer = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(buffer, "w") as new:
            for member in old.infolist():
                new.writestr(member, content if member.filename.endswith(name) else old.read(member))
        return buffer.getvalue()

    return build


def read_member(archive, name):
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return next(opened.read(member) for member in opened.namelist() if member.endswith(name))


def read_images(path):
    """Read a data set of image files, and check that each of them lies in its folder."""
    source = read_published(str(path))
    root = os.path.realpath(path if path.is_dir() else path.parent)
    for part in filter(None, (source.train, source.validation, source.test)):
        assert not (part.images == 99).any(), "the image outside was read"
        for name in part.ids:
            assert os.path.realpath(os.path.join(root, name.replace("\\", "/"))).startswith(root + os.sep)


def read_weights(path):
    tensors = read_checkpoint(str(path), "--model").tensors
    assert all(isinstance(tensor, torch.Tensor) for tensor in tensors.values())


def read_bank(path):
    arrays = read_arrays(source := ExternalArrays(store="unused", member=str(path), correct=(str(path),)))
    for model in range(len(arrays.member)):
        build_shard(source, arrays, model)


def make_kinds():
    weights = {"layer.weight": torch.arange(6.0).reshape(2, 3), "layer.bias": torch.zeros(2)}
    tensors = safetensors.torch.save(weights)
    length = 8 + int.from_bytes(tensors[:8], "little")
    checkpoint = dump(lambda file, content: torch.save(content, file), {"state_dict": weights, "epoch": 3})
    images, labels = np.arange(12 * 9, dtype=np.uint8).reshape(12, 3, 3), np.arange(12) % 2
    arrays = dump(np.savez_compressed, images=images, labels=labels)
    member = np.arange(12, dtype=np.uint8).reshape(3, 4) % 2
    ids = dump(np.savez, ids=np.array(IDS))
    idx = bytes([0, 0, 8, 3]) + struct.pack(">III", 12, 3, 3) + images.tobytes()
    pictures = [dump(Image.fromarray(image).save, "png") for image in images]
    parquet = dump(lambda file, table: pq.write_table(table, file), pa.table({"image": pictures, "label": labels}))
    id_table = dump(lambda file, table: pq.write_table(table, file), pa.table({"id": IDS, "member": [True] * 12}))
    table = "".join(f"pets/{k}.png,{'ab'[k % 2]}\n" for k in range(12))
    rows = "".join(json.dumps({"file_name": f"pets/{k}.png", "label": k % 2}) + "\n" for k in range(12))
    annotations = "".join(f"{k}.png\t{'ab'[k % 2]}\t0\t0\n" for k in range(12))

    def match(path):
        read_matching_ids(str(path), IDS)

    def read_idx(path):
        read_published("fashion-mnist", str(path.parent))

    def pack_header(content):
        return struct.pack("<Q", len(content)) + content + tensors[length:]

    return {
        "safetensors": Kind(content=tensors, path="w.safetensors", read=read_weights),
        "safetensors header": Kind(
            content=tensors[8:length], path="w.safetensors", read=read_weights, build=pack_header
        ),
        "checkpoint": Kind(content=checkpoint, path="w.pt", read=read_weights),
        "checkpoint pickle": Kind(
            content=read_member(checkpoint, "data.pkl"),
            path="w.ckpt",
            read=read_weights,
            build=replace_member(checkpoint, "data.pkl"),
        ),
        "old checkpoint": Kind(
            content=dump(
                lambda file, content: torch.save(content, file, _use_new_zipfile_serialization=False), weights
            ),
            path="w.pth",
            read=read_weights,
        ),
        "npz": Kind(content=arrays, path="a.npz", read=lambda path: read_published(str(path))),
        "npz member": Kind(
            content=read_member(arrays, "images.npy"),
            path="a.npz",
            read=lambda path: read_published(str(path)),
            build=replace_member(arrays, "images.npy"),
        ),
        "npy": Kind(content=dump(np.save, member), path="m.npy", read=read_bank),
        "idx": Kind(content=idx, path="train-images-idx3-ubyte.gz", read=read_idx, build=gzip.compress),
        "idx.gz": Kind(content=gzip.compress(idx), path="train-images-idx3-ubyte.gz", read=read_idx),
        "parquet": Kind(content=parquet, path="a.parquet", read=lambda path: read_published(str(path))),
        "csv": Kind(content=b"file,label\n" + table.encode(), path="data/a.csv", read=read_images),
        "jsonl": Kind(content=rows.encode(), path="data/a.jsonl", read=read_images),
        "annotations": Kind(
            content=annotations.encode(),
            path="tiny/val/val_annotations.txt",
            names="root/tiny",
            read=lambda path: read_images(path.parents[1]),
        ),
        "ids.txt": Kind(content="\n".join(IDS).encode(), path="ids.txt", read=match),
        "ids.csv": Kind(content=("id,x\n" + ",1\n".join(IDS)).encode(), path="ids.csv", read=match),
        "ids.json": Kind(content=json.dumps(IDS).encode(), path="ids.json", read=match),
        "ids.npz": Kind(content=ids, path="ids.npz", read=match),
        "ids.npz member": Kind(
            content=read_member(ids, "ids.npy"), path="ids.npz", read=match, build=replace_member(ids, "ids.npy")
        ),
        "ids.parquet": Kind(content=id_table, path="ids.parquet", read=match),
    }


KINDS = make_kinds()
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["replace", "insert", "delete", "repeat", "cut"]),
        st.floats(0, 1),
        st.integers(1, 12),
        st.sampled_from(PIECES) | st.binary(min_size=1, max_size=8),
    ),
    min_size=1,
    max_size=4,
)


def change(content, changes):
    for kind, place, length, piece in changes:
        start = int(place * len(content))
        before, after = content[:start], content[start:]
        content = {
            "replace": before + piece + after[len(piece) :],
            "insert": before + piece + after,
            "delete": before + after[length:],
            "repeat": before + after[:length] * 3 + after[length:],
            "cut": before,
        }[kind]
    return content


def list_tree(folder):
    return {path: path.lstat().st_mtime_ns for path in folder.rglob("*") if not path.is_dir()}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder beside an image that no data set has, with what the files name."""
    write_image(tmp_path / "secret.png", 99)
    root = tmp_path / "root"
    write_image(root / "secret.png", 99)
    for k in range(12):
        write_image(root / "data" / "pets" / f"{k}.png", k)
        write_image(root / "tiny" / "train" / "ab"[k % 2] / f"{k}.png", k)
        write_image(root / "tiny" / "val" / "images" / f"{k}.png", k)
    labels = gzip.compress(bytes([0, 0, 8, 1]) + struct.pack(">I", 12) + bytes(k % 2 for k in range(12)))
    images = gzip.compress(bytes([0, 0, 8, 3]) + struct.pack(">III", 12, 3, 3) + bytes(12 * 9))
    for split in ("train", "t10k"):
        (root / f"{split}-labels-idx1-ubyte.gz").write_bytes(labels)
        (root / f"{split}-images-idx3-ubyte.gz").write_bytes(images)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))  # where a long list of faults goes
    monkeypatch.setenv(reading_limit.VARIABLE, "20MB")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def find_refusal(kind, file):
    """Return the message with which a file is refused, None where it is read; any other error is a bug."""
    try:
        kind.read(file)
    except (ValueError, OSError) as error:
        return str(error)
    return None


def require_readable_or_refused(kind, place, n_examples):
    file = place / "root" / kind.path
    file.write_bytes(kind.build(kind.content))
    kind.read(file)  # the unchanged file is valid
    before = list_tree(place) | {file: 0}
    outcomes = {"read": 0, "refused": 0}

    @settings(
        max_examples=n_examples, derandomize=True, deadline=None, database=None, suppress_health_check=[*HealthCheck]
    )
    @given(CHANGES)
    def check(changes):
        file.write_bytes(kind.build(change(kind.content, changes)))
        refusal = find_refusal(kind, file)
        assert refusal is None or kind.named_in_messages in refusal
        outcomes["read" if refusal is None else "refused"] += 1
        after = {path: time for path, time in list_tree(place).items() if path.parent.name != "temporary"}
        assert after | {file: 0} == before

    check()
    assert outcomes["refused"] > 0, outcomes


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_file_is_read_or_refused_by_its_name(kind, place):
    require_readable_or_refused(KINDS[kind], place, 25)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_file_is_read_or_refused_by_its_name_in_thousands_of_cases(kind, place):
    require_readable_or_refused(KINDS[kind], place, 1000)
