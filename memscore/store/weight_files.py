"""Weights as safetensors files with a hash of their content."""

import hashlib
import json
import operator
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from memscore.store.parquet import CorruptFile

if TYPE_CHECKING:
    from torch import Tensor

HASH_AND_KEY = "sha256"
"""Metadata entry: the hash, and after a blank the key of the model whose weights they are, which is the file's name."""


def encode_weights(tensors: Mapping[str, "Tensor"], key: str = "") -> bytes:
    """Encode tensors as a safetensors file with a hash over names, types, shapes and bits, and the model's key."""
    from safetensors.torch import save  # torch takes seconds to import, and only weights need it

    # Saved twice: the hash is over the tensors as they lie in the file, and stands in its header.
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # one entry for both: safetensors writes several in an order that changes from file to file
    content: bytes = save(contiguous, {HASH_AND_KEY: f"{_hash_tensors(save(contiguous), key)} {key}".rstrip()})
    return content


def hash_weights(tensors: Mapping[str, "Tensor"]) -> str:
    """Hash tensors over their names, types, shapes and bits, as encode_weights does."""
    from safetensors.torch import save  # as above

    return _hash_tensors(save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}))


def decode_weights(content: bytes, key: str = "") -> "dict[str, Tensor]":
    """Decode a file to its tensors on the CPU, by name; CorruptFile if the hash does not match, or it is another's."""
    from safetensors.torch import load  # as above

    if fault := find_key_fault(check_weights(content), key):
        raise CorruptFile(fault)
    tensors: dict[str, Tensor] = load(content)
    return tensors


def find_key_fault(stated: str, key: str) -> str:
    """Find out whether weights are those of another model than their file's name says; empty if not, or not known.

    Versions before 0.2 wrote no key.
    """
    return f"it is the file of {stated}" if stated and key and stated != key else ""


def check_weights(content: bytes) -> str:
    """Return a file's key; raise CorruptFile unless its tensors and key give its hash. torch is not needed."""
    from safetensors import SafetensorError  # a bank without originals has no weights, and may run where it is missing

    # A safetensors file begins with the length of its JSON header, 8 bytes, little-endian.
    try:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        stated, _, key = str(header["__metadata__"][HASH_AND_KEY]).partition(" ")
        actual = _hash_tensors(content, key)
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CorruptFile(f"no readable weights: {type(error).__name__} {error}") from error
    if stated != actual:
        raise CorruptFile("the weights do not give the sha256 in the header")
    return key


def _hash_tensors(content: bytes, key: str = "") -> str:
    """Hash the tensors of a safetensors file, sorted by name, after the model's key."""
    import safetensors  # as above

    digest = hashlib.sha256(key.encode())
    tensors: list[tuple[str, dict[str, Any]]] = safetensors.deserialize(content)  # type: ignore[no-untyped-call]
    for name, tensor in sorted(tensors, key=operator.itemgetter(0)):
        digest.update(f"{name}|{tensor['dtype']}|{tensor['shape']}|".encode())
        digest.update(tensor["data"])
    return digest.hexdigest()
