"""Start weights: what all models of a bank, its originals and its oracles begin from, read from a file (--pretrained).

The bank's architecture names them by a hash of their content, as resnet18+pretrained-0123456789ab, so that a bank of
other start weights is another bank. The store holds them among its weights, where workers on other nodes find them.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from memscore.models.architectures import Classifier, build_network
from memscore.models.checkpoint_files import read_checkpoint
from memscore.models.user_networks import Shape
from memscore.models.weight_names import AS_IN_TORCHVISION, HEADS, match_names
from memscore.store.manifest import Manifest, compute_start_key, name_pretrained, split_architecture
from memscore.store.store import Store
from memscore.store.weight_files import hash_weights


@dataclass(frozen=True, kw_only=True, eq=False)
class StartWeights:
    """The tensors that networks start from, by the network's names, and a note on them for the user."""

    tensors: Mapping[str, Tensor]
    note: str = ""


# of this process, by the architecture's name, which has a hash of their content
_start_weights: dict[str, StartWeights] = {}


def read_start_weights(path: str, arch: str, shape: Shape, n_classes: int) -> str:
    """Read start weights from a file, keep them for this process, and name the architecture that has them.

    Raises FileNotFoundError without the file, and ValueError where its weights are not those of the architecture but
    for the last layer, which may be another or missing.
    """
    checkpoint = read_checkpoint(path, "--pretrained")
    network = build_network(arch, shape, n_classes, seed=0)
    try:
        tensors, note = match_start_weights(checkpoint.tensors, network, arch, n_classes)
    except ValueError as error:
        raise ValueError(f"--pretrained {path} does not fit --arch {arch}: {error}") from None
    name = name_pretrained(arch, hash_weights(tensors))
    parts = filter(None, (checkpoint.note, note))
    _start_weights[name] = StartWeights(tensors=tensors, note=f"start weights of {path}: {'; '.join(parts)}")
    return name


def match_start_weights(
    given: Mapping[str, Tensor], network: nn.Module, arch: str, n_classes: int
) -> tuple[dict[str, Tensor], str]:
    """Match the tensors of a file with a network's, without the last layer if that is another or missing.

    Returns the tensors in the network's types, and what was done. ValueError names the first that does not fit.
    """
    wanted = network.state_dict()
    head = find_head_names(network, n_classes)
    tensors, note = match_names(given, wanted)
    if tensors.keys() != wanted.keys() and head:
        last = re.compile(rf"(.*\.)?({'|'.join(map(re.escape, HEADS))})\.(weight|bias)")
        body = {name: tensor for name, tensor in given.items() if not last.fullmatch(name)}
        tensors, note = match_names(body, {name: tensor for name, tensor in wanted.items() if name not in head})
    wrong = [name for name in tensors if name in wanted and tensors[name].shape != wanted[name].shape]
    if set(wrong) & head:
        tensors = {name: tensor for name, tensor in tensors.items() if name not in head}
    missing, surplus = sorted(wanted.keys() - tensors.keys() - head), sorted(tensors.keys() - wanted.keys())
    if missing or surplus:
        problem = f"it lacks {missing[0]}" if missing else f"it has also {surplus[0]}"
        count = len(missing or surplus) - 1
        raise ValueError(f"{problem}{f' and {count} more' if count else ''}; give the --arch that it was trained as")
    for name in wrong:
        if name not in head:
            has, needs = list(tensors[name].shape), list(wanted[name].shape)
            advice = (
                f"--arch {AS_IN_TORCHVISION[arch]} is torchvision's" if arch in AS_IN_TORCHVISION else "give its --arch"
            )
            raise ValueError(f"{name} is {has}, must be {needs}; only the last layer may be another; {advice}")
    cast = {name: tensor.to(wanted[name].dtype) for name, tensor in tensors.items()}
    for name in (name for name, tensor in cast.items() if not bool(torch.isfinite(tensor.float()).all())):
        raise ValueError(f"it holds numbers that are not finite, first in {name}")
    if len(cast) == len(wanted):
        last_layer = "all layers are taken"
    else:
        last_layer = f"the last layer, {sorted(head)[0].rpartition('.')[0]}, starts from the seed"
    return cast, "; ".join(filter(None, (note, last_layer)))


def find_head_names(network: nn.Module, n_classes: int) -> set[str]:
    """Find the names of the tensors of the last layer: a Classifier's head, else the last layer with K outputs."""
    if isinstance(network, Classifier):
        return {name for name in network.state_dict() if name.startswith("head.")}
    prefixes = [
        name
        for name, layer in network.named_modules()
        if isinstance(weight := getattr(layer, "weight", None), Tensor) and weight.shape[:1] == (n_classes,)
    ]
    return {name for name in network.state_dict() if prefixes and name.rpartition(".")[0] == prefixes[-1]}


def describe_start_weights(architecture: str) -> tuple[str, ...]:
    """Return the note on the start weights that this process has read; none without."""
    start = _start_weights.get(architecture)
    return (start.note,) if start and start.note else ()


def store_start_weights(store: Store) -> None:
    """Write the start weights that this process has read into the store, if they are not there yet."""
    key = compute_start_key(store.manifest.architecture)
    if key and not store.has_weights(key):
        store.write_weights(key, _start_weights[store.manifest.architecture].tensors)


def load_start_weights(store: Store) -> None:
    """Read a bank's start weights from its store, unless this process has them or the bank has none."""
    architecture = store.manifest.architecture
    key = compute_start_key(architecture)
    if key and architecture not in _start_weights:
        _start_weights[architecture] = StartWeights(tensors=store.read_weights(key))


def build_started_network(
    architecture: str, shape: Shape, n_classes: int, seed: int, *, in_thread: bool = False
) -> nn.Module:
    """Build a network as build_network does, with the start weights that the architecture's name has.

    KeyError where this process has not read them: see load_start_weights.
    """
    arch, digest = split_architecture(architecture)
    network = build_network(arch, shape, n_classes, seed, in_thread=in_thread)
    if digest:
        # what the file lacks, the last layer, keeps what the seed gave it
        network.load_state_dict(_start_weights[architecture].tensors, strict=False)
    return network


def describe_network(manifest: Manifest) -> dict[str, object]:
    """Describe the network that a module:function builds: a hash of its tensors' names and shapes, and their number.

    Stored beside the bank, it tells a later command that the function builds another network now.
    """
    arch, _ = split_architecture(manifest.architecture)
    tensors = build_network(arch, manifest.input_shape, manifest.n_classes, seed=0).state_dict()
    zeros = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    return {"sha256": hash_weights(zeros), "parameters": sum(tensor.numel() for tensor in tensors.values())}


def require_same_network(store: Store) -> None:
    """Raise ValueError if a network of the user's own is another than when the bank was made."""
    architecture = store.manifest.architecture
    stored = (store.read_origin() or {}).get("network")
    if ":" not in architecture or not isinstance(stored, dict):
        return
    now = describe_network(store.manifest)
    if now["sha256"] != stored["sha256"]:
        raise ValueError(
            f"the network {architecture} is not that of {store.folder.display_name}: its tensors had "
            f"{stored['parameters']:,} numbers and have {now['parameters']:,}, or other names and shapes; restore the "
            "function, or give the new network another name and another --store"
        )


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor], what: str) -> None:
    """Load stored weights; ValueError in one line where the network is another now."""
    wanted = model.state_dict()
    names: Collection[str] = wanted.keys() ^ tensors.keys()
    names = names or [name for name in wanted if wanted[name].shape != tensors[name].shape]
    for name in sorted(names):
        raise ValueError(
            f"{what} is of another network than is built now (first difference: {name}); restore the function that "
            "builds it, or make another bank"
        )
    model.load_state_dict(tensors)
