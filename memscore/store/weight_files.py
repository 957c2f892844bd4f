"""Weights as safetensors files with a hash of their content."""

import hashlib
import json
import operator
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from memscore.store.parquet import CorruptFile

if TYPE_CHECKING:
    from torch import Tensor


def encode_weights(tensors: Mapping[str, "Tensor"]) -> bytes:
    """Encode tensors as a safetensors file with a hash over names, types, shapes and bits."""
    from safetensors.torch import save  # torch takes seconds to import, and only weights need it

    # Saved twice: the hash is over the tensors as they lie in the file, and stands in its header.
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content: bytes = save(contiguous, {"sha256": _hash_tensors(save(contiguous))})
    return content


def hash_weights(tensors: Mapping[str, "Tensor"]) -> str:
    """Hash tensors over their names, types, shapes and bits, as encode_weights does."""
    from safetensors.torch import save  # as above

    return _hash_tensors(save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}))


def decode_weights(content: bytes) -> "dict[str, Tensor]":
    """Decode a file to its tensors on the CPU, by name; CorruptFile if the hash over them does not match."""
    from safetensors.torch import load  # as above

    check_weights(content)
    tensors: dict[str, Tensor] = load(content)
    return tensors


def check_weights(content: bytes) -> None:
    """Raise CorruptFile unless the tensors in a file give its hash; torch is not needed."""
    from safetensors import SafetensorError  # a bank without originals has no weights, and may run where it is missing

    # A safetensors file begins with the length of its JSON header, 8 bytes, little-endian.
    try:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        stated, actual = header["__metadata__"]["sha256"], _hash_tensors(content)
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CorruptFile(f"no readable weights: {type(error).__name__} {error}") from error
    if stated != actual:
        raise CorruptFile("the weights do not give the sha256 in the header")


def _hash_tensors(content: bytes) -> str:
    """Hash the tensors of a safetensors file, sorted by name."""
    import safetensors  # as above

    digest = hashlib.sha256()
    tensors: list[tuple[str, dict[str, Any]]] = safetensors.deserialize(content)  # type: ignore[no-untyped-call]
    for name, tensor in sorted(tensors, key=operator.itemgetter(0)):
        digest.update(f"{name}|{tensor['dtype']}|{tensor['shape']}|".encode())
        digest.update(tensor["data"])
    return digest.hexdigest()
