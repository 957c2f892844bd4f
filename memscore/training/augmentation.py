"""Data augmentation: random crops and flips in training, fixed ones at test time.

Carlini et al. 2022 (section V-E) attack with several augmentations of an example that training used too. Test-time
augmentation 0 is the image itself; the others are the mirror image, where the recipe flips, and shifts by one pixel
and more, where it crops.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from memscore.training.recipes import Recipe

MAX_CROP_SHARE = Fraction(1, 8)
"""Padding of a crop over the image's shorter side, above which users are warned: 4 of 32 pixels, the usual crop of
CIFAR (He et al. 2016, 4.2)."""


def augment(images: Tensor, black: Tensor, recipe: Recipe, rng: np.random.Generator) -> Tensor:
    """Crop and mirror each image by its own random draw.

    Args:
        images: float32 [B, C, H, W], normalised.
        black: [C], the value of padding.
        recipe: `augment` names the augmentations; crops are from images padded by `crop_padding` pixels.
        rng: the model's random stream.

    Returns:
        [B, C, H, W], channels last; the same tensor if the recipe augments nothing.
    """
    corners, mirrored = (
        torch.from_numpy(values).to(images.device) for values in sample_augmentation(recipe, len(images), rng)
    )
    return apply_augmentation(images, black, recipe, corners, mirrored)


def sample_augmentation(recipe: Recipe, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw crop corners int64 [2, B] (top, left) and flips bool [B]; zeros if unused."""
    # One draw per augmentation and batch: the CUDA graph engine draws many batches in advance from the same stream, so
    # what is drawn must depend on the recipe and the batch's size only.
    corners, mirrored = np.zeros((2, size), dtype=np.int64), np.zeros(size, dtype=bool)
    if "crop" in recipe.augment:
        corners = rng.integers(0, 2 * recipe.crop_padding + 1, (2, size))
    if "flip" in recipe.augment:
        mirrored = rng.random(size) < 0.5
    return corners, mirrored


def apply_augmentation(images: Tensor, black: Tensor, recipe: Recipe, corners: Tensor, mirrored: Tensor) -> Tensor:
    """Crop and mirror images [B, C, H, W] as `sample_augmentation` drew."""
    # Every step has a fixed shape and no step reads a value on the host (no boolean indexing), because this also runs
    # inside a CUDA graph.
    size, channels, height, width = images.shape
    if "crop" in recipe.augment:
        pad = recipe.crop_padding
        canvas = black.view(1, -1, 1, 1).expand(size, channels, height + 2 * pad, width + 2 * pad).clone()
        canvas[:, :, pad : pad + height, pad : pad + width] = images
        # One gather cuts all windows: indices [B, 1, 1], [B, H, 1] and [B, 1, W] broadcast over the canvas with its
        # channels last, and the result is channels last in memory too.
        top, left = corners[..., None]
        rows, columns = (start + torch.arange(n, device=images.device) for start, n in ((top, height), (left, width)))
        index = torch.arange(size, device=images.device)[:, None, None]
        images = canvas.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    if "flip" in recipe.augment:
        images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    return images


def describe_wide_crop(recipe: Recipe, input_shape: tuple[int, int, int]) -> str:
    """Describe random crops that shift much of an image out of sight.

    Args:
        recipe: names its augmentations.
        input_shape: channels, height, width.

    Returns:
        A line where the padding exceeds MAX_CROP_SHARE of the shorter side; else empty.

    >>> describe_wide_crop(Recipe(epochs=1, batch=1, lr=0.1, augment=("crop",)), (1, 8, 12)).partition(":")[0]
    "crop pads 4 pixels, 1/2 of the image's side of 8"
    >>> describe_wide_crop(Recipe(epochs=1, batch=1, lr=0.1, augment=("crop",)), (3, 32, 32))
    ''
    """
    padding, side = recipe.crop_padding, min(input_shape[1:])
    if "crop" not in recipe.augment or Fraction(padding, side) <= MAX_CROP_SHARE:
        return ""
    share = Fraction(padding, side)
    return (
        f"crop pads {padding} pixels, {share} of the image's side of {side}: it moves images by up to so many pixels, "
        "and much of them may be cut off; --augment without crop leaves them whole"
    )


@dataclass(frozen=True)
class TestTimeAugmentation:
    """One fixed augmentation: mirror, then shift by whole pixels; black is shifted in."""

    mirror: bool
    down: int
    right: int


def list_test_time_augmentations(recipe: Recipe, count: int) -> list[TestTimeAugmentation]:
    """List the first test-time augmentations of a recipe, small shifts before large ones.

    Args:
        recipe: only augmentations that training used are listed.
        count: how many, the image itself included.

    Returns:
        Distinct augmentations, the plain image first.

    Raises:
        ValueError: `count` is below 1, or above what the recipe allows.
    """
    # A crop from a canvas padded by p shifts the image by -p to p pixels; near shifts first, ties by position.
    reach = recipe.crop_padding if "crop" in recipe.augment else 0
    moves = itertools.product(range(-reach, reach + 1), repeat=2)
    near = sorted(moves, key=lambda move: (abs(move[0]) + abs(move[1]), move))
    mirrors = (False, True) if "flip" in recipe.augment else (False,)
    augmentations = [TestTimeAugmentation(mirror, down, right) for down, right in near for mirror in mirrors]
    if not 1 <= count <= len(augmentations):
        used = " and ".join(recipe.augment) or "nothing"
        raise ValueError(
            f"--queries must lie in 1 to {len(augmentations)} for a recipe that augments by {used}, got {count}; "
            "queries are augmentations that training used"
        )
    return augmentations[:count]


def with_augmentation(
    predict: Callable[[Tensor], Tensor], augmentation: TestTimeAugmentation, black: Tensor
) -> Callable[[Tensor], Tensor]:
    """Wrap a function of images [B, C, H, W] so that it sees them augmented; black is the value [C] of padding."""

    def predict_augmented(images: Tensor) -> Tensor:
        shifted = images.flip(-1) if augmentation.mirror else images
        if augmentation.down or augmentation.right:
            canvas = black.view(1, -1, 1, 1).expand_as(shifted).clone(memory_format=torch.preserve_format)
            # Pixels that land on the rows of shift_slice(2) come from those of shift_slice(-2); the rest stays black.
            height, width = shifted.shape[-2:]
            target, source = (
                (shift_slice(sign * augmentation.down, height), shift_slice(sign * augmentation.right, width))
                for sign in (1, -1)
            )
            canvas[..., target[0], target[1]] = shifted[..., source[0], source[1]]
            shifted = canvas
        return predict(shifted)

    return predict_augmented


def shift_slice(move: int, size: int) -> slice:
    """Return the positions that pixels cover after a shift along an axis.

    >>> shift_slice(2, 8), shift_slice(-2, 8)
    (slice(2, 8, None), slice(0, 6, None))
    """
    return slice(max(move, 0), size + min(move, 0))
