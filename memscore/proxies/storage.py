"""Read and write an original's proxies: one file and one receipt per proxy.

A file is events/<key>-<ending>.parquet, where the ending is the proxy's name. Gradient inversion is stored in several
files, so that many workers share it; its ending also identifies its settings, so that other settings give other files.
What it rebuilt lies in rebuilt/<key>-<ending>.parquet: how near it is, and of original 0 the images too.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from memscore.proxies.gradient_inversion import InversionConfig
from memscore.proxies.registry import INVERSION, INVERSION_GAIN, PROXIES
from memscore.seeds import generator
from memscore.store.block_reader import read_columns
from memscore.store.json_records import hash_record, omit_new_defaults
from memscore.store.parquet import decode_metadata, encode, to_table
from memscore.store.store import Receipts, Store

Columns = dict[str, np.ndarray]

CANDIDATES_PER_FILE = 64  # candidates per file of gradient inversion
COMPARED_IMAGES = 10_000  # training images, drawn at random, among which an example is to be found
INVERSIONS = (INVERSION, INVERSION_GAIN)
HALF_ENDINGS = ("inversion-half-0", "inversion-half-1")
"""Endings of the two models of INVERSION_GAIN that are trained on halves of the training set; settings change none."""
REBUILT_SCORES = ("inversion_psnr_fitted", "inversion_ssim_fitted", "inversion_retrieval", "inversion_percentile")
REBUILT_IMAGES = ("rebuilt", "rebuilt_held", "rebuilt_left_out")
"""Columns of rebuilt/: images uint8 [n, C H W] from the original, and from the halves with and without the example."""
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
        return f"{INVERSION}-{self.digest}"

    @property
    def digest(self) -> str:
        """A hash of all settings."""
        return hash_record(omit_new_defaults(self))[:8]

    def rows(self, seed: int, n_train: int) -> np.ndarray:
        """Draw the candidates, int64 [min(candidates, n_train)]; fewer are the first of more."""
        return generator(seed, "inversion-candidates").permutation(n_train)[: self.candidates]

    def list_files(self, n_train: int, proxy: str = INVERSION) -> dict[str, slice]:
        """List the ending of each file of one of INVERSIONS with the slice of the candidates in it."""
        count = min(self.candidates, n_train)
        return {
            f"{proxy}-{self.digest}-{s:06d}": slice(s, min(s + CANDIDATES_PER_FILE, count))
            for s in range(0, count, CANDIDATES_PER_FILE)
        }


def choose_total_variation(input_shape: tuple[int, int, int]) -> float:
    """Choose the weight of total variation: 0.1 (Geiping et al. 2020), but 0.001 for very small images."""
    return 0.1 if min(input_shape[1:]) >= SMALL_IMAGE_SIDE else 0.001


def draw_compared_rows(seed: int, n_train: int) -> np.ndarray:
    """Draw the training images among which an example is to be found, int64; the same ones for every example."""
    return generator(seed, "inversion-candidates", "compared").permutation(n_train)[:COMPARED_IMAGES]


def list_file_endings(store: Store, name: str, inversion: InversionOptions | None) -> list[str]:
    """List the endings of a proxy's file names; none for an inversion of unknown settings."""
    if name not in INVERSIONS:
        return [name]
    return [] if inversion is None else list(inversion.list_files(store.manifest.split_sizes[0], name))


def write_proxy(
    store: Store, key: str, ending: str, columns: Columns, seconds: float, receipt: Mapping[str, Any]
) -> dict[str, Any]:
    """Write one file of a proxy after its receipt, which is returned with key, ending and seconds added."""
    name = f"{key}-{ending}"
    rebuilt = {column: columns[column] for column in (*REBUILT_SCORES, *REBUILT_IMAGES) if column in columns}
    written = {**receipt, "key": key, "ending": ending, "seconds": seconds, **({"rebuilt": True} if rebuilt else {})}
    # the receipt first: a worker killed in between leaves no file without its receipt
    store.write_receipt(name, written)
    # a second file, so that inversions from before it was kept stay as they are
    if rebuilt:
        table = to_table({"row": columns["row"], **rebuilt}, {"model": name})
        store.folder.publish(build_rebuilt_path(key, ending), encode(table))
    store.write_events(name, {column: values for column, values in columns.items() if column not in rebuilt})
    return written


def build_rebuilt_path(key: str, ending: str) -> str:
    """Return the path of what one file of an inversion rebuilt."""
    return f"rebuilt/{key}-{ending}.parquet"


def read_proxy(store: Store, key: str, name: str, inversion: InversionOptions | None) -> Columns | None:
    """Read one proxy of one original: score -> float64 [n_train], NaN where not attacked; None if a file is missing."""
    files = [f"{key}-{ending}" for ending in list_file_endings(store, name, inversion)]
    if not files or not all(store.has_events(file) for file in files):
        return None
    tables = [store.read_events(file) for file in files]
    paths = [f"rebuilt/{file}.parquet" for file in files]
    # an inversion from before its images were kept lacks the scores that are computed from them
    if name == INVERSION and all(store.folder.exists(path) for path in paths):
        for table, path in zip(tables, paths, strict=True):
            table.update(read_columns(store.folder, path, REBUILT_SCORES))
    # an inversion has only the rows of its candidates, in the order in which they were drawn
    rows = np.concatenate([table["row"] for table in tables])
    scores = {}
    for score in (score for score in PROXIES[name].scores if score in tables[0]):
        scores[score] = np.full(store.manifest.split_sizes[0], np.nan)
        scores[score][rows] = np.concatenate([table[score] for table in tables])
    return scores


def read_rebuilt_images(
    store: Store, keys: Iterable[str], inversions: Mapping[str, InversionOptions]
) -> dict[str, np.ndarray]:
    """Read what inversions rebuilt from the first original with images: row and REBUILT_IMAGES; empty without any."""
    for key in keys:
        columns: dict[str, np.ndarray] = {}
        for name in (name for name in INVERSIONS if name in inversions):
            files = [build_rebuilt_path(key, ending) for ending in list_file_endings(store, name, inversions[name])]
            if not all(store.folder.exists(file) for file in files):
                continue
            kinds = REBUILT_IMAGES[:1] if name == INVERSION else REBUILT_IMAGES[1:]
            tables = [read_columns(store.folder, file, ["row", *kinds]) for file in files]
            if kinds[0] not in tables[0]:  # of a later original: only how near it came
                continue
            added = {column: np.concatenate([table[column] for table in tables]) for column in ("row", *kinds)}
            if columns:  # both draw their candidates from one permutation, so the fewer are the first of the more
                count = min(len(columns["row"]), len(added["row"]))
                columns = {column: values[:count] for column, values in (added | columns).items()}
            else:
                columns = added
        if columns:
            return {column: columns[column] for column in ("row", *REBUILT_IMAGES) if column in columns}
    return {}


def read_stored_inversions(store: Store) -> dict[str, InversionOptions]:
    """Read the settings of the stored inversion scores, by the name of the proxy."""
    first_scores = {name: PROXIES[name].scores[0] for name in INVERSIONS}
    return {
        name: InversionOptions(**json.loads(decode_metadata(store.read_score(score).schema)["settings"]))
        for name, score in first_scores.items()
        if store.folder.exists(f"scores/{score}.parquet")
    }


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


def build_score_metadata(name: str, inversion: InversionOptions | None, n_train: int) -> dict[str, str]:
    """Build the metadata of a proxy's score: its stage, its settings, and whether it used the test set."""
    metadata = {"proxy": name, "taken": PROXIES[name].stage, "leaks": "nothing"}
    if PROXIES[name].trains_on == "test":
        metadata["leaks"] = "test"
    if name in INVERSIONS and inversion is not None:
        metadata["settings"] = json.dumps(asdict(inversion), sort_keys=True)
    if name == INVERSION:
        metadata["compared_images"] = str(min(n_train, COMPARED_IMAGES))
    return metadata


def sum_proxy_seconds(
    store: Store, inversions: Mapping[str, InversionOptions], receipts: Receipts | None = None
) -> dict[str, dict[str, float]]:
    """Sum the cost beyond training of each proxy, inversions of these settings: name -> original's key -> seconds."""
    receipts = store.receipts() if receipts is None else receipts
    seconds: dict[str, dict[str, float]] = {}
    for name in PROXIES:
        file_endings = set(list_file_endings(store, name, inversions.get(name)))
        # the models of halves belong to what the gain costs
        file_endings |= {*HALF_ENDINGS} if name == INVERSION_GAIN and file_endings else set()
        for receipt in receipts.values():
            if receipt.get("ending") in file_endings:
                # an inversion has many files, and a receipt for each
                by_key = seconds.setdefault(name, {})
                by_key[receipt["key"]] = by_key.get(receipt["key"], 0.0) + receipt["seconds"]
    return seconds
