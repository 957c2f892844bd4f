"""Files that claim, or unpack to, more than a limit are refused by name before they take memory."""

import gzip
import io
import json
import os
import re
import resource
import struct
import tracemalloc
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from memscore import reading_limit
from memscore.analysis.import_bank import read_array
from memscore.data.array_files import read_archive, read_gzipped_idx
from memscore.data.datasets import load_dataset, read_published
from memscore.data.id_lists import read_id_list
from memscore.models.checkpoint_files import read_checkpoint
from memscore.reading_limit import (
    get_max_bytes,
    measure_memory,
    parse_size,
    read_whole_file,
    require_memory,
    set_max_bytes,
)
from tests.fixtures.bombs import make_png, write_claiming_npz, write_repeating_parquet

LIMIT = "5MB"
SIZE_MESSAGE = r"would take \S+ \S?B of memory, and --max-bytes allows 5 MB; .*give more with --max-bytes"


@pytest.fixture
def limit(monkeypatch):
    monkeypatch.setenv(reading_limit.VARIABLE, LIMIT)


def require_refusal(read, path, message=SIZE_MESSAGE):
    """Check that a file is refused by its name, and that less than twice the limit was taken on the way."""
    tracemalloc.start()
    try:
        with pytest.raises((ValueError, OSError), match=f"{re.escape(str(path))}.*{message}"):
            read(str(path))
        assert tracemalloc.get_traced_memory()[1] < 2 * parse_size(LIMIT)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("text", ["", "0", "-1", "many", "5 PB", "1e9", "4I", "9" * 30])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match=f"--max-bytes is a number of bytes, got {text!r}; write 64GB"):
        parse_size(text)


def test_the_limit_is_the_option_s_else_the_variable_s_else_three_quarters_of_memory(monkeypatch):
    monkeypatch.delenv(reading_limit.VARIABLE, raising=False)
    assert get_max_bytes() == int(0.75 * measure_memory())
    with set_max_bytes("2kB"):
        assert get_max_bytes() == 2000
        with pytest.raises(
            ValueError, match=r"it would take 3 kB of memory, and --max-bytes allows 2 kB; split it, or"
        ):
            require_memory(3000, "it", "split it")
        require_memory(2000, "it")
    assert reading_limit.VARIABLE not in os.environ
    monkeypatch.setenv(reading_limit.VARIABLE, "3kB")
    with set_max_bytes("1kB"):
        assert get_max_bytes() == 1000
    with set_max_bytes(None):
        assert get_max_bytes() == 3000


def test_a_container_and_ulimit_take_from_the_machine_s_memory(tmp_path, monkeypatch):
    (tmp_path / "v2").write_text("max\n")
    (tmp_path / "v1").write_text("123456789\n")
    monkeypatch.setattr(reading_limit, "CGROUP_FILES", (str(tmp_path / "none"), str(tmp_path / "v2")))
    whole = measure_memory()
    monkeypatch.setattr(reading_limit, "CGROUP_FILES", (str(tmp_path / "v1"),))
    assert measure_memory() == 123456789 < whole
    monkeypatch.setattr(resource, "getrlimit", lambda which: (10**6, 10**7))
    assert measure_memory() == 10**6


def test_what_is_no_regular_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    for path in (tmp_path / "pipe.csv", tmp_path):
        with pytest.raises(ValueError, match="is no regular file"):
            read_whole_file(path)


def test_arrays_that_claim_or_unpack_to_more_are_refused(limit, tmp_path):
    write_claiming_npz(tmp_path / "claims.npz")
    write_claiming_npz(tmp_path / "ids.npz", name="ids", shape=(10**7,))
    write_claiming_npz(tmp_path / "unpacks.npz", shape=(6 * 10**6,), padding=6 * 10**6)
    assert (tmp_path / "unpacks.npz").stat().st_size < 10_000
    message = r"claims 40,960,000,000 bytes and holds 0\)"
    require_refusal(load_dataset, tmp_path / "claims.npz", message)
    require_refusal(read_array, tmp_path / "claims.npz", message)
    require_refusal(read_id_list, tmp_path / "ids.npz", r"claims 10,000,000 bytes and holds 0\)")
    for read in (load_dataset, read_array):
        require_refusal(read, tmp_path / "unpacks.npz")


def test_arrays_are_refused_by_their_sum_and_read_up_to_the_limit(limit, tmp_path):
    half = np.arange(3 * 10**6, dtype=np.uint8)
    np.savez_compressed(tmp_path / "halves.npz", a=half, b=half)
    with pytest.raises(ValueError, match="would take 6 MB of memory"):
        read_archive(tmp_path / "halves.npz")
    np.testing.assert_array_equal(read_archive(tmp_path / "halves.npz", lambda names: names[:1])["a"], half)


def test_an_archive_packed_by_another_method_is_refused(tmp_path):
    # Python unpacks bzip2 without a bound
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("ids.npy", bytes(100))
    require_refusal(read_id_list, tmp_path / "a.npz", "compressed by another method than NumPy's")


def test_a_gzipped_idx_file_is_as_long_as_it_claims_and_no_longer_than_the_limit(limit, tmp_path):
    path = tmp_path / "images.gz"

    def write(shape, content):
        path.write_bytes(gzip.compress(bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + content))

    write((2, 3), bytes(range(6)))
    np.testing.assert_array_equal(read_gzipped_idx(path), np.arange(6).reshape(2, 3))
    for shape, content, message in (
        ((2**31, 28, 28), b"", SIZE_MESSAGE),
        ((2, 3), bytes(5), "claims 6 bytes and holds 5"),
        ((2, 3), bytes(10**7), "holds more than the 6 bytes that it claims"),
    ):
        write(shape, content)
        require_refusal(lambda _: read_gzipped_idx(path), path, message)


def test_a_text_file_is_refused_by_the_cells_that_it_would_have(limit, tmp_path):
    (tmp_path / "lines.txt").write_text("a\n" * 10**4)
    (tmp_path / "cells.csv").write_text("," * 10**5)
    (tmp_path / "list.json").write_text("[" + "1," * 10**5 + "1]")
    for name in ("lines.txt", "cells.csv", "list.json"):
        require_refusal(read_id_list, tmp_path / name)
    require_refusal(load_dataset, tmp_path / "cells.csv")


def test_one_long_id_does_not_make_all_of_them_long(limit, tmp_path):
    (tmp_path / "ids.txt").write_text("a\n" * 1000 + "b" * 10_000)
    require_refusal(read_id_list, tmp_path / "ids.txt", f"1,001 of up to 10,000 characters, {SIZE_MESSAGE}")
    picture = io.BytesIO()
    Image.new("L", (1, 1)).save(picture, "png")
    columns = {"image": [picture.getvalue()] * 20, "label": [0, 1] * 10, "id": [*map(str, range(19)), "b" * 10**5]}
    pq.write_table(pa.table(columns), tmp_path / "images.parquet")
    with pytest.raises(ValueError, match=f"ids, 20 of up to 100,000 characters, {SIZE_MESSAGE}"):
        load_dataset(str(tmp_path / "images.parquet"))


def test_a_parquet_value_that_is_stored_once_for_many_rows_is_refused(limit, tmp_path):
    write_repeating_parquet(tmp_path / "ids.parquet", "y" * 1000, 10**4)
    assert (tmp_path / "ids.parquet").stat().st_size < 10_000
    require_refusal(read_id_list, tmp_path / "ids.parquet")


def test_parquet_images_are_in_memory_a_few_at_a_time(tmp_path, monkeypatch):
    from memscore.data import image_files, parquet_files

    monkeypatch.setattr(parquet_files, "BATCH_BYTES", 2**20)
    monkeypatch.setattr(image_files, "CHUNK_BYTES", 2**20)
    content = make_png(1, 1) + bytes(2**20)
    write_repeating_parquet(tmp_path / "a.parquet", content, 64, "image", label=[0, 1] * 32)
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"64 of 64 images in .*a.parquet cannot be read"):
        load_dataset(str(tmp_path / "a.parquet"))
    assert tracemalloc.get_traced_memory()[1] < 20 * 2**20  # 64 MB at once
    tracemalloc.stop()


def test_an_image_of_too_many_pixels_is_one_fault_of_a_folder_without_a_warning(tmp_path, recwarn):
    for name in "ab":
        (tmp_path / name).mkdir()
        for k in range(6):
            Image.new("L", (4, 4), k).save(tmp_path / name / f"{k}.png")
    (tmp_path / "a" / "bomb.png").write_bytes(make_png(30_000, 30_000))
    (tmp_path / "a" / "large.png").write_bytes(make_png(12_000, 12_000))
    with pytest.raises(ValueError, match=r"a/bomb.png \(more than 178,956,970 pixels.* scale it down\).* --skip-bad"):
        read_published(str(tmp_path))
    source = read_published(str(tmp_path), skip_bad=True, resize="4")
    assert len(source.train) + len(source.test) == 12
    assert not [str(warning.message) for warning in recwarn if "bomb" in str(warning.message).lower()]


def test_an_image_in_another_format_than_its_name_s_is_not_given_to_ghostscript(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        Image.new("L", (4, 4)).save(tmp_path / name / "0.png")
    Image.new("L", (4, 4)).save(tmp_path / "a" / "1.png", format="EPS")
    with pytest.raises(ValueError, match=r"a/1.png \(no image\)"):
        load_dataset(str(tmp_path))


def test_images_that_would_be_larger_than_the_limit_are_refused(limit, tmp_path):
    np.savez(tmp_path / "a.npz", images=np.zeros((20, 4, 4), np.uint8), labels=np.arange(20) % 2)
    with pytest.raises(ValueError, match=r"20 images of 600x600 would take 7.2 MB .* give a smaller --image-size, or"):
        load_dataset(str(tmp_path / "a.npz"), resize="600")
    for name in "ab":
        (tmp_path / name).mkdir()
        for k in range(10):
            Image.new("L", (4, 4)).save(tmp_path / name / f"{k}.png")
    with pytest.raises(ValueError, match=r"20 images of 600x600 in .* would take 7.2 MB .* with --image-size, or"):
        load_dataset(str(tmp_path), resize="600")


def test_weights_that_are_or_claim_more_are_refused(limit, tmp_path):
    torch.save({"w": torch.zeros(2 * 10**6)}, tmp_path / "large.pt")
    torch.save({"w": torch.zeros(1).expand(10**6, 10**6)}, tmp_path / "stride.ckpt")
    torch.save({"w": torch.zeros(1, device="meta")}, tmp_path / "meta.pt")
    header = json.dumps({"w": {"dtype": "F32", "shape": [10**9, 10**9], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "shape.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    (tmp_path / "header.safetensors").write_bytes(struct.pack("<Q", 2**40) + header + bytes(4))
    for name, message in (
        ("large.pt", SIZE_MESSAGE),
        ("stride.ckpt", SIZE_MESSAGE),
        ("meta.pt", r"holds quantized, sparse or no numbers \(w\)"),
        ("shape.safetensors", "is no safetensors file .*overflow"),
        ("header.safetensors", "is no safetensors file .*header too large"),
    ):
        require_refusal(lambda path: read_checkpoint(path, "--model"), tmp_path / name, message)
