"""Images of CIFAR-10's shape for benchmarks/gpu_training.py: Fashion-MNIST, or synthetic ones drawn from a seed."""

from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import interpolate

from memscore.data.datasets import load_dataset

FILE = Path(__file__).parent / "data" / "gpu_images.npz"
CLASSES = 10
PROTOTYPES = 8  # per class
SHIFTS = 4  # pixels down and right
DISTRACTOR, NOISE = 0.6, 0.7  # standard deviations, beside 1 of the image's own prototype
LABEL_NOISE = 0.05


def prepare(file: Path, *, synthetic: bool, sizes: tuple[int, int] = (50_000, 10_000)) -> None:
    """Write training and test images with their labels, and where they come from, as one .npz file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if synthetic:
        arrays = draw_images(*sizes)
    else:
        splits = load_dataset("fashion-mnist", validation=0)
        parts = {"train": splits.train, "test": splits.test}
        arrays = {
            f"{name}_{kind}": getattr(part, kind) for name, part in parts.items() for kind in ("images", "labels")
        }
    source = f"synthetic images 3x32x32 of {CLASSES} classes, {LABEL_NOISE:.0%} wrong labels, seed 0"
    np.savez(file, **arrays, source=source if synthetic else "Fashion-MNIST, padded to 3x32x32")
    print(f"{file}: {file.stat().st_size / 2**20:.1f} MiB")


def draw_images(n_train: int, n_test: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Draw images that a network can learn, and cannot learn completely.

    An image is one of its class's prototypes, shifted, under a prototype of any class and noise for each pixel. Some
    labels are wrong, in the test set too, so no network is right more often than 1 - LABEL_NOISE (1 - 1/CLASSES).
    """
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.standard_normal((CLASSES, PROTOTYPES, 3, 7, 7), dtype=np.float32)).flatten(0, 1)
    prototypes = interpolate(coarse, size=32, mode="bicubic").numpy()
    prototypes /= prototypes.std(axis=(1, 2, 3), keepdims=True)
    # every prototype at every shift, around the edges: an image is then one row of a table
    shifts = [(down, right) for down in range(SHIFTS) for right in range(SHIFTS)]
    table = np.stack([np.roll(prototypes, by, (2, 3)) for by in shifts], axis=1)
    arrays = {}
    for name, n in (("train", n_train), ("test", n_test)):
        true = rng.integers(0, CLASSES, n)
        images = np.empty((n, 3, 32, 32), np.uint8)
        for start in range(0, n, 5000):  # 5,000 images are 61 MB in float32
            part = true[start : start + 5000]
            own, other, by, other_by = rng.integers(
                0, [[PROTOTYPES], [len(table)], [len(shifts)], [len(shifts)]], (4, len(part))
            )
            pixels = NOISE * rng.standard_normal((len(part), *table.shape[2:]), dtype=np.float32)
            pixels += table[part * PROTOTYPES + own, by] + DISTRACTOR * table[other, other_by]
            images[start : start + 5000] = (128 + 36 * pixels).clip(0, 255)
        wrong = rng.random(n) < LABEL_NOISE
        arrays |= {f"{name}_images": images, f"{name}_labels": np.where(wrong, rng.integers(0, CLASSES, n), true)}
    return arrays


def read_images(file: Path = FILE) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, str]:
    """Images, labels, test images, test labels, and their source; uint8 [N, 3, 32, 32], gray ones padded with black."""
    if not file.exists():
        raise FileNotFoundError(
            f"{file} does not exist; run `python -m benchmarks.gpu_training prepare` where Fashion-MNIST is, "
            "or `prepare --synthetic` anywhere"
        )
    with np.load(file, allow_pickle=False) as arrays:
        train, labels, test, test_labels = (arrays[f"{a}_{b}"] for a in ("train", "test") for b in ("images", "labels"))
        source = str(arrays["source"])
    if train.shape[1] == 1:
        margin = ((0, 0), (0, 0), (2, 2), (2, 2))
        train, test = (np.pad(images, margin).repeat(3, axis=1) for images in (train, test))
    return train, labels, test, test_labels, source
