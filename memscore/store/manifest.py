"""What a store is: the data, the model and the seed that every file in it belongs to."""

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from memscore.store.json_records import decode_record, encode_record, hash_record

SCHEMA_VERSION = 1
IMPORTED = "imported"
"""The architecture of a bank that somebody else trained; its recipe says which numbers were given."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The identity of a store; immutable. How many models, where and with which versions is no part of it.

    Attributes:
        fingerprint: hash of the images, labels and ids of all splits.
        data: the data set's name or path.
        split_sizes: examples in train, validation and test, which is also the order of rows in every shard.
        n_classes: number of classes.
        input_shape: channels, height, width.
        mean: per channel, of train images in [0, 1].
        std: per channel, of train images in [0, 1].
        label_changes: what was done to the labels, such as {"label_noise": 0.05}.
        architecture: name in the table of architectures.
        recipe: every field of the recipe.
        precision: float32 or bfloat16.
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
        """Bring every value to the form that it has after a trip through JSON."""
        for field in ("label_changes", "recipe"):
            plain = json.dumps(getattr(self, field), allow_nan=False, sort_keys=True)  # in one order in every process
            object.__setattr__(self, field, json.loads(plain))
        for field in ("split_sizes", "input_shape", "mean", "std"):
            object.__setattr__(self, field, tuple(getattr(self, field)))

    def record(self) -> dict[str, Any]:
        """All fields as a dict."""
        return asdict(self)

    def identity(self) -> dict[str, Any]:
        """What two banks must have in common to be one: all fields but the name, since the fingerprint is the data."""
        # the seed first: where it differs, the validation set and with it the fingerprint differ too
        return {"seed": self.seed, **{name: value for name, value in self.record().items() if name != "data"}}

    @property
    def digest(self) -> str:
        """Hash of the identity, 64 hex digits."""
        return hash_record(self.identity())

    @property
    def imported(self) -> bool:
        """Whether somebody else trained the models."""
        return self.architecture == IMPORTED

    @property
    def n_rows(self) -> int:
        """Rows of a shard: train, validation and test."""
        return sum(self.split_sizes)

    def to_json(self) -> str:
        """All fields, readable, and a hash that finds a changed one."""
        return encode_record(self.record()).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> "Manifest":
        """The manifest that to_json wrote.

        Args:
            text: the file's content.

        Returns:
            An equal manifest.

        Raises:
            ValueError: not what was written, fields missing or unknown, or another schema version.
        """
        record = decode_record(text)
        version = record.get("schema_version")
        if version != SCHEMA_VERSION:
            raise ValueError(
                f"schema version {version} cannot be read, only {SCHEMA_VERSION}; use the memscore that wrote it"
            )
        names = {field.name for field in fields(cls)}
        if names != set(record):
            raise ValueError(f"a manifest has exactly the fields {sorted(names)}, got {sorted(record)}")
        return cls(**record)


def compute_original_key(
    manifest: Manifest, *, removed: Iterable[str | int] = (), labels: Mapping[str, int] | None = None, index: int = 0
) -> str:
    """The name of one model trained on everything but some examples: an original, or the oracle of a forget set.

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


def build_default_url(data: str, arch: str, recipe: str, manifest: Manifest) -> str:
    """Where a store lies unless told: in $MEMSCORE_HOME or ~/memscore, named after what it is.

    Args:
        data: name or path of the data set; of a path only its last part is taken.
        arch: name of the architecture.
        recipe: name of the recipe.
        manifest: its digest ends the name.

    Returns:
        A path, or a URL if $MEMSCORE_HOME is one.
    """
    home = os.environ.get("MEMSCORE_HOME") or str(Path("~/memscore").expanduser())
    parts = (Path(data).name or "data", arch, recipe, manifest.digest[:8])
    name = "-".join(re.sub(r"[^A-Za-z0-9._]+", "-", part) for part in parts)
    place, mark, options = home.partition("?") if "://" in home else (home, "", "")
    return f"{place.rstrip('/')}/{name}{mark}{options}"
