"""Logits are read without the embeddings beside them, and as verified."""

import ast
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from memscore.store.parquet import CorruptFile
from tests.fixtures.proxied import open_small_bank

ROOT = Path(__file__).parents[3]


@pytest.fixture
def stored(tmp_path):
    """A store with outputs of its images: 10 logits and 300 embeddings each."""
    bank, _ = open_small_bank(tmp_path)
    rng = np.random.default_rng(0)
    logits, embeddings = (rng.normal(size=(bank.store.manifest.n_rows, n)).astype(np.float32) for n in (10, 300))
    bank.store.write_outputs("k", logits, embeddings)
    return bank.store, logits


def damage(store, column):
    """Change one byte in the middle of a column."""
    path = Path(store.folder.path("outputs/k.parquet"))
    content = bytearray(path.read_bytes())
    chunk = (
        pq
        .ParquetFile(pa.BufferReader(bytes(content)))
        .metadata.row_group(0)
        .column(("logits", "embeddings").index(column))
    )
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    content[start + chunk.total_compressed_size // 2] ^= 1
    path.write_bytes(content)


def test_logits_are_those_of_the_outputs(stored):
    store, logits = stored
    assert np.array_equal(store.read_logits("k"), logits)
    assert np.array_equal(store.read_outputs("k")[0], logits)
    with pytest.raises(FileNotFoundError):
        store.read_logits("other")


def test_reading_logits_reads_no_embedding(stored):
    store, logits = stored
    damage(store, "embeddings")
    assert np.array_equal(store.read_logits("k"), logits)
    with pytest.raises(CorruptFile, match="in column embeddings"):
        store.read_outputs("k")


def test_damaged_logits_are_named_with_what_makes_them_again(stored):
    store, _ = stored
    damage(store, "logits")
    with pytest.raises(CorruptFile, match=r"outputs/k.parquet is damaged: unreadable column logits: .* makes it again"):
        store.read_logits("k")


def test_nobody_reads_embeddings_and_drops_them():
    for path in [*(ROOT / "memscore").rglob("*.py"), *(ROOT / "unlearn").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            value = node.value if isinstance(node, (ast.Subscript, ast.Assign)) else None
            if not (isinstance(value, ast.Call) and ast.unparse(value.func).endswith("read_outputs")):
                continue
            dropped = ast.unparse(node.slice) == "0" if isinstance(node, ast.Subscript) else False
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple):
                dropped = ast.unparse(node.targets[0].elts[1]) == "_"
            assert not dropped, f"{path}:{node.lineno} reads embeddings and drops them; use read_logits"
