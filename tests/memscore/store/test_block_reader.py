"""Blocks of models x examples: the same numbers as the shards, in bounded memory, or an error that names the file."""

import subprocess
import sys
import textwrap

import numpy as np
import pyarrow.parquet as pq
import pytest

from memscore.store import block_reader
from memscore.store.parquet import ROW_GROUP_SIZE, CorruptFile
from memscore.store.shards import format_model_name
from memscore.store.store import Store
from tests.fixtures.banks import ARM, bank, examples, flip, manifest, path_of, shard


@pytest.fixture
def store(tmp_path):
    return bank(tmp_path / "bank")


@pytest.fixture
def tall(tmp_path):
    """A store with shards of three row groups."""
    n = 2 * block_reader.ROW_GROUP_SIZE + 1000
    store = Store.create(tmp_path / "tall", manifest(split_sizes=(n - 300, 100, 200)), examples(n))
    store.add_arm(ARM)
    for index in (0, 2, 5):
        store.write_shard(format_model_name(ARM["name"], index), ARM["name"], shard(index, n))
    return store, n


@pytest.mark.parametrize("max_bytes", [1, 50_000, 2 * 3 * 5 * ROW_GROUP_SIZE, 2 * 3 * 5 * 20000, 256 * 2**20])
def test_blocks_put_together_are_the_shards(tall, max_bytes):
    store, n = tall
    rows = (
        slice(10, n - 10) if max_bytes > 1 else slice(ROW_GROUP_SIZE - 5, ROW_GROUP_SIZE + 5)
    )  # one row at a time is slow
    blocks = list(store.read_blocks(ARM["name"], [0, 2, 5], ["gap", "member"], rows, max_bytes))
    assert [b.rows.start for b in blocks] == [rows.start, *(b.rows.stop for b in blocks[:-1])]
    assert blocks[-1].rows.stop == rows.stop
    assert all(sum(c.nbytes for c in b.columns.values()) <= max(max_bytes // 2, 15) for b in blocks)
    for name, kind in (("gap", np.float32), ("member", np.bool_)):
        whole = np.concatenate([b.columns[name] for b in blocks], axis=1)
        assert whole.dtype == kind
        np.testing.assert_array_equal(whole, [shard(i, n)[name][rows] for i in (0, 2, 5)])


def test_blocks_cover_train_by_default(store):
    (block,) = store.read_blocks(ARM["name"], [0, 1], ["correct"])
    assert (block.rows, block.columns["correct"].shape) == (slice(0, 40), (2, 40))


def test_a_corrupt_page_ends_blocks_and_names_the_file(tall):
    store, n = tall
    path = path_of(store, f"shards/{format_model_name(ARM['name'], 2)}.parquet")
    file = pq.ParquetFile(path).metadata.row_group(1).column(4)
    flip(path, file.data_page_offset + file.total_compressed_size // 2)
    blocks = store.read_blocks(ARM["name"], [0, 2, 5], ["gap"], slice(0, n), 2 * 3 * 4 * ROW_GROUP_SIZE)
    assert next(blocks).rows == slice(0, ROW_GROUP_SIZE)
    with pytest.raises(CorruptFile, match=r"iid-k0\.700-00002\.parquet is damaged: .*CRC.*--set-aside"):
        next(blocks)


def test_blocks_refuse_what_they_cannot_read(store):
    name = ARM["name"]
    with pytest.raises(ValueError, match=r"rising order and at least one, got \[2, 1\]"):
        store.read_blocks(name, [2, 1], ["gap"])
    with pytest.raises(ValueError, match="at least one, got"):
        store.read_blocks(name, [], ["gap"])
    with pytest.raises(ValueError, match="slice within 0 to 52"):
        store.read_blocks(name, [0], ["gap"], slice(0, 53))
    with pytest.raises(ValueError, match=r"has no column 'gapp'; it has row, member"):
        next(store.read_blocks(name, [0], ["gapp"]))
    with pytest.raises(FileNotFoundError, match="00007"):
        next(store.read_blocks(name, [0, 7], ["gap"]))


def test_a_reduction_of_2000_models_and_50000_examples_stays_under_500_mb(tmp_path):
    """In a process of its own, which prints its peak (ru_maxrss would begin at that of pytest).

    The 2,000 shards are names of one file, each read anew.
    """
    code = textwrap.dedent(
        r"""
        import os, re, sys
        import numpy as np
        from memscore.store.store import Store
        from tests.fixtures.banks import ARM, examples, manifest, shard
        n, models = 50_000, 2000
        store = Store.create(sys.argv[1], manifest(split_sizes=(n, 0, 0)), examples(n))
        store.add_arm(ARM)
        store.write_shard(f"{ARM['name']}-00000", ARM["name"], shard(0, n))
        paths = [store.folder.path(f"shards/{ARM['name']}-{model:05d}.parquet") for model in range(models)]
        for path in paths[1:]:
            os.link(paths[0], path)
        inside, total = [], []
        for block in store.read_blocks(ARM["name"], range(models), ["member", "correct", "logit_confidence"]):
            member, confidence = block.columns["member"], block.columns["logit_confidence"]
            inside.append(member.sum(0))
            total.append(np.where(member, confidence, 0).sum(0, dtype=np.float64))
        one = shard(0, n)
        assert (np.concatenate(inside) == models * one["member"]).all()
        expected = models * np.where(one["member"], one["logit_confidence"].astype(float), 0)
        np.testing.assert_allclose(np.concatenate(total), expected, rtol=1e-10)
        print(re.search(r"VmHWM:\s+(\d+) kB", open("/proc/self/status").read())[1])
        """
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "bank"], check=True, capture_output=True, text=True)
    assert int(done.stdout) / 1024 < 500
