"""Read and write an original's proxies: one file and one receipt per proxy.

A file is events/<key>-<ending>.parquet, where the ending is the proxy's name. Gradient inversion is stored in several
files, so that many workers share it; its ending also identifies its settings, so that other settings give other files.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from memscore.proxies.gradient_inversion import InversionConfig
from memscore.proxies.registry import PROXIES
from memscore.seeds import generator
from memscore.store.json_records import hash_record, omit_new_defaults
from memscore.store.parquet import decode_metadata
from memscore.store.store import Receipts, Store

Columns = dict[str, np.ndarray]

CANDIDATES_PER_FILE = 64  # candidates per file of gradient inversion
SMALL_IMAGE_SIDE = 16  # pixels; below it, neighbouring pixels differ so much that a weight of .1 blurs the image


@dataclass(frozen=True, kw_only=True)
class InversionOptions:
    """Which examples are attacked by gradient inversion, and how; checks itself.

    Attributes:
        candidates: number of training examples, drawn at random; the others have no score.
        iterations: of the attack.
        total_variation: its weight.
        success_psnr: decibels from which a reconstruction counts as a success.
    """

    candidates: int
    iterations: int
    total_variation: float
    success_psnr: float = InversionConfig.success_psnr

    def __post_init__(self) -> None:
        if self.candidates < 1:
            raise ValueError(f"--inversion-candidates must be 1 or more, got {self.candidates}; 1000 is the default")
        if self.iterations < 1:
            raise ValueError(f"--inversion-iterations must be 1 or more, got {self.iterations}; 250 is the default")
        if not 0 <= self.total_variation < math.inf:
            raise ValueError(
                f"--inversion-tv must be 0 or more and finite, got {self.total_variation}; leave it out for the default"
            )
        # InversionConfig checks the rest
        _ = self.config

    @property
    def config(self) -> InversionConfig:
        """The config of the attack."""
        return InversionConfig(
            iterations=self.iterations, total_variation=self.total_variation, success_psnr=self.success_psnr
        )

    @property
    def ending(self) -> str:
        """The part of its file names after the key, with a hash of all settings."""
        return f"inversion-{hash_record(omit_new_defaults(self))[:8]}"

    def rows(self, seed: int, n_train: int) -> np.ndarray:
        """Draw the candidates, int64 [min(candidates, n_train)]; fewer are the first of more."""
        return generator(seed, "inversion-candidates").permutation(n_train)[: self.candidates]

    def list_files(self, n_train: int) -> dict[str, slice]:
        """List the ending of each file with the slice of the candidates in it."""
        count = min(self.candidates, n_train)
        return {
            f"{self.ending}-{s:06d}": slice(s, min(s + CANDIDATES_PER_FILE, count))
            for s in range(0, count, CANDIDATES_PER_FILE)
        }


def choose_total_variation(input_shape: tuple[int, int, int]) -> float:
    """Choose the weight of total variation: 0.1 (Geiping et al. 2020), but 0.001 for very small images."""
    return 0.1 if min(input_shape[1:]) >= SMALL_IMAGE_SIDE else 0.001


def list_file_endings(store: Store, name: str, inversion: InversionOptions | None) -> list[str]:
    """List the endings of a proxy's file names; none for an inversion of unknown settings."""
    if name != "inversion":
        return [name]
    return [] if inversion is None else list(inversion.list_files(store.manifest.split_sizes[0]))


def write_proxy(
    store: Store, key: str, ending: str, columns: Columns, seconds: float, receipt: Mapping[str, Any]
) -> dict[str, Any]:
    """Write one file of a proxy after its receipt, which is returned with key, ending and seconds added."""
    written = {**receipt, "key": key, "ending": ending, "seconds": seconds}
    # the receipt first: a worker killed in between leaves no file without its receipt
    store.write_receipt(f"{key}-{ending}", written)
    store.write_events(f"{key}-{ending}", columns)
    return written


def read_proxy(store: Store, key: str, name: str, inversion: InversionOptions | None) -> Columns | None:
    """Read one proxy of one original: score -> float64 [n_train], NaN where not attacked; None if a file is missing."""
    files = [f"{key}-{ending}" for ending in list_file_endings(store, name, inversion)]
    if not files or not all(store.has_events(file) for file in files):
        return None
    tables = [store.read_events(file) for file in files]
    # an inversion has only the rows of its candidates, in the order in which they were drawn
    rows = np.concatenate([table["row"] for table in tables])
    scores = {}
    for score in PROXIES[name].scores:
        scores[score] = np.full(store.manifest.split_sizes[0], np.nan)
        scores[score][rows] = np.concatenate([table[score] for table in tables])
    return scores


def read_stored_inversion(store: Store) -> InversionOptions | None:
    """Read the settings of the stored inversion score; None if the store has none."""
    if not store.folder.exists("scores/inversion_psnr.parquet"):
        return None
    return InversionOptions(**json.loads(decode_metadata(store.read_score("inversion_psnr").schema)["settings"]))


def read_differing_originals(store: Store) -> dict[str, list[str]]:
    """Read original -> its proxies, "events" or "evaluation" that are of another training than the stored weights."""
    # Trained again for a further proxy, an original has other weights on a GPU or on another kind of CPU.
    names = [file.removesuffix(".json") for file in store.folder.names("receipts") if file.startswith("original-")]
    receipts = {name: store.read_receipt(name) or {} for name in sorted(names)}
    return {name: receipt["differing"] for name, receipt in receipts.items() if receipt.get("differing")}


def describe_training(store: Store, name: str) -> dict[str, str]:
    """Return score metadata that names the originals whose values of a proxy are of another training; mostly empty."""
    originals = [original for original, names in read_differing_originals(store).items() if name in names]
    return {"trained_again": " ".join(originals)} if originals else {}


def build_score_metadata(name: str, inversion: InversionOptions | None) -> dict[str, str]:
    """Build the metadata of a proxy's score: its stage, its settings, and whether it used the test set."""
    metadata = {"proxy": name, "taken": PROXIES[name].stage, "leaks": "nothing"}
    if PROXIES[name].trains_on == "test":
        metadata["leaks"] = "test"
    if name == "inversion" and inversion is not None:
        metadata["settings"] = json.dumps(asdict(inversion), sort_keys=True)
    return metadata


def sum_proxy_seconds(
    store: Store, inversion: InversionOptions | None, receipts: Receipts | None = None
) -> dict[str, dict[str, float]]:
    """Sum each stored proxy's cost beyond training: name -> key of an original -> seconds of one worker."""
    receipts = store.receipts() if receipts is None else receipts
    seconds: dict[str, dict[str, float]] = {}
    for name in PROXIES:
        file_endings = set(list_file_endings(store, name, inversion))
        for receipt in receipts.values():
            if receipt.get("ending") in file_endings:
                # an inversion has many files, and a receipt for each
                by_key = seconds.setdefault(name, {})
                by_key[receipt["key"]] = by_key.get(receipt["key"], 0.0) + receipt["seconds"]
    return seconds
