"""Weights in files of torch.save and Lightning, read without running code of them."""

import argparse
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from memscore.models.checkpoint_files import read_checkpoint

STATE = {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}


class Network(nn.Linear):
    """A class that only a pickle of the whole module names."""


def read(path):
    return read_checkpoint(str(path), "--model")


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (STATE, "a.ckpt is a PyTorch state dict"),
        (nn.Linear(3, 2).state_dict(), "a.ckpt is a PyTorch state dict"),  # an OrderedDict
        ({"epoch": 3, "state_dict": STATE, "optimizer_states": [{"state": {}}]}, "its 'state_dict' was taken"),
        ({"model_state_dict": STATE, "best": np.float64(0.5)}, "its 'model_state_dict' was taken"),
        ({"ema": {"weight": STATE["weight"]}, "model": STATE}, "its 'model' was taken; the file has 'ema' too"),
        ({"net": STATE, "args": argparse.Namespace(lr=0.1), "acc": torch.tensor(1.0)}, "its 'net' was taken"),
        ({"model": {"state_dict": STATE}}, "its 'model/state_dict' was taken"),
        ({"my_network": STATE, "epoch": 3}, "its 'my_network' was taken"),
        ({**STATE, "_extra_state": 3}, "1 entries that are no tensors were left out"),
    ],
)
@pytest.mark.parametrize("as_zip", [True, False])
def test_the_weights_in_a_checkpoint_are_found(tmp_path, content, note, as_zip):
    torch.save(content, tmp_path / "a.ckpt", _use_new_zipfile_serialization=as_zip)
    checkpoint = read(tmp_path / "a.ckpt")
    assert note in checkpoint.note
    assert checkpoint.tensors.keys() == STATE.keys()
    assert checkpoint.tensors["weight"].shape == (2, 3)


def test_a_file_is_known_by_its_content_not_by_its_name(tmp_path):
    save_file(STATE, tmp_path / "a.pt")
    assert read(tmp_path / "a.pt").tensors.keys() == STATE.keys()
    torch.save(STATE, tmp_path / "a.safetensors")
    assert "PyTorch" in read(tmp_path / "a.safetensors").note


@pytest.mark.parametrize("key", ["", "model"])
def test_a_pickled_network_is_refused_with_a_command_that_works(tmp_path, monkeypatch, key):
    whole = Network(3, 2)
    torch.save({key: whole, "epoch": 1} if key else whole, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"would run code of the file; .* python -c \"import torch;") as caught:
        read(tmp_path / "a.pt")
    script = str(caught.value).split('python -c "')[1].removesuffix('"')
    monkeypatch.chdir(tmp_path)
    exec(script, {})
    assert torch.equal(read(tmp_path / "a-weights.pt").tensors["weight"], whole.weight)


class RunsCode:
    def __reduce__(self):
        return print, ("this ran",)


def test_no_code_of_a_file_is_run(tmp_path, capsys):
    torch.save({"state_dict": STATE, "extra": RunsCode()}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="holds more than weights"):
        read(tmp_path / "a.pt")
    assert "this ran" not in capsys.readouterr().out


def test_files_without_weights_are_refused_in_one_line(tmp_path):
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"a": STATE, "b": STATE}, tmp_path / "two.pt")
    torch.save(STATE, tmp_path / "whole.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:-50])
    with zipfile.ZipFile(tmp_path / "zip.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(1_000_000))
    with (tmp_path / "array.pt").open("wb") as opened:
        np.savez(opened, images=np.zeros(3))
    (tmp_path / "keras.pt").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(20))
    (tmp_path / "text.pt").write_text("hello")
    (tmp_path / "empty.pt").write_bytes(b"")
    for name, message in {
        "list.pt": "holds no state dict of one network, but list",
        "two.pt": "holds no state dict of one network, but 'a', 'b'",
        "cut.pt": "is damaged or no file of torch.save",
        "zip.pt": "is compressed, to 1,000,000 bytes, as no file of torch.save is",
        "array.pt": "is a NumPy archive",
        "keras.pt": "is an HDF5 file, as Keras writes",
        "text.pt": "is no file of weights; give --model a .safetensors file, or a .pt",
        "empty.pt": "is no file of weights",
    }.items():
        with pytest.raises(ValueError, match=message) as caught:
            read(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match="there are no weights at"):
        read(tmp_path / "gone.pt")
    with pytest.raises(ValueError, match="is a folder; give --model the file of weights in it"):
        read(tmp_path)
