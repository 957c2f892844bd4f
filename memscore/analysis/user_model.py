"""Read what a user supplies of a model trained elsewhere: weights, training set and normalization constants."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from memscore.models.architectures import build_network
from memscore.store.manifest import Manifest
from memscore.store.store import Store

STATISTICS = ("running_mean", "running_var")
HEADS = ("head", "fc", "heads.head", "classifier")
"""Names of the last layer: memscore's, and torchvision's, whose other layers lack the "body." of memscore."""


@dataclass(frozen=True, kw_only=True, eq=False)
class UserModel:
    """A network with a user's weights.

    Attributes:
        network: on the CPU, in evaluation mode.
        notes: what was done to the names of the weights, in one line each.
        suspicions: what may be wrong with the weights, for an audit that finds that they do not fit.
    """

    network: nn.Module
    notes: tuple[str, ...] = ()
    suspicions: tuple[str, ...] = ()


def load_user_model(path: str, arch: str, manifest: Manifest) -> UserModel:
    """Load a network for the bank's images and classes from a safetensors file."""
    from safetensors.torch import load_file

    if not Path(path).is_file():
        raise FileNotFoundError(f"there are no weights at {path!r}; give --model a safetensors file")
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"{path} is no safetensors file ({error}); write one with safetensors.torch.save_file(model.state_dict(), "
            "path)"
        ) from None
    # any seed, since all weights are replaced
    model = build_network(arch, manifest.input_shape, manifest.n_classes, seed=0)
    wanted = model.state_dict()
    tensors, note = match_names(tensors, wanted)
    _require_matching_tensors(path, arch, manifest, wanted, tensors)
    model.load_state_dict(tensors)
    return UserModel(network=model.eval(), notes=(note,) if note else (), suspicions=tuple(_find_suspicions(tensors)))


def match_names(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Rename a user's tensors as the network names its own, where all names differ in one way; and say how.

    A prefix that all names share is taken off (torch.compile's _orig_mod., DataParallel's module., Lightning's model.)
    or put before all; torchvision's names of a network without the "body." of memscore are accepted. Names that match
    as they stand stay, whatever they begin with. Where nothing matches, the names without the shared prefixes that
    have the most in common with the network's, for the message of what is missing.
    """
    given = {name: tensor for name, tensor in tensors.items() if name != "n_averaged"}  # of torch's AveragedModel
    # a counter that evaluation does not read, and which old files lack
    counters = {name: value for name, value in wanted.items() if name.endswith("num_batches_tracked")}
    best, best_note, most = given, "", len(given.keys() & wanted.keys())
    for renamed, note in _list_renamings(given, wanted):
        found = {**{name: counters[name] for name in counters if name not in renamed}, **renamed}
        if found.keys() == wanted.keys():
            return found, note
        if (shared := len(found.keys() & (wanted.keys() - counters.keys()))) > most:
            best, best_note, most = found, note, shared
    return dict(best), best_note


def build_member_mask(ids: np.ndarray, store: Store) -> np.ndarray:
    """Build the mask, bool [n_train], of the bank's training examples that are named by ids."""
    bank_ids = np.array(store.examples()["id"].to_pylist(), dtype=np.str_)
    # an id that is left out without an error would count a member as a non-member
    for first in (unknown := ids[~np.isin(ids, bank_ids)])[:1]:
        raise ValueError(
            f"{len(unknown)} of {len(ids)} member ids are no examples of {store.folder.display_name} "
            f"(first {str(first)!r}, ids there look like {str(bank_ids[0])!r}); examples.parquet lists all of them"
        )
    n_train = store.manifest.split_sizes[0]
    for first in (held_out := ids[~np.isin(ids, bank_ids[:n_train])])[:1]:
        raise ValueError(
            f"{len(held_out)} members are validation or test examples of the bank (first {str(first)!r}), which none "
            "of its models was trained on; audit with a bank whose training set holds all members"
        )
    return np.isin(bank_ids[:n_train], ids)


def resolve_normalization(
    manifest: Manifest, mean: tuple[float, ...] | None, std: tuple[float, ...] | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and std per channel for a user's model, of pixels in [0, 1]; the bank's where none are given."""
    if not manifest.mean:
        raise ValueError(
            "this bank was imported without its images, so no model can be evaluated on them; import it into another "
            "store with --data"
        )
    mean = manifest.mean if mean is None else mean
    std = manifest.std if std is None else std
    channels = manifest.input_shape[0]
    for option, values in (("--mean", mean), ("--std", std)):
        if len(values) != channels:
            raise ValueError(f"{option} takes one number for each of {channels} channels, got {len(values)}")
        for value in values:
            if not np.isfinite(value):
                raise ValueError(f"{option} must be finite, got {value:g}; it is of pixels scaled to [0, 1]")
    if min(std) <= 0:
        raise ValueError(f"--std must be above 0, got {min(std):g}; it is of pixels scaled to [0, 1]")
    return mean, std


def _list_renamings(
    given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> Iterator[tuple[dict[str, Tensor], str]]:
    """Yield the tensors under other names, those that are changed least first, and what was changed."""
    added_prefixes = _list_shared_prefixes(wanted)[1:]
    for prefix in _list_shared_prefixes(given):
        stripped = {name.removeprefix(prefix): tensor for name, tensor in given.items()}
        note = f"the prefix {prefix!r} of all names of weights was taken off" if prefix else ""
        yield stripped, note
        if "head.weight" in wanted:
            for head in HEADS:
                named = {_add_body(name, head): tensor for name, tensor in stripped.items()}
                yield named, f"{note}{'; ' if note else ''}names of weights as torchvision has them were accepted"
        for added in added_prefixes:
            named = {f"{added}{name}": tensor for name, tensor in stripped.items()}
            yield named, f"{note}{'; ' if note else ''}{added!r} was put before all names of weights"


def _list_shared_prefixes(names: Collection[str]) -> list[str]:
    """List the prefixes, whole parts of names with their dot, that all names begin with, the empty one first."""
    parts = next(iter(names), "").split(".")[:-1]
    prefixes = ["".join(f"{part}." for part in parts[:count]) for count in range(len(parts) + 1)]
    return [prefix for prefix in prefixes if all(name.startswith(prefix) for name in names)]


def _add_body(name: str, head: str) -> str:
    """Name a tensor of a network without a body as a Classifier does."""
    return f"head.{name.removeprefix(f'{head}.')}" if name.startswith(f"{head}.") else f"body.{name}"


def _require_matching_tensors(
    path: str, arch: str, manifest: Manifest, wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]
) -> None:
    """Raise ValueError if the tensors are not those of the network, and name the most likely reason."""
    shape = "x".join(str(size) for size in manifest.input_shape)
    missing, surplus = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    parts = [f"{word} {_format_first(names)}" for word, names in (("lacks", missing), ("has also", surplus)) if names]
    if parts:
        raise ValueError(f"{path} is no {arch} of memscore: it {' and '.join(parts)}; {_advise(wanted, given)}")
    # The first tensor of another shape tells the reason. A weight is [outputs, inputs, ...]: only its outputs differ in
    # the last layer of another number of classes, only its inputs in the first layer for images of another shape.
    wrong = [name for name in wanted if wanted[name].shape != given[name].shape]
    if wrong:
        name = wrong[0]
        has, needs = list(given[name].shape), list(wanted[name].shape)
        network = f"{arch} for images of {shape} and {manifest.n_classes} classes"
        reason = "it is another network"
        if has[:1] != needs[:1] and has[1:] == needs[1:] and needs[0] == manifest.n_classes:
            reason = f"it has {has[0]} classes, the bank {needs[0]}"
        elif has[:2] == needs[:2] and has[2:] != needs[2:] and arch == "resnet18":
            reason = "its first convolution is that of ImageNet's networks; give --arch resnet18-imagenet-stem"
        elif has[:1] == needs[:1]:
            reason = f"it reads images of another shape than the bank's {shape}, or has layers of other widths"
        raise ValueError(f"{path} does not fit {network}: {reason} ({name} is {has}, must be {needs})")
    # in float32: not every type that a file may hold can be tested as it is
    for name in (name for name, tensor in given.items() if not bool(torch.isfinite(tensor.float()).all())):
        raise ValueError(f"{path} holds numbers that are not finite, first in {name}; audit a model that converged")


def _advise(wanted: Collection[str], given: Collection[str]) -> str:
    """Say what to do where names are missing or too many."""
    missing, surplus = set(wanted) - set(given), set(given) - set(wanted)
    if missing and not surplus and all(name.endswith(STATISTICS) for name in missing):
        return "the running statistics of batch norm are missing; write all of model.state_dict(), not parameters()"
    for prefix in sorted({f"{name.split('.')[0]}." for name in given}):
        if {name.removeprefix(prefix) for name in given if name.startswith(prefix)} >= set(wanted):
            return f"the network is all there under names that start with {prefix!r}; write only these tensors"
    if surplus and not missing:
        return "leave these out if they are no part of the network, or give the --arch it was trained as"
    return (
        "give the --arch it was trained as, module:function for one of your own; a prefix that all names share would "
        "have been taken off"
    )


def _find_suspicions(tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """Yield what tells that weights are not those of a finished training."""
    layers = [name.removesuffix("running_mean") for name in tensors if name.endswith("running_mean")]
    if layers and all(
        bool((tensors[f"{layer}running_mean"] == 0).all()) and bool((tensors[f"{layer}running_var"] == 1).all())
        for layer in layers
        if f"{layer}running_var" in tensors
    ):
        yield "the running statistics of its batch norm are those of a network that never ran in training mode"


def _format_first(names: list[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")
