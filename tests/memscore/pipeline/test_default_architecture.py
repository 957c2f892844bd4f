"""A first bank of own images on CPUs is told what its default network costs."""

import re

import numpy as np
import pytest

from memscore.pipeline.config import BankConfig
from memscore.pipeline.runner import prepare_bank

NOTE = "resnet18, the default for images, is meant for GPUs; --arch cnn takes"


@pytest.fixture
def images(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "own.npz"
    np.savez(path, images=rng.integers(0, 256, (200, 16, 16, 3), np.uint8), labels=np.arange(200) % 4)
    return str(path)


@pytest.mark.parametrize(
    ("options", "device", "noted"),
    [({}, "cpu", True), ({}, "cuda", False), ({"arch": "resnet18"}, "cpu", False), ({"arch": "cnn"}, "cpu", False)],
)
def test_only_who_chose_nothing_on_cpus_is_told(images, tmp_path, options, device, noted):
    config = BankConfig(data=images, store=str(tmp_path / "bank"), models=2, design="iid", **options)
    notes = [note for note in prepare_bank(config, device=device).notes if NOTE in note]
    assert len(notes) == noted
    for note in notes:
        assert int(re.search(r"takes (\d+) times", note)[1]) > 50


def test_digits_have_a_network_for_cpus(tmp_path):
    bank = prepare_bank(BankConfig(store=str(tmp_path / "bank"), models=2, design="iid"))
    assert not any("meant for GPUs" in note for note in bank.notes)
