"""Names of weights: prefixes of wrappers, torchvision's names, and what is said where they do not match."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from memscore.analysis.user_model import load_user_model
from memscore.data.id_lists import read_id_list
from memscore.models.architectures import build_network
from memscore.models.weight_names import match_names
from memscore.store.manifest import Manifest

MODULE = """
from torch import nn

class Wrapped(nn.Module):
    def __init__(self, shape, classes):
        super().__init__()
        self.model = nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.BatchNorm1d(20), nn.Linear(20, classes))

    def forward(self, x):
        return self.model(x)

def wrapped(shape, classes):
    return Wrapped(shape, classes)
"""


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Write tensors, and load them as an architecture for 8x8 images of 10 classes, or other images."""
    (tmp_path / "wrapped_net.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))

    def load_as(arch, tensors, shape=(1, 8, 8)):
        manifest = Manifest(
            fingerprint="0", data="none", split_sizes=(1, 0, 0), n_classes=10, input_shape=shape,
            mean=(0.5,) * shape[0], std=(0.5,) * shape[0], label_changes={}, architecture=arch, recipe={},
            precision="float32", seed=0,
        )  # fmt: skip
        path = tmp_path / "weights.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
        return load_user_model(str(path), arch, manifest)

    return load_as


def prefix_names(tensors, prefix):
    return {prefix + name: tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize(
    "prefix", ["_orig_mod.", "module.", "model.", "module._orig_mod.", "a.b.c.", "body.", "backbone.head."]
)
def test_a_prefix_of_all_names_is_taken_off_and_said(load, prefix):
    tensors = build_network("mlp-32", (1, 8, 8), 10, 3).state_dict()
    loaded = load("mlp-32", prefix_names(tensors, prefix))
    assert repr(prefix) in loaded.notes[0]
    for name, tensor in loaded.network.state_dict().items():
        assert torch.equal(tensor, tensors[name])
    assert load("mlp-32", tensors).notes == ()


def test_names_that_match_stay_whatever_they_begin_with(load):
    """All names of the network itself begin with "model."; the prefix may be missing or there twice."""
    tensors = build_network("wrapped_net:wrapped", (1, 8, 8), 10, 3).state_dict()
    bare = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    assert load("wrapped_net:wrapped", tensors).notes == ()
    assert "'model.' was put before" in load("wrapped_net:wrapped", bare).notes[0]
    twice = load("wrapped_net:wrapped", prefix_names(tensors, "model."))
    assert "'model.' of all names" in twice.notes[0]
    assert torch.equal(twice.network.state_dict()["model.1.weight"], tensors["model.1.weight"])


def test_an_averaged_models_counter_and_missing_counters_do_no_harm(load):
    tensors = build_network("wrapped_net:wrapped", (1, 8, 8), 10, 3).state_dict()
    averaged = {**prefix_names(tensors, "module."), "n_averaged": torch.tensor(3)}
    old = {name: tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}
    for given in (averaged, old):
        network = load("wrapped_net:wrapped", given).network
        assert torch.equal(network.state_dict()["model.3.weight"], tensors["model.3.weight"])


def test_torchvisions_names_are_accepted(load):
    from torchvision.models import resnet18

    tensors = resnet18(num_classes=10).state_dict()
    loaded = load("resnet18-imagenet-stem", tensors, (3, 16, 16))
    assert "torchvision" in loaded.notes[0]
    found = loaded.network.state_dict()
    assert torch.equal(found["head.weight"], tensors["fc.weight"])
    assert torch.equal(found["body.layer1.0.conv1.weight"], tensors["layer1.0.conv1.weight"])
    renamed, note = match_names(prefix_names(tensors, "module."), found)
    assert renamed.keys() == found.keys()
    assert "'module.'" in note
    assert "torchvision" in note
    with pytest.raises(ValueError, match="give --arch resnet18-imagenet-stem"):
        load("resnet18", tensors, (3, 16, 16))


def test_names_of_other_networks_of_the_same_layers_are_accepted(load):
    """VGG as CIFAR repositories have it; torchvision's own VGG has another classifier, which the message says."""
    tensors = build_network("vgg16", (3, 32, 32), 10, 3).state_dict()
    theirs = {k.replace("body.0.", "features.").replace("head.", "classifier."): t for k, t in tensors.items()}
    assert load("vgg16", theirs, (3, 32, 32)).network.state_dict().keys() == tensors.keys()
    deeper = {**theirs, "classifier.3.weight": torch.ones(1)}
    with pytest.raises(ValueError, match=r"has other layers; give --arch torchvision\.models:vgg16_bn"):
        load("vgg16", deeper, (3, 32, 32))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_read(load, kind):
    tensors = build_network("mlp-32", (1, 8, 8), 10, 3).state_dict()
    network = load("mlp-32", {name: tensor.to(kind) for name, tensor in tensors.items()}).network
    assert network.state_dict()["head.weight"].dtype == torch.float32
    torch.testing.assert_close(network.state_dict()["head.weight"], tensors["head.weight"], rtol=1e-2, atol=1e-3)


def test_names_that_do_not_match_end_in_the_right_advice(load):
    tensors = build_network("wrapped_net:wrapped", (1, 8, 8), 10, 3).state_dict()
    with pytest.raises(ValueError, match="running statistics of batch norm are missing; write all of"):
        load("wrapped_net:wrapped", {name: t for name, t in tensors.items() if "running" not in name})
    # the prefix is off before the names are compared, so that what is missing is named as in the network
    plain = prefix_names(build_network("mlp-32", (1, 8, 8), 10, 3).state_dict(), "module.")
    del plain["module.head.bias"]
    with pytest.raises(ValueError, match=r"lacks head\.bias;") as caught:
        load("mlp-32", plain)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"has also extra; leave these out if"):
        load("mlp-32", {**build_network("mlp-32", (1, 8, 8), 10, 3).state_dict(), "extra": torch.ones(1)})


def test_a_network_among_other_tensors_is_taken_if_it_is_there_once(load):
    """Lightning's module holds the network, and what its loss or a second network has."""
    tensors = build_network("mlp-32", (1, 8, 8), 10, 3).state_dict()
    loaded = load("mlp-32", {**prefix_names(tensors, "net."), "loss.weight": torch.ones(10)})
    assert torch.equal(loaded.network.state_dict()["head.weight"], tensors["head.weight"])
    assert "'net.' of all names" in loaded.notes[0]
    assert "1 tensors of other names were left out" in loaded.notes[0]
    with pytest.raises(ValueError, match=r"has the network twice, under 'student\.' and 'teacher\.'; write only the"):
        load("mlp-32", {f"{name}.{key}": t.clone() for name in ("teacher", "student") for key, t in tensors.items()})


def test_a_network_that_never_ran_in_training_mode_is_suspected(load):
    tensors = build_network("wrapped_net:wrapped", (1, 8, 8), 10, 3).state_dict()
    assert "batch norm" in load("wrapped_net:wrapped", tensors).suspicions[0]
    trained = {name: t + 0.1 if name.endswith("running_mean") else t for name, t in tensors.items()}
    assert load("wrapped_net:wrapped", trained).suspicions == ()


def test_nothing_is_renamed_where_nothing_matches():
    wanted = nn.Linear(2, 2).state_dict()
    given = {"other.thing": torch.ones(1)}
    assert match_names(given, wanted) == (given, "")


@pytest.mark.parametrize("ending", [".txt", ".json"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_ids_are_read_with_a_byte_order_mark_and_windows_ends_of_lines(tmp_path, ending, encoding, newline):
    ids = ["all/00001", "all/é"]
    text = newline.join(ids) + newline if ending == ".txt" else f'["{ids[0]}",{newline}"{ids[1]}"]'
    path = tmp_path / f"ids{ending}"
    path.write_bytes(text.encode(encoding))
    np.testing.assert_array_equal(read_id_list(str(path)), ids)
