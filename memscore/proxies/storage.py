"""How the proxies of an original are kept: a file each, beside its learning events, and a receipt with its seconds.

A file is events/<key>-<ending>.parquet, where the ending is the proxy's name. Gradient inversion is kept in parts, so
that many workers share it; its ending also names its settings, so that others give other files.
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
from memscore.store.json_records import hash_record
from memscore.store.parquet import decode_metadata
from memscore.store.store import Receipts, Store

Columns = dict[str, np.ndarray]

CANDIDATES_PER_FILE = 64  # candidates a file of gradient inversion
SMALL_IMAGE_SIDE = 16  # pixels; below it, neighbouring pixels differ so much that a weight of .1 blurs what is rebuilt


@dataclass(frozen=True, kw_only=True)
class InversionOptions:
    """Which examples are attacked by gradient inversion, and how hard; checks itself.

    Attributes:
        candidates: how many training examples, drawn at random; the others have no score.
        iterations: of the attack.
        total_variation: its weight.
        success_psnr: decibels from which a rebuilt image counts as a success.
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
        _ = self.config

    @property
    def config(self) -> InversionConfig:
        """The attack."""
        return InversionConfig(
            iterations=self.iterations, total_variation=self.total_variation, success_psnr=self.success_psnr
        )

    @property
    def ending(self) -> str:
        """What the names of its files have after the key."""
        return f"inversion-{hash_record(asdict(self))[:8]}"

    def rows(self, seed: int, n_train: int) -> np.ndarray:
        """The candidates, int64 [candidates or n_train, the smaller]; fewer candidates are the first of more."""
        return generator(seed, "inversion-candidates").permutation(n_train)[: self.candidates]

    def list_files(self, n_train: int) -> dict[str, slice]:
        """Ending of each file -> which of the candidates are in it."""
        count = min(self.candidates, n_train)
        return {
            f"{self.ending}-{s:06d}": slice(s, min(s + CANDIDATES_PER_FILE, count))
            for s in range(0, count, CANDIDATES_PER_FILE)
        }


def choose_total_variation(input_shape: tuple[int, int, int]) -> float:
    """Weight of the total variation for images of this shape: 0.1 (Geiping et al. 2020), 0.001 for very small ones."""
    return 0.1 if min(input_shape[1:]) >= SMALL_IMAGE_SIDE else 0.001


def list_file_endings(store: Store, name: str, inversion: InversionOptions | None) -> list[str]:
    """What the names of a proxy's files have after the key; none of an inversion whose settings are not known."""
    if name != "inversion":
        return [name]
    return [] if inversion is None else list(inversion.list_files(store.manifest.split_sizes[0]))


def write_proxy(
    store: Store, key: str, ending: str, columns: Columns, seconds: float, receipt: Mapping[str, Any]
) -> dict[str, Any]:
    """Publish one file of a proxy, after its receipt.

    Args:
        store: open.
        key: of the original.
        ending: of the file's name.
        columns: row, and the scores of those rows.
        seconds: that it took, beyond the training.
        receipt: who did it, and "proxy", its name.

    Returns:
        The receipt as kept.
    """
    kept = {**receipt, "key": key, "ending": ending, "seconds": seconds}
    store.write_receipt(f"{key}-{ending}", kept)  # first: a worker killed in between leaves no file without its receipt
    store.write_events(f"{key}-{ending}", columns)
    return kept


def read_proxy(store: Store, key: str, name: str, inversion: InversionOptions | None) -> Columns | None:
    """The scores of one proxy of one original.

    Args:
        store: open.
        key: of the original.
        name: of the proxy.
        inversion: its settings, if the name is "inversion".

    Returns:
        Score -> float64 [n_train], NaN for examples that were not attacked; None if it is not, or not all, on file.
    """
    names = [f"{key}-{ending}" for ending in list_file_endings(store, name, inversion)]
    if not names or not all(store.has_events(each) for each in names):
        return None
    tables = [store.read_events(each) for each in names]
    rows = np.concatenate([table["row"] for table in tables])
    found = {}
    for score in PROXIES[name].scores:
        found[score] = np.full(store.manifest.split_sizes[0], np.nan)
        found[score][rows] = np.concatenate([table[score] for table in tables])
    return found


def read_stored_inversion(store: Store) -> InversionOptions | None:
    """The settings of the inversion score that the store has; None without one."""
    if not store.folder.exists("scores/inversion_psnr.parquet"):
        return None
    return InversionOptions(**json.loads(decode_metadata(store.read_score("inversion_psnr").schema)["settings"]))


def build_score_metadata(name: str, inversion: InversionOptions | None) -> dict[str, str]:
    """What a proxy's score says of how it was made."""
    said = {"proxy": name, "taken": PROXIES[name].stage, "leaks": "nothing"}
    if PROXIES[name].trains_on == "test":
        said["leaks"] = "test"
    if name == "inversion" and inversion is not None:
        said["settings"] = json.dumps(asdict(inversion), sort_keys=True)
    return said


def sum_proxy_seconds(
    store: Store, inversion: InversionOptions | None, receipts: Receipts | None = None
) -> dict[str, dict[str, float]]:
    """What each proxy cost beyond the training of its originals; `read_stored_inversion` gives the second argument.

    Args:
        store: open.
        inversion: the settings of the inversion that is meant, if any.
        receipts: of the store, if they were read already.

    Returns:
        Name -> key of each original -> seconds of one worker, over all parts; only what the store has.
    """
    receipts = store.receipts() if receipts is None else receipts
    found: dict[str, dict[str, float]] = {}
    for name in PROXIES:
        wanted = set(list_file_endings(store, name, inversion))
        for receipt in receipts.values():
            if receipt.get("ending") in wanted:
                by_key = found.setdefault(name, {})
                by_key[receipt["key"]] = by_key.get(receipt["key"], 0.0) + receipt["seconds"]
    return found
