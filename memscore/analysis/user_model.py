"""A model that somebody else trained: its weights, the examples it was trained on, and the bank's own data again."""

from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from memscore.models.architectures import build_network
from memscore.store.manifest import Manifest
from memscore.store.store import Store


def load_user_model(path: str, arch: str, manifest: Manifest) -> nn.Module:
    """A network with the weights in a file, fit for the bank's images and classes.

    Args:
        path: a safetensors file of the network's state dict.
        arch: a name that memscore.models.architectures.build_network knows, or module:function.
        manifest: the bank's.

    Returns:
        The network on the CPU, in evaluation mode.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no safetensors file, or tensors that are not those of that architecture for these images and
            classes.
    """
    from safetensors.torch import load_file  # torch is here anyway; safetensors alone does not import it

    if not Path(path).is_file():
        raise FileNotFoundError(f"there are no weights at {path!r}; give --model a safetensors file")
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"{path} is no safetensors file ({error}); write one with safetensors.torch.save_file(model.state_dict(), "
            "path)"
        ) from None
    model = build_network(arch, manifest.input_shape, manifest.n_classes, seed=0)
    _require_matching_tensors(path, arch, manifest, model.state_dict(), tensors)
    model.load_state_dict(tensors)
    return model.eval()


def build_member_mask(ids: np.ndarray, store: Store) -> np.ndarray:
    """Which training examples of a bank are named.

    Args:
        ids: str [n].
        store: open.

    Returns:
        bool [n_train].

    Raises:
        ValueError: ids that the bank does not know, or of examples that no model of a bank is trained on.
    """
    known = np.array(store.examples()["id"].to_pylist(), dtype=np.str_)
    for stranger in (unknown := ids[~np.isin(ids, known)])[:1]:
        raise ValueError(
            f"{len(unknown)} of {len(ids)} member ids are no examples of {store.folder.display_name} "
            f"(first {str(stranger)!r}, ids there look like {str(known[0])!r}); examples.parquet lists all of them"
        )
    n_train = store.manifest.split_sizes[0]
    for outside in (held_out := ids[~np.isin(ids, known[:n_train])])[:1]:
        raise ValueError(
            f"{len(held_out)} members are validation or test examples of the bank (first {str(outside)!r}), which none "
            "of its models was trained on; audit with a bank whose training set holds all members"
        )
    return np.isin(known[:n_train], ids)


def resolve_normalization(
    manifest: Manifest, mean: tuple[float, ...] | None, std: tuple[float, ...] | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """What images are normalised with before a user's model sees them, per channel of pixels in [0, 1].

    Args:
        manifest: the bank's, whose constants stand where none are given.
        mean: the user's.
        std: the user's.

    Returns:
        (mean, std).

    Raises:
        ValueError: not one for each channel, a std that is not above 0, or a bank whose images nobody knows.
    """
    if not manifest.mean:
        raise ValueError(
            "this bank was imported without its images, so no model can be asked about them; import it into another "
            "store with --data"
        )
    mean, std = (own if wish is None else wish for wish, own in ((mean, manifest.mean), (std, manifest.std)))
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
    """Refuse tensors of another network, by what is wrong with them."""
    shape = "x".join(str(size) for size in manifest.input_shape)
    missing, surplus = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    parts = [f"{word} {_format_first(names)}" for word, names in (("lacks", missing), ("has also", surplus)) if names]
    if parts:
        raise ValueError(
            f"{path} is no {arch} of memscore: it {' and '.join(parts)}; give the --arch it was trained as, "
            "module:function for one of your own"
        )
    wrong = [name for name in wanted if wanted[name].shape != given[name].shape]
    if wrong:
        name = wrong[0]
        has, needs = list(given[name].shape), list(wanted[name].shape)
        what = f"{arch} for images of {shape} and {manifest.n_classes} classes"
        reason = "it is another network"
        if has[:1] != needs[:1] and has[1:] == needs[1:] and needs[0] == manifest.n_classes:
            reason = f"it has {has[0]} classes, the bank {needs[0]}"
        elif has[:1] == needs[:1]:
            reason = f"it reads images of another shape than the bank's {shape}, or has layers of other widths"
        raise ValueError(f"{path} does not fit {what}: {reason} ({name} is {has}, must be {needs})")
    for name in (name for name, tensor in given.items() if not bool(torch.isfinite(tensor).all())):
        raise ValueError(f"{path} holds numbers that are not finite, first in {name}; audit a model that converged")


def _format_first(names: list[str]) -> str:
    """The first of some names and how many more there are."""
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")
