"""Near copies: pairs of different images that are as similar as an image is to itself when it is encoded again.

Similarity is the cosine of two images' embeddings by an original of the bank, or of their pixels with each image's mean
taken off. Which similarity counts as near is measured: of LEAST_SHARE of the images of a sample, the similarity to
their own JPEG of QUALITY, Pillow's default, is at or above it. A network separates classes and pulls each together, so
by embeddings images of one class may be near that do not look alike; by pixels, a moved or mirrored copy is not near.
"""

import io
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from memscore.data.duplicates import SPLIT_NAMES, Copies, split_by_group
from memscore.data.splits import Splits
from memscore.pipeline.jobs import ORIGINAL, OriginalJob, build_model, compute_job_key
from memscore.pipeline.start_weights import load_weights
from memscore.statistics.nearest_neighbours import find_nearest_neighbours, normalize_rows
from memscore.store.parquet import to_table
from memscore.store.store import Store
from memscore.training.device_data import to_device
from memscore.training.evaluation import predict_embeddings
from memscore.training.numerics import open_device, single_threaded

Space = Literal["embeddings", "pixels"]
QUALITY = 75
LEAST_SHARE = 0.95
SAMPLE = 1000  # training images that the threshold is measured on, evenly spaced


@dataclass(frozen=True, kw_only=True, eq=False)
class NearCopies:
    """The images with a near copy.

    Attributes:
        space: what is compared.
        threshold: similarity at and above which two images are near copies.
        is_measured: whether the threshold was measured, not given.
        compared: number of different images.
        other_labels: number of images whose near copy has another label.
        table: a row for each image with a near copy, the most similar first.
    """

    space: Space
    threshold: float
    is_measured: bool
    compared: int
    other_labels: int
    table: pa.Table


def find_near_copies(
    store: Store, splits: Splits, copies: Copies, space: Space, threshold: float | None = None
) -> NearCopies:
    """Find the nearest neighbour of each image, and those that are near copies; exact copies are one image here.

    ValueError for embeddings without an original, a threshold outside (0, 1], or a measured one of images that are
    neither gray nor RGB.
    """
    if threshold is not None and not 0 < threshold <= 1:
        raise ValueError(
            f"--threshold {threshold:g}: it is a cosine, above 0 and at most 1; leave it out to measure it"
        )
    parts = (splits.train, splits.validation, splits.test)
    vectors = read_embeddings(store) if space == "embeddings" else flatten(np.concatenate([p.images for p in parts]))
    used = threshold if threshold is not None else measure_threshold(store, splits, space, vectors)
    # The first image of each group of exact copies stands for all of them.
    first = [rows[0] for rows in split_by_group(copies.groups)]
    distinct = np.union1d(np.flatnonzero(copies.groups < 0), first).astype(np.int64)
    similarity, neighbour = find_nearest_neighbours(normalize_rows(vectors[distinct]))
    near = np.flatnonzero(similarity >= used)
    near = near[np.argsort(-similarity[near], kind="stable")]
    rows, nearest = distinct[near], distinct[neighbour[near]]
    names = np.array(SPLIT_NAMES)[copies.split_numbers]
    metadata = {
        "fingerprint": store.manifest.fingerprint,
        "space": space,
        "threshold": f"{used:.6f}",
        "threshold_from": describe_threshold(threshold is None),
    }
    columns = {"row": rows.astype(np.int32), "id": copies.ids[rows], "split": names[rows], "label": copies.labels[rows]}
    columns |= {
        "nearest_row": nearest.astype(np.int32),
        "nearest_id": copies.ids[nearest],
        "nearest_split": names[nearest],
        "nearest_label": copies.labels[nearest],
        "similarity": similarity[near],
    }
    return NearCopies(
        space=space,
        threshold=used,
        is_measured=threshold is None,
        compared=len(distinct),
        other_labels=int((columns["label"] != columns["nearest_label"]).sum()),
        table=to_table(columns, metadata),
    )


def describe_threshold(is_measured: bool) -> str:
    """Describe where a threshold comes from."""
    if not is_measured:
        return "given"
    return (
        f"{100 * LEAST_SHARE:.0f} % of up to {SAMPLE} training images are as similar to their JPEG of quality {QUALITY}"
    )


def read_embeddings(store: Store) -> np.ndarray:
    """Read the embeddings of all images by the bank's first original, [N, E]."""
    key = compute_job_key(store, OriginalJob(store=store.url, index=0))
    if not store.has_outputs(key):
        raise ValueError(
            f"{store.folder.display_name} has no original, whose embeddings --near embeddings compares; use --near "
            "pixels, or train one with estimate --originals 1"
        )
    return store.read_outputs(key)[1]


def flatten(images: np.ndarray) -> np.ndarray:
    """Flatten images to float32 [N, D], each with its mean taken off, so that brightness and contrast do not count."""
    pixels = images.reshape(len(images), -1).astype(np.float32)
    pixels -= pixels.mean(1, keepdims=True)
    return pixels


def measure_threshold(store: Store, splits: Splits, space: Space, vectors: np.ndarray) -> float:
    """Measure how similar images are to their own JPEG: the least similarity that LEAST_SHARE of them have."""
    n = len(splits.train)
    rows = np.unique(np.linspace(0, n - 1, min(SAMPLE, n)).astype(int))
    encoded = np.stack([encode_as_jpeg(image) for image in splits.train.images[rows]])
    changed = flatten(encoded) if space == "pixels" else compute_embeddings(store, encoded)
    similarity = (normalize_rows(vectors[rows]) * normalize_rows(changed)).sum(1)
    return float(np.quantile(similarity, 1 - LEAST_SHARE))


def encode_as_jpeg(image: np.ndarray) -> np.ndarray:
    """Encode an image [C, H, W] as JPEG and decode it again."""
    if len(image) not in {1, 3}:
        raise ValueError(f"a threshold is measured on gray or RGB images, these have {len(image)} channels; give one")
    buffer = io.BytesIO()
    Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(buffer, "JPEG", quality=QUALITY)
    with Image.open(buffer) as decoded:
        pixels = np.asarray(decoded)
    return pixels[None] if len(image) == 1 else pixels.transpose(2, 0, 1)


def compute_embeddings(store: Store, images: np.ndarray) -> np.ndarray:
    """Compute the embeddings of images by the bank's first original, on a CPU."""
    device, manifest = open_device("cpu"), store.manifest
    key = compute_job_key(store, OriginalJob(store=store.url, index=0))
    model = build_model(store, ORIGINAL, 0, device)
    load_weights(model, store.read_weights(key), "the stored original 0")
    with single_threaded(), torch.no_grad():
        resident = to_device(images, manifest.mean, manifest.std, device, flat=False)
        embeddings: np.ndarray = predict_embeddings(model.eval(), resident, len(images)).numpy()
    return embeddings
