"""Read what a user supplies of a model trained elsewhere: weights, training set and normalization constants."""

from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from memscore.models.architectures import build_network
from memscore.store.manifest import Manifest
from memscore.store.store import Store


def load_user_model(path: str, arch: str, manifest: Manifest) -> nn.Module:
    """Load a network for the bank's images and classes from a safetensors file: on the CPU, in evaluation mode."""
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
    _require_matching_tensors(path, arch, manifest, model.state_dict(), tensors)
    model.load_state_dict(tensors)
    return model.eval()


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
    if min(std) <= 0:
        raise ValueError(f"--std must be above 0, got {min(std):g}; it is of pixels scaled to [0, 1]")
    return mean, std


def _require_matching_tensors(
    path: str, arch: str, manifest: Manifest, wanted: dict[str, Tensor], given: dict[str, Tensor]
) -> None:
    """Raise ValueError if the tensors are not those of the network, and name the most likely reason."""
    shape = "x".join(str(size) for size in manifest.input_shape)
    missing, surplus = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    parts = [f"{word} {_format_first(names)}" for word, names in (("lacks", missing), ("has also", surplus)) if names]
    if parts:
        raise ValueError(
            f"{path} is no {arch} of memscore: it {' and '.join(parts)}; give the --arch it was trained as, "
            "module:function for one of your own"
        )
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
        elif has[:1] == needs[:1]:
            reason = f"it reads images of another shape than the bank's {shape}, or has layers of other widths"
        raise ValueError(f"{path} does not fit {network}: {reason} ({name} is {has}, must be {needs})")
    for name in (name for name, tensor in given.items() if not bool(torch.isfinite(tensor).all())):
        raise ValueError(f"{path} holds numbers that are not finite, first in {name}; audit a model that converged")


def _format_first(names: list[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")
