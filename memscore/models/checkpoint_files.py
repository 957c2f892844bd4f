"""Read the weights in a file that a user has: safetensors, or what torch.save and Lightning write.

No code of a file is run: torch.load reads it with weights_only, which refuses everything but tensors and plain values.
"""

import argparse
import pickle
import pickletools
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from memscore.reading_limit import require_memory

WEIGHT_KEYS = (
    *("state_dict", "model_state_dict", "model", "net", "network", "module", "weights", "params"),
    *("ema", "ema_state_dict", "model_ema", "state_dict_ema"),
)
"""Entries of a checkpoint that hold a network's weights, the first of them that is there is taken."""

ZIP, PICKLE, HDF5 = b"PK\x03\x04", b"\x80", b"\x89HDF"
MAX_PICKLE_BYTES = 2**26  # of a checkpoint's structure without its tensors, looked at for an error message
FORMATS = "a .safetensors file, or a .pt, .pth, .bin or .ckpt file of torch.save"


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """The weights in a file.

    Attributes:
        tensors: by name, on the CPU, as the file has them.
        note: what the file is and what was taken of it; empty for a safetensors file.
    """

    tensors: dict[str, Tensor]
    note: str = ""


def read_checkpoint(path: str, option: str) -> Checkpoint:
    """Read the weights of one network from a safetensors file or a file of torch.save, distinguished by their content.

    Args:
        path: of the file.
        option: of the command line, for messages.

    Returns:
        The tensors by name; of a dict of several things the first entry of WEIGHT_KEYS.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no weights, code that would have to be run, or is damaged.
    """
    file = Path(path)
    if file.is_dir():
        raise ValueError(f"{path} is a folder; give {option} the file of weights in it")
    if not file.is_file():
        raise FileNotFoundError(f"there are no weights at {path!r}; give {option} {FORMATS}")
    # torch reads all of a file; tensors of a safetensors file are mapped, and copied as soon as they are used
    require_memory(file.stat().st_size, path)
    with file.open("rb") as opened:
        start = opened.read(16)
    # first, since a safetensors file begins with the length of its header, which may be any byte
    if start[8:9] == b"{":
        return _check_tensors(path, Checkpoint(tensors=_load_safetensors(path)))
    if start.startswith((ZIP, PICKLE)):
        return _check_tensors(path, _take_state_dict(path, _load_torch(path, option)))
    kind = "an HDF5 file, as Keras writes" if start.startswith(HDF5) else "no file of weights"
    raise ValueError(f"{path} is {kind}; give {option} {FORMATS}")


def _check_tensors(path: str, checkpoint: Checkpoint) -> Checkpoint:
    """Refuse tensors without plain numbers, and those that claim more than memory allows."""
    for name, tensor in checkpoint.tensors.items():
        if tensor.is_quantized or tensor.layout != torch.strided or tensor.device.type != "cpu":
            raise ValueError(f"{path} holds quantized, sparse or no numbers ({name}); write them as plain floats")
    # a stored number may stand for many of a tensor, by a stride of 0
    n_bytes = sum(tensor.numel() * tensor.element_size() for tensor in checkpoint.tensors.values())
    require_memory(n_bytes, f"{path}, unpacked,")
    return checkpoint


def _load_safetensors(path: str) -> dict[str, Tensor]:
    """Load a safetensors file."""
    from safetensors.torch import load_file

    # what a header may be wrong in is told by its own error, by torch's, or by those of Python's types
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except Exception as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise ValueError(
            f"{path} is no safetensors file ({reason}); write one with safetensors.torch.save_file(model.state_dict(), "
            "path), or torch.save(model.state_dict(), 'weights.pt')"
        ) from None
    return tensors


def _load_torch(path: str, option: str) -> Any:
    """Load what torch.save wrote, without running code."""
    _require_plain_zip(path, option)
    try:
        # an open file, since torch.load chooses another reader by some endings of names
        with torch.serialization.safe_globals([*_list_harmless_types()]), Path(path).open("rb") as opened:
            return torch.load(opened, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(_explain_refusal(path, str(error))) from None
    # torch raises many kinds of errors for files that are cut or are no checkpoints: EOFError, KeyError, RuntimeError
    except Exception as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise ValueError(f"{path} is damaged or no file of torch.save ({reason}); give {option} {FORMATS}") from None


def _list_harmless_types() -> Iterator[Any]:
    """Yield types beside torch's own that checkpoints hold and that run no code: NumPy's numbers, parsed options."""
    yield argparse.Namespace
    yield np.dtype
    # the same function has two names, that of NumPy 1 and that of NumPy 2
    scalar = np._core.multiarray.scalar  # type: ignore[attr-defined]
    yield from ((scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core"))
    yield from {type(np.dtype(code)) for code in "?bBhHiIlLqQefd"}


def _require_plain_zip(path: str, option: str) -> None:
    """Raise ValueError for a zip file that claims more bytes than it has; torch.save compresses nothing."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except Exception as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise ValueError(f"{path} is damaged or no file of torch.save ({reason}); give {option} {FORMATS}") from None
    claimed = sum(entry.file_size for entry in entries)
    if claimed > Path(path).stat().st_size:
        raise ValueError(
            f"{path} is compressed, to {claimed:,} bytes, as no file of torch.save is; give {option} {FORMATS}"
        )
    if any(entry.filename.endswith("/constants.pkl") for entry in entries):
        raise ValueError(
            f'{path} is a TorchScript archive, which is code; write its weights: python -c "import torch; torch.'
            f"save(torch.jit.load('{path}').state_dict(), '{_name_new_file(path)}')\", and give {option} that file"
        )
    if entries and all(entry.filename.endswith(".npy") for entry in entries):
        raise ValueError(f"{path} is a NumPy archive; give {option} {FORMATS}")


def _explain_refusal(path: str, error: str) -> str:
    """Say what a file holds that would run code, and the command that writes its weights alone."""
    name = error.partition("GLOBAL ")[2].split(" ")[0].rstrip(".,`") or "code"
    key = next((key for key in WEIGHT_KEYS if key in _list_strings(path)), "state_dict")
    script = (
        f"import torch; c = torch.load('{path}', weights_only=False); c = c.get('{key}', c) if isinstance(c, dict) "
        f"else c; torch.save(c if isinstance(c, dict) else c.state_dict(), '{_name_new_file(path)}')"
    )
    return (
        f"{path} holds more than weights ({name}), and reading that would run code of the file; where you trained it, "
        f'and if you trust it, write the weights alone: python -c "{script}"'
    )


def _list_strings(path: str) -> set[str]:
    """List the strings in the pickle of a zip file of torch.save, without loading it."""
    try:
        with zipfile.ZipFile(path) as archive:
            entry = next(entry for entry in archive.infolist() if entry.filename.endswith("data.pkl"))
            if entry.file_size > MAX_PICKLE_BYTES:
                return set()
            return {argument for _, argument, _ in pickletools.genops(archive.read(entry)) if isinstance(argument, str)}
    except Exception:  # the refusal names the file already; this only looks for a better line to write
        return set()


def _name_new_file(path: str) -> str:
    return f"{Path(path).stem}-weights.pt"


def _take_state_dict(path: str, content: Any) -> Checkpoint:
    """Take the weights of a network out of what a file holds."""
    place, tensors, others = _find_state_dict(content)
    name = Path(path).name
    if tensors is None:
        keys = ", ".join(map(repr, [*content][:8])) if isinstance(content, Mapping) else type(content).__name__
        raise ValueError(
            f"{path} holds no state dict of one network, but {keys or 'nothing'}; write torch.save(model.state_dict(), "
            f"'weights.pt')"
        )
    # values of other kinds are extra states of layers, which no network of memscore has
    taken = {key: value.detach() for key, value in tensors.items() if isinstance(value, Tensor)}
    note = f"of the PyTorch file {name} its {place!r} was taken" if place else f"{name} is a PyTorch state dict"
    if others:
        note += f"; the file has {', '.join(map(repr, others))} too"
    if len(taken) < len(tensors):
        note += f"; {len(tensors) - len(taken)} entries that are no tensors were left out"
    return Checkpoint(tensors=taken, note=note)


def _find_state_dict(content: Any) -> tuple[str, Mapping[str, Any] | None, list[str]]:
    """Find the weights in a checkpoint: the key they lie under, themselves, and the keys of other weights in it."""
    if not isinstance(content, Mapping):
        return "", None, []
    inner = {key: value for key, value in content.items() if isinstance(key, str) and _is_state_dict(value)}
    known = [key for key in WEIGHT_KEYS if key in inner]
    if known:
        return known[0], inner[known[0]], known[1:]
    for key in WEIGHT_KEYS:  # one level further down, as in {"model": {"state_dict": ...}}
        if isinstance(content.get(key), Mapping):
            place, tensors, others = _find_state_dict(content[key])
            if tensors is not None:
                return f"{key}/{place}" if place else key, tensors, others
    if _is_state_dict(content):
        return "", content, []
    if len(inner) == 1:
        key = next(iter(inner))
        return key, inner[key], []
    return "", None, []


def _is_state_dict(value: Any) -> bool:
    """Whether a value maps names to tensors, most of them at least."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        return False
    return any(isinstance(part, Tensor) for part in value.values())
