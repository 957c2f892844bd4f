"""The manifest: the data, model and seed that every file of a store belongs to."""

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from memscore.store.json_records import decode_record, encode_record, hash_record
from memscore.store.record_schemas import find_record_fault
from memscore.store.remote import join_url

SCHEMA_VERSION = 1
IMPORTED = "imported"
"""The architecture of an imported bank; its recipe says which numbers were given."""


PRETRAINED = "+pretrained-"
"""Between the name of an architecture and the hash of the weights that its models start from."""


class CorruptManifest(ValueError):
    """A manifest.json that is not what was written, as opposed to one of another version."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Identity of a store; immutable.

    The number of models, the place of the store and the versions of libraries are no part of it.

    Attributes:
        fingerprint: hash of the images, labels and ids of all splits.
        data: the data set's name or path.
        split_sizes: examples in train, validation and test, which is also the order of rows in every shard.
        n_classes: number of classes.
        input_shape: channels, height, width.
        mean: per channel, of train images in [0, 1].
        std: per channel, of train images in [0, 1].
        label_changes: changes to the labels, such as {"label_noise": 0.05}.
        architecture: name in the table of architectures.
        recipe: every field of the recipe.
        precision: float32, tf32, bfloat16 or bfloat16-products.
        seed: the root seed.
        schema_version: layout of the files.
    """

    fingerprint: str
    data: str
    split_sizes: tuple[int, int, int]
    n_classes: int
    input_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    label_changes: dict[str, Any]
    architecture: str
    recipe: dict[str, Any]
    precision: str
    seed: int
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        """Convert every value to its form after a round trip through JSON."""
        for field in ("label_changes", "recipe"):
            text = json.dumps(getattr(self, field), allow_nan=False, sort_keys=True)  # the same order in every process
            object.__setattr__(self, field, json.loads(text))
        for field in ("split_sizes", "input_shape", "mean", "std"):
            object.__setattr__(self, field, tuple(getattr(self, field)))

    def record(self) -> dict[str, Any]:
        """Return all fields as a dict."""
        return asdict(self)

    def identity(self) -> dict[str, Any]:
        """Return the fields that decide whether two stores are the same: all but `data`.

        The fingerprint identifies the data, whatever its name.
        """
        # the seed first: if it differs, the validation set and the fingerprint differ too
        return {"seed": self.seed, **{name: value for name, value in self.record().items() if name != "data"}}

    @property
    def digest(self) -> str:
        """Hash of the identity, 64 hex digits."""
        return hash_record(self.identity())

    @property
    def imported(self) -> bool:
        """Whether the models were trained elsewhere and imported."""
        return self.architecture == IMPORTED

    @property
    def n_rows(self) -> int:
        """Rows of a shard: train, validation and test."""
        return sum(self.split_sizes)

    def to_json(self) -> str:
        """Encode all fields as readable JSON with a hash that detects changes."""
        return encode_record(self.record()).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> "Manifest":
        """Decode a manifest that to_json wrote.

        Args:
            text: the file's content.

        Returns:
            An equal manifest.

        Raises:
            CorruptManifest: not what was written, or no manifest.
            ValueError: another schema version.
        """
        try:
            record = decode_record(text)
        except ValueError as error:
            raise CorruptManifest(str(error)) from None
        version = record.get("schema_version")
        if not isinstance(version, int) or isinstance(version, bool):
            raise CorruptManifest("it has no schema_version")
        if version != SCHEMA_VERSION:
            raise ValueError(
                f"schema version {version} cannot be read, only {SCHEMA_VERSION}; use the memscore that wrote it"
            )
        if fault := find_record_fault("manifest.json", record):
            raise CorruptManifest(fault)
        return cls(**record)


def compute_original_key(
    manifest: Manifest, *, removed: Iterable[str | int] = (), labels: Mapping[str, int] | None = None, index: int = 0
) -> str:
    """Hash the identity of a model trained on all examples but some: an original or an oracle.

    Args:
        manifest: gives the fingerprint of the data, architecture, recipe, precision and root seed.
        removed: the examples left out, in any order; none for an original. Ids and rows give different keys.
        labels: id -> label of examples trained with another label than the data set's.
        index: which of the models that differ in nothing but their seed.

    Returns:
        64 hex digits.
    """
    shared = {name: getattr(manifest, name) for name in ("fingerprint", "architecture", "recipe", "precision", "seed")}
    left_out = sorted(set(removed), key=lambda example: (str(type(example)), example))
    return hash_record({**shared, "removed": left_out, "labels": dict(labels or {}), "index": index})


def name_pretrained(arch: str, digest: str) -> str:
    """Name an architecture whose models start from weights with this hash."""
    return f"{arch}{PRETRAINED}{digest[:12]}"


def split_architecture(name: str) -> tuple[str, str]:
    """Split resnet18+pretrained-0123456789ab into the network's name and the hash of its start weights, or ""."""
    arch, _, digest = name.partition(PRETRAINED)
    return arch, digest


def compute_start_key(architecture: str) -> str:
    """Compute the key under which the start weights of an architecture are stored; empty if it has none."""
    digest = split_architecture(architecture)[1]
    return hash_record({"pretrained": digest}) if digest else ""


def get_home_url() -> str:
    """Return the folder or URL of a user's stores: $MEMSCORE_HOME, else ~/memscore."""
    return os.environ.get("MEMSCORE_HOME") or str(Path("~/memscore").expanduser())


def build_default_url(data: str, arch: str, recipe: str, manifest: Manifest) -> str:
    """Return the default location of a store, named after its identity.

    It lies in $MEMSCORE_HOME or ~/memscore.

    Args:
        data: name or path of the data set; of a path only its last part is taken.
        arch: name of the architecture.
        recipe: name of the recipe.
        manifest: its digest ends the name.

    Returns:
        A path, or a URL if $MEMSCORE_HOME is one.
    """
    home = get_home_url()
    parts = (Path(data).name or "data", arch, recipe, manifest.digest[:8])
    name = "-".join(re.sub(r"[^A-Za-z0-9._]+", "-", part) for part in parts)
    return join_url(home, name)


def require_matching_rows(manifest: Manifest, examples: pa.Table) -> None:
    """Raise if the table of examples does not have the manifest's number of rows."""
    if len(examples) != manifest.n_rows:
        raise ValueError(f"the splits have {manifest.n_rows} rows but the table of examples has {len(examples)}")
