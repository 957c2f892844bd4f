"""The store of one bank: the predictions of every model and everything computed from them.

file_kinds.py lists every kind of file. Files are whole or absent, shards never change, and equal columns give equal
bytes: they hold no time, host or path (data.json, which says where the data lie, has no columns). The methods that read
and write each kind stand here, which is why the file is long; the module of each kind encodes and checks it.
"""

import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from cluster.leftovers import remove_leftovers
from memscore.choices import validate_choice
from memscore.score_registry import get_estimator_version, make_alias, resolve_alias
from memscore.store.block_reader import Block, read_blocks, read_columns, require_ascending, resolve_slice
from memscore.store.class_names import find_class_names, name_labels
from memscore.store.damage_error import name_damage
from memscore.store.filesystem import Folder, acquire_lock
from memscore.store.influence_files import find_influence_path, require_fresh_influence
from memscore.store.json_records import add_arm, encode_record, read_record, read_records
from memscore.store.manifest import Manifest, require_matching_rows
from memscore.store.manifest_file import read_manifest, require_own_manifest, require_own_shards, require_same_store
from memscore.store.own_tables import encode_own_table, encode_table, read_own_table, require_same_examples
from memscore.store.parquet import (
    Columns,
    CorruptFile,
    decode_metadata,
    encode,
    open_parquet,
    to_columns,
    to_table,
)
from memscore.store.score_files import (
    build_version_metadata,
    encode_score,
    orient_score,
    require_fresh_score,
    validate_score_name,
)
from memscore.store.shards import (
    ShardCheck,
    build_shard_path,
    check_columns,
    check_shard,
    check_shards,
    compute_run_hash,
    compute_stored_digest,
    parse_model_index,
)
from memscore.store.weight_files import decode_weights, encode_weights

if TYPE_CHECKING:
    from torch import Tensor


Receipts = Mapping[str, Mapping[str, Any]]
"""Receipts by model, as Store.receipts returns them."""


class Store:
    """One folder, local or on any file system that pyarrow opens; made by create or open."""

    def __init__(self, folder: Folder, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self._run_hashes: dict[str, str] = {}

    @classmethod
    def create(
        cls,
        url: str | os.PathLike[str],
        manifest: Manifest,
        examples: pa.Table,
        origin: Mapping[str, Any] | None = None,
    ) -> "Store":
        """Open the store at a location, or create it.

        Args:
            url: path or URL.
            manifest: identity of the store.
            examples: one row for each row of a shard, with at least the columns row and id.
            origin: where the data were read and how; see write_origin.

        Returns:
            The store.

        Raises:
            ValueError: a store of another identity exists, or shards without a manifest, or examples of another length.
        """
        require_matching_rows(manifest, examples)
        store = cls.open_or_plan(url, manifest)
        store.create_files(examples, origin)
        return store

    @classmethod
    def open_or_plan(cls, url: str | os.PathLike[str], manifest: Manifest) -> "Store":
        """Open the store at a location, or return one that is not created yet; ValueError as for create."""
        folder = Folder.from_url(url)
        if not folder.exists("manifest.json", retry_s=0):
            require_own_shards(folder, manifest.digest)
            folder.require_bucket()
            return cls(folder, manifest)
        store = cls.open(url)
        require_same_store(folder, store.manifest, manifest)
        return store

    @property
    def is_created(self) -> bool:
        """Whether the store exists."""
        return self.folder.exists("manifest.json")

    def create_files(self, examples: pa.Table, origin: Mapping[str, Any] | None = None) -> None:
        """Write those of the files common to all stores that are missing; ValueError as for create."""
        require_matching_rows(self.manifest, examples)
        if not (existed := self.is_created):
            self.folder.create()
            self.folder.replace("examples.parquet", encode_own_table(examples, self.manifest.digest))
            self.folder.publish("manifest.json", self.manifest.to_json().encode())
        self.manifest = Store.open_or_plan(self.url, self.manifest).manifest  # another process may have created it
        # it may have been moved to damaged/
        if existed and not self.folder.publish("examples.parquet", encode_own_table(examples, self.manifest.digest)):
            require_same_examples(self.folder, self.examples(), examples)
        if origin:
            self.write_origin(origin)

    @classmethod
    def open(cls, url: str | os.PathLike[str], retry_s: float = 0.0, *, check_manifest: bool = False) -> "Store":
        """Open the store at a location.

        Args:
            url: path or URL.
            retry_s: how long requests to an unreachable server are retried, in seconds; 0 at the start of a command.
            check_manifest: compare the manifest with a shard, as a command does that would train or judge by it.

        Returns:
            The store.

        Raises:
            FileNotFoundError: there is none.
            ValueError: its manifest is damaged or another store's (CorruptManifest), or of another version.
        """
        folder = Folder.from_url(url, retry_s)
        store = cls(folder, read_manifest(folder, retry_s))
        if check_manifest:
            require_own_manifest(folder, store.manifest.digest)
        return store

    @property
    def url(self) -> str:
        """Location of the store, in the form that open reads."""
        return self.folder.url

    @contextmanager
    def lock(self) -> Generator[None, None, None]:
        """Lock the store; BlockingIOError names the process that holds it. None on object stores.

        What killed runs left is removed, in the store and in the folder for temporary files.
        """
        with acquire_lock(self.folder):
            self.folder.remove_temporary_files()
            remove_leftovers()
            yield

    def examples(self) -> pa.Table:
        """Read one row for each row of a shard: row, id, split, label, label_true, cluster."""
        return self.read_table("examples.parquet")

    def write_origin(self, origin: Mapping[str, Any]) -> None:
        """Store where the data were read and how; it is no part of the identity, for data may be moved."""
        stored = self.read_origin()
        content = encode_record({**(stored or {}), **origin})
        if stored is None or content != encode_record(stored):
            self.folder.replace("data.json", content)

    def read_origin(self) -> dict[str, Any] | None:
        """Read where the data were read and how; None in a store of 0.1.0, or where the record is damaged."""
        try:
            return read_record(self.folder, "data.json")
        except (FileNotFoundError, CorruptFile):
            return None

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each class, in the order of the labels; its number where the data have no names."""
        return find_class_names(self.read_origin(), self.manifest.n_classes)

    def write_clusters(self, clusters: np.ndarray, metadata: Mapping[str, str] | None = None) -> bool:
        """Store the cluster of each train example, int32 [n], and its source; False if it exists."""
        return self._publish("clusters.parquet", {"cluster": np.asarray(clusters, dtype=np.int32)}, metadata or {})

    def clusters(self) -> np.ndarray | None:
        """Read the cluster of each train example, int32 [n]; None if none are stored."""
        if not self.folder.exists("clusters.parquet"):
            return None
        return self._read_columns("clusters.parquet")["cluster"]

    def read_clusters_source(self) -> str | None:
        """Read the source of the stored clusters; None if none are stored."""
        if not self.folder.exists("clusters.parquet"):
            return None
        # Older files have no source.
        return decode_metadata(self.read_table("clusters.parquet").schema).get("made_from", "pixels")

    def add_arm(self, arm: Mapping[str, Any]) -> dict[str, Any]:
        """Store an arm and return its record with the suffix; see json_records.add_arm."""
        return add_arm(self.folder, arm)

    def arms(self) -> dict[str, dict[str, Any]]:
        """Read every stored arm by its name."""
        return read_records(self.folder, "arms")

    def compute_run_hash(self, arm_name: str) -> str:
        """Hash the manifest and an arm to the 16 hex digits in each of its shards."""
        if arm_name not in self._run_hashes:
            names = [name.removesuffix(".json") for name in self.folder.names("arms")]
            record = read_record(self.folder, f"arms/{validate_choice('arm', arm_name, names)}.json")
            self._run_hashes[arm_name] = compute_run_hash(self.manifest.digest, record)
        return self._run_hashes[arm_name]

    def write_shard(self, model: str, arm_name: str, columns: Columns) -> bool:
        """Publish the predictions of one model for every example.

        Args:
            model: its name, format_model_name(arm_name, index).
            arm_name: a stored arm.
            columns: SHARD_COLUMNS, then those of further queries; one value for each row of train, validation and test.

        Returns:
            True if this call wrote the shard, False if it existed.

        Raises:
            ValueError: a model of another arm, or columns that are not a shard's (see shards.check_columns).
        """
        if parse_model_index(model, arm_name) is None:
            raise ValueError(f"model {model!r} is none of arm {arm_name!r}, whose models are as {arm_name}-00042")
        check_columns(columns, self.manifest.n_rows, self.manifest.imported)
        return self._publish(
            f"shards/{model}.parquet", columns, {**self.build_shard_metadata(arm_name), "model": model}
        )

    def read_shard_columns(self, arm_name: str, index: int) -> list[str]:
        """Read the column names of one model's shard, which are those of all models of its arm."""
        with self.folder.open(build_shard_path(arm_name, index)) as stream:
            return list(open_parquet(stream).schema_arrow.names)

    def read_shard_digest(self, arm_name: str, index: int) -> str:
        """Read content_sha256 from a shard's footer; raise CorruptFile if it is not this shard."""
        return check_shard(
            self.folder,
            build_shard_path(arm_name, index),
            self.build_shard_metadata(arm_name),
            self.manifest.n_rows,
            verify=False,
        )

    def has_shard(self, model: str) -> bool:
        """Return whether a shard of that name is stored, valid or not."""
        return self.folder.exists(f"shards/{model}.parquet")

    def build_shard_metadata(self, arm_name: str) -> dict[str, str]:
        """Return the metadata that the footer of every shard of an arm holds."""
        return {"run_hash": self.compute_run_hash(arm_name), "schema_version": str(self.manifest.schema_version)}

    def check(self, arm_name: str, verify: bool = True) -> ShardCheck:
        """Sort an arm's shards into valid and damaged; verify hashes all bytes, not only footers."""
        return check_shards(self.folder, arm_name, self.build_shard_metadata(arm_name), self.manifest.n_rows, verify)

    def compute_shards_digest(self, arm_name: str) -> str:
        """Hash the valid shards of an arm, as scores carry it; see shards.compute_stored_digest."""
        expected = self.build_shard_metadata(arm_name)
        return compute_stored_digest(self.folder, arm_name, expected, self.manifest.n_rows)

    def find_valid_shards(self, arm_name: str, verify: bool = True) -> dict[int, str]:
        """Return model index -> content_sha256 of each valid shard of an arm, ascending."""
        return self.check(arm_name, verify).valid

    def quarantine(self, path: str) -> str:
        """Move a damaged file to damaged/<name>-<n> and return that path."""
        return self.folder.quarantine(path)

    def read_blocks(
        self,
        arm_name: str,
        indices: Sequence[int],
        columns: Sequence[str],
        rows: slice | None = None,
        max_bytes: int = 256 * 2**20,
    ) -> Iterator[Block]:
        """Read models x examples, a block of examples at a time.

        Args:
            arm_name: a stored arm.
            indices: of models, ascending: the order of the first axis.
            columns: names of shard columns.
            rows: start and stop within train, validation, test; all of train if None.
            max_bytes: memory of a block and the one before it together.

        Returns:
            Blocks in the order of rows. A page that fails its checksum raises CorruptFile.

        Raises:
            ValueError: no models, models out of order, or rows that do not exist.
        """
        shards = [build_shard_path(arm_name, index) for index in require_ascending(indices)]
        train = slice(0, self.manifest.split_sizes[0])
        return read_blocks(self.folder, shards, columns, resolve_slice(rows or train, self.manifest.n_rows), max_bytes)

    def write_events(self, name: str, columns: Columns) -> bool:
        """Store a model's learning events, [N] per column, NaN if undefined; False if they exist."""
        return self._publish(f"events/{name}.parquet", columns, {"model": name})

    def read_events(self, name: str) -> dict[str, np.ndarray]:
        """Read the learning events of one model."""
        return self._read_columns(f"events/{name}.parquet")

    def has_events(self, name: str) -> bool:
        """Return whether the learning events of a model are stored."""
        return self.folder.exists(f"events/{name}.parquet")

    def write_receipt(self, model: str, receipt: Mapping[str, Any]) -> None:
        """Store seconds, worker, device, versions and accuracies of a model over an earlier receipt."""
        self.folder.replace(f"receipts/{model}.json", encode_record(receipt))

    def receipts(self) -> dict[str, dict[str, Any]]:
        """Read every receipt by its model."""
        return read_records(self.folder, "receipts")

    def read_receipt(self, model: str) -> dict[str, Any] | None:
        """Read the receipt of one model; None if there is none."""
        path = f"receipts/{model}.json"
        return read_record(self.folder, path) if self.folder.exists(path) else None

    def write_failure(self, model: str, failure: Mapping[str, Any]) -> None:
        """Store why training failed; a model with kind "diverged" is never trained again."""
        self.folder.replace(f"failures/{model}.json", encode_record({"model": model, **failure}))

    def failures(self) -> dict[str, dict[str, Any]]:
        """Read every failure by its model."""
        return read_records(self.folder, "failures")

    def clear_failure(self, model: str) -> None:
        """Delete the failure of a model that was trained since."""
        self.folder.remove(f"failures/{model}.json")

    def write_weights(self, key: str, tensors: "Mapping[str, Tensor]") -> bool:
        """Store a model's tensors; False if they exist."""
        return self.folder.publish(f"weights/{key}.safetensors", encode_weights(tensors, key))

    def read_weights(self, key: str) -> "dict[str, Tensor]":
        """Read a model's tensors to the CPU, verified."""
        with name_damage(self.folder, path := f"weights/{key}.safetensors"):
            return decode_weights(self.folder.read(path), key)

    def has_weights(self, key: str) -> bool:
        """Return whether a model's tensors are stored."""
        return self.folder.exists(f"weights/{key}.safetensors")

    def write_outputs(self, key: str, logits: np.ndarray, embeddings: np.ndarray) -> bool:
        """Store a model's logits [N, K] and embeddings [N, E], float32; False if they exist."""
        columns = {"logits": np.asarray(logits, np.float32), "embeddings": np.asarray(embeddings, np.float32)}
        return self._publish(f"outputs/{key}.parquet", columns, {"model": key})

    def read_outputs(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        """Read a model's logits [N, K] and embeddings [N, E]."""
        columns = self._read_columns(f"outputs/{key}.parquet")
        return columns["logits"], columns["embeddings"]

    def read_logits(self, key: str) -> np.ndarray:
        """Read a model's logits [N, K] alone, without embeddings that may be a hundred times as large."""
        columns = read_columns(self.folder, path := f"outputs/{key}.parquet", ["logits"])
        with name_damage(self.folder, path):
            if len(columns.get("logits", ())) != self.manifest.n_rows:
                raise CorruptFile(f"it has no logits of {self.manifest.n_rows} examples")
        return columns["logits"]

    def has_outputs(self, key: str) -> bool:
        """Return whether a model's outputs are stored."""
        return self.folder.exists(f"outputs/{key}.parquet")

    def scores(self, *, aliases: bool = False) -> pa.Table:
        """Read scores.parquet, one row for each training example, with the names of the labels' classes.

        Args:
            aliases: give columns names without a dot, as SQL and pandas take them: memorization_k0_500.

        Returns:
            The stored table and the columns label_name and label_true_name.

        Raises:
            FileNotFoundError: the bank has no scores yet.
        """
        if not self.folder.exists("scores.parquet"):
            raise FileNotFoundError(f"{self.folder.display_name} has no scores yet; run {self.rebuild_command}")
        table = name_labels(self.read_table("scores.parquet"), self.class_names)
        return table.rename_columns([make_alias(name) for name in table.column_names]) if aliases else table

    def write_score(
        self,
        name: str,
        columns: Columns,
        fields: Mapping[str, Mapping[str, Any]],
        metadata: Mapping[str, str],
        digest: str,
    ) -> None:
        """Write scores/<name>.parquet, over an existing one; see score_files.encode_score.

        Args:
            name: the score's name, also of its main column.
            columns: name -> [n], NaN where undefined.
            fields: for each column its source, unit and direction.
            metadata: "arm" names the arm it was computed from, so that store.score can detect a stale score.
            digest: hash_shards of the shards it was computed from.
        """
        ids = np.array(self.examples()["id"].to_pylist(), dtype=np.str_)
        version = build_version_metadata(get_estimator_version(name))
        content = encode_score(name, columns, ids, fields, {**metadata, "shards_digest": digest, **version})
        self.folder.replace(f"scores/{name}.parquet", content)

    def score(self, name: str, digest: str | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Read one score, with its sign such that higher is more memorized or riskier.

        Args:
            name: a stored score, or its alias, such as memorization_k0_500.
            digest: required hash_shards of its shards; that of its arm's present shards if None.

        Returns:
            ids [n], and float64 [n] with NaN where the score is undefined.

        Raises:
            ValueError: no such score, a stale one, or one without a direction.
        """
        name = self.find_score_name(name)
        table = self.read_score(name)
        self.require_fresh(name, table, digest)
        return orient_score(table, name)

    def require_fresh(self, name: str, table: pa.Table, digest: str | None = None) -> None:
        """Raise ValueError if a score has another digest than this (None: the stored shards), or another version."""
        metadata = decode_metadata(table.schema)
        if digest is None and "arm" in metadata:
            digest = self.compute_shards_digest(metadata["arm"])
        require_fresh_score(name, metadata, digest, self.rebuild_command)

    def find_score_name(self, name: str) -> str:
        """Find the stored score that a name or its alias names; a name of none comes back."""
        return resolve_alias(name, [file.removesuffix(".parquet") for file in self.folder.names("scores")])

    def read_score(self, name: str) -> pa.Table:
        """Read a score's table (row, id, values), stale or not; errors offer the nearest name."""
        names = [file.removesuffix(".parquet") for file in self.folder.names("scores")]
        command = "" if self.manifest.imported else f"python -m memscore.estimate --store {self.folder.display_name}"
        name = validate_score_name(name, names, self.folder.display_name, self.rebuild_command, command)
        return self.read_table(f"scores/{name}.parquet")

    def read_score_digest(self, name: str) -> str:
        """Read the digest of the shards that a stored score was computed from."""
        return decode_metadata(self.read_score(name).schema)["shards_digest"]

    def write_influence(self, name: str, table: pa.Table) -> None:
        """Write influence/<name>.parquet over an existing one, and a record of its options."""
        self.write_table(f"influence/{name}.parquet", table)
        self.folder.replace(f"reports/influence_{name}.json", encode_record(decode_metadata(table.schema)))

    def read_influence(self, name: str) -> pa.Table:
        """Read an influence table, such as test_k0.500; ValueError if there is none, or a stale one."""
        table = self.read_table(find_influence_path(self.folder, name))
        digest = self.compute_shards_digest(decode_metadata(table.schema)["arm"])
        require_fresh_influence(self.folder, name, table, digest)
        return table

    def scenarios(self) -> list[str]:
        """List the paths, within this store, of the stores of forget sets that change the data."""
        return [f"scenarios/{name}" for name in self.folder.folders("scenarios")]

    def write_table(self, relpath: str, table: pa.Table) -> None:
        """Write a derived table, such as models.parquet, over an existing one."""
        self.folder.replace(relpath, encode_table(relpath, table, self.manifest.digest))

    def read_table(self, relpath: str) -> pa.Table:
        """Read a table of the store, every byte verified; CorruptFile names the file, FileNotFoundError what to do."""
        return read_own_table(self.folder, relpath, self.manifest)

    @property
    def rebuild_command(self) -> str:
        """The command that computes the scores again."""
        if self.manifest.imported:
            return f"`python -m memscore.bank import {self.folder.display_name}` with the arrays that it was made from"
        return f"`python -m memscore.estimate --store {self.folder.display_name}` with the flags it was filled with"

    def _publish(self, relpath: str, columns: Columns, metadata: Mapping[str, str]) -> bool:
        """Write columns unless the file exists."""
        return self.folder.publish(relpath, encode(to_table(columns, metadata)))

    def _read_columns(self, relpath: str) -> dict[str, np.ndarray]:
        """Read the columns of a file, verified."""
        return to_columns(self.read_table(relpath))
