"""Banks whose models start from the weights in a file, and networks that are others than when a bank was made."""

import pytest
import torch
from safetensors.torch import save_file

from memscore.bank import main as verify
from memscore.estimate import main as estimate
from memscore.models.architectures import build_network
from memscore.pipeline import start_weights
from memscore.pipeline.jobs import build_model
from memscore.pipeline.start_weights import (
    build_started_network,
    match_start_weights,
    read_start_weights,
    require_same_network,
)
from memscore.store.manifest import Manifest, compute_start_key
from memscore.store.store import Store
from tests.fixtures.banks import bank as make_store
from tests.fixtures.command import SERIAL, SMALL
from unlearn.trial import main as trial

SHAPE = (1, 8, 8)
CPU = torch.device("cpu")
MODULE = """
from torch import nn

def net(width):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))

def network(shape, n_classes):
    return net(WIDTH)
"""


@pytest.fixture
def file(tmp_path):
    """Weights of an MLP of three classes, as torch.save writes them."""
    weights = {name: tensor + 0.5 for name, tensor in build_network("mlp-8", SHAPE, 3, seed=9).state_dict().items()}
    torch.save({"state_dict": weights}, tmp_path / "start.ckpt")
    return tmp_path / "start.ckpt"


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    """Start weights that another process has read are not known here."""
    monkeypatch.setattr(start_weights, "_start_weights", {})


def test_all_layers_but_a_last_one_of_other_classes_come_from_the_file(file):
    name = read_start_weights(str(file), "mlp-8", SHAPE, 10)
    start = torch.load(file, weights_only=True)["state_dict"]
    networks = [build_started_network(name, SHAPE, 10, seed) for seed in (0, 1)]
    for network, seed in zip(networks, (0, 1), strict=True):
        assert torch.equal(network.body[1].weight, start["body.1.weight"])
        assert torch.equal(network.head.weight, build_network("mlp-8", SHAPE, 10, seed).head.weight)
    assert not torch.equal(networks[0].head.weight, networks[1].head.weight)
    whole = read_start_weights(str(file), "mlp-8", SHAPE, 3)
    assert torch.equal(build_started_network(whole, SHAPE, 3, 0).head.weight, start["head.weight"])
    assert whole != name


def test_the_name_says_the_content_not_the_file(file, tmp_path):
    weights = torch.load(file, weights_only=True)["state_dict"]
    save_file({f"module.{name}": tensor for name, tensor in weights.items()}, tmp_path / "same.safetensors")
    name = read_start_weights(str(file), "mlp-8", SHAPE, 10)
    assert read_start_weights(str(tmp_path / "same.safetensors"), "mlp-8", SHAPE, 10) == name
    torch.save({key: tensor * 2 for key, tensor in weights.items()}, tmp_path / "other.pt")
    assert read_start_weights(str(tmp_path / "other.pt"), "mlp-8", SHAPE, 10) != name


def test_files_without_a_last_layer_and_with_torchvisions_names_fit():
    network = build_network("mlp-8", SHAPE, 5, seed=0)
    theirs = {
        "1.weight": torch.ones(8, 64),
        "1.bias": torch.ones(8),
        "fc.weight": torch.ones(7, 8),
        "fc.bias": torch.ones(7),
    }
    for given in (theirs, {name: tensor for name, tensor in theirs.items() if not name.startswith("fc.")}):
        tensors, note = match_start_weights(given, network, "mlp-8", 5)
        assert tensors.keys() == {"body.1.weight", "body.1.bias"}
        assert "the last layer, head, starts from the seed" in note


@pytest.mark.slow
def test_torchvisions_weights_fit_torchvisions_stem():
    theirs = build_network("torchvision.models:resnet18", (3, 16, 16), 7, seed=1).state_dict()
    network = build_network("resnet18-imagenet-stem", (3, 16, 16), 5, seed=0)
    tensors, _ = match_start_weights(theirs, network, "resnet18-imagenet-stem", 5)
    assert network.state_dict().keys() - tensors.keys() == {"head.weight", "head.bias"}
    cifar = build_network("resnet18", (3, 16, 16), 5, seed=0)
    with pytest.raises(ValueError, match=r"body\.conv1\.weight is .* --arch resnet18-imagenet-stem is torchvision's"):
        match_start_weights(theirs, cifar, "resnet18", 5)


def test_weights_of_another_network_are_refused(file):
    with pytest.raises(ValueError, match=r"start.ckpt does not fit --arch mlp-9: body\.1\.\w+ is .*; only the last"):
        read_start_weights(str(file), "mlp-9", SHAPE, 10)
    with pytest.raises(
        ValueError, match=r"does not fit --arch cnn: it lacks body\.0\.bias and 3 more; give the --arch"
    ):
        read_start_weights(str(file), "cnn", SHAPE, 10)


@pytest.fixture
def started(file, tmp_path, capsys):
    """A bank that started from the file, which is gone; this process has read nothing of it."""
    flags = f"--data digits --arch mlp-8 {SMALL} {SERIAL} --store {tmp_path / 'bank'}".split()
    assert estimate([*flags, "--pretrained", str(file)]) == 0
    assert "start weights of" in capsys.readouterr().out
    start_weights._start_weights.clear()
    file.unlink()
    return tmp_path / "bank", flags


def test_a_bank_keeps_its_start_weights_and_is_another_without_them(started, capsys):
    store, flags = Store.open(started[0]), started[1]
    model = build_model(store, "original", 0, CPU)
    start = store.read_weights(compute_start_key(store.manifest.architecture))
    assert torch.equal(model.body[1].weight, start["body.1.weight"])
    assert estimate(flags) == 2
    assert "architecture is mlp-8+pretrained-" in capsys.readouterr().err


@pytest.mark.slow
def test_oracles_and_retraining_start_from_the_file(started, capsys):
    for words in ("retrain --forget random --size 12", "finetune --set epochs=1 --forget canaries --size 20"):
        assert trial([str(started[0]), "--algorithm", *words.split(), "--seeds", "1", "--pool", "serial"]) == 0
    assert verify(["verify", str(started[0])]) == 0


def test_a_network_that_changed_is_refused_and_named(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "changing_net.py").write_text(MODULE)
    import changing_net

    changing_net.WIDTH = 4
    store = make_store(tmp_path / "bank")
    store.manifest = Manifest(**store.manifest.record() | {"architecture": "changing_net:network"})
    require_same_network(store)  # an older store has no record
    store.write_origin({"name": "x", "network": start_weights.describe_network(store.manifest)})
    require_same_network(store)
    changing_net.WIDTH = 5
    with pytest.raises(
        ValueError, match="its tensors had 310 numbers and have 385, or other names and shapes; restore"
    ):
        require_same_network(store)
    with pytest.raises(ValueError, match=r"the original is of another network .* \(first difference: 1\.bias\)"):
        start_weights.load_weights(changing_net.net(5), changing_net.net(4).state_dict(), "the original")
