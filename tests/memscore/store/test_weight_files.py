"""Stored weights: the same bits back, or an error."""

import pytest
import torch

from memscore.store.parquet import CorruptFile
from tests.fixtures.banks import bank, flip, path_of


@pytest.fixture
def store(tmp_path):
    return bank(tmp_path / "bank")


def test_weights_come_back_bit_for_bit_and_every_flipped_byte_matters(store):
    tensors = {
        "w": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)),
        "half": torch.arange(5).bfloat16(),
        "count": torch.tensor(7),
    }
    assert store.write_weights("k", tensors)
    assert not store.write_weights("k", tensors)
    assert store.has_weights("k")
    back = store.read_weights("k")
    assert all(torch.equal(back[name], t) and back[name].dtype == t.dtype for name, t in tensors.items())
    assert set(back) == set(tensors)
    path = path_of(store, "weights/k.safetensors")
    whole = path.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    for at in [0, 20, *range(start, len(whole))]:
        flip(path, at)
        with pytest.raises(CorruptFile, match=r"k\.safetensors is damaged"):
            store.read_weights("k")
        path.write_bytes(whole)
