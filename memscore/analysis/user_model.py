"""Read what a user supplies of a model trained elsewhere: weights, training set and normalization constants."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from memscore.data.id_lists import read_matching_ids
from memscore.models.architectures import build_network
from memscore.models.checkpoint_files import read_checkpoint
from memscore.models.weight_names import AS_IN_TORCHVISION, match_names
from memscore.store.manifest import Manifest
from memscore.store.store import Store
from memscore.units import format_count

STATISTICS = ("running_mean", "running_var")


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
    """Load a network for the bank's images and classes from a file of weights, as read_checkpoint reads it."""
    checkpoint = read_checkpoint(path, "--model")
    # any seed, since all weights are replaced
    model = build_network(arch, manifest.input_shape, manifest.n_classes, seed=0)
    wanted = model.state_dict()
    try:
        tensors, note = match_names(checkpoint.tensors, wanted)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    _require_matching_tensors(path, arch, manifest, wanted, tensors)
    model.load_state_dict(tensors)
    notes = tuple(filter(None, (checkpoint.note, note)))
    return UserModel(network=model.eval(), notes=notes, suspicions=tuple(_find_suspicions(tensors)))


def read_members(path: str, store: Store) -> tuple[np.ndarray, tuple[str, ...]]:
    """Read a list of members' ids; return their mask, as build_member_mask does, and notes on the list."""
    matched = read_matching_ids(path, _read_bank_ids(store).tolist())
    return build_member_mask(matched.ids, store), matched.notes


def build_member_mask(ids: np.ndarray, store: Store) -> np.ndarray:
    """Build the mask, bool [n_train], of the bank's training examples that are named by ids."""
    bank_ids = _read_bank_ids(store)
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


def _read_bank_ids(store: Store) -> np.ndarray:
    return np.array(store.examples()["id"].to_pylist(), dtype=np.str_)


def _require_matching_tensors(
    path: str, arch: str, manifest: Manifest, wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]
) -> None:
    """Raise ValueError if the tensors are not those of the network, and name the most likely reason."""
    shape = "x".join(str(size) for size in manifest.input_shape)
    missing, surplus = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    parts = [f"{word} {_format_first(names)}" for word, names in (("lacks", missing), ("has also", surplus)) if names]
    if parts:
        raise ValueError(f"{path} is no {arch} of memscore: it {' and '.join(parts)}; {_advise(arch, wanted, given)}")
    # The first tensor of another shape tells the reason. A weight is [outputs, inputs, ...]: only its outputs differ in
    # the last layer of another number of classes, only its inputs in the first layer for images of another shape.
    wrong = [name for name in wanted if wanted[name].shape != given[name].shape]
    if wrong:
        name = wrong[0]
        has, needs = list(given[name].shape), list(wanted[name].shape)
        network = f"{arch} for images of {shape} and {format_count(manifest.n_classes, 'class', 'classes')}"
        reason = "it is another network"
        if has[:1] != needs[:1] and has[1:] == needs[1:] and needs[0] == manifest.n_classes:
            reason = f"it has {format_count(has[0], 'class', 'classes')}, the bank {needs[0]}"
        elif has[:2] == needs[:2] and has[2:] != needs[2:] and arch in AS_IN_TORCHVISION:
            reason = f"its first convolution is that of ImageNet's networks; give --arch {AS_IN_TORCHVISION[arch]}"
        elif has[:1] == needs[:1]:
            reason = f"it reads images of another shape than the bank's {shape}, or has layers of other widths"
        raise ValueError(f"{path} does not fit {network}: {reason} ({name} is {has}, must be {needs})")
    # in float32: not every type that a file may hold can be tested as it is
    for name in (name for name, tensor in given.items() if not bool(torch.isfinite(tensor.float()).all())):
        raise ValueError(f"{path} holds numbers that are not finite, first in {name}; audit a model that converged")


def _advise(arch: str, wanted: Collection[str], given: Collection[str]) -> str:
    """Say what to do where names are missing or too many."""
    missing, surplus = set(wanted) - set(given), set(given) - set(wanted)
    if arch in AS_IN_TORCHVISION and any(name.endswith(("classifier.3.weight", "head.3.weight")) for name in given):
        return f"torchvision's network of that name has other layers; give --arch {AS_IN_TORCHVISION[arch]}"
    if missing and not surplus and all(name.endswith(STATISTICS) for name in missing):
        return "the running statistics of batch norm are missing; write all of model.state_dict(), not parameters()"
    if surplus and not missing:
        return "leave these out if they are no part of the network, or give the --arch it was trained as"
    return (
        "give the --arch it was trained as, module:function for one of your own, torchvision.models:NAME for one of "
        "torchvision's; a prefix that all names share would have been taken off"
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
