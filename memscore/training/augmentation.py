"""Fixed augmented queries: a model is asked about mirrored and shifted copies of each image, the same for every model.

Carlini et al. 2022 (section V-E) attack with several augmentations of an example that training used too. Query 0 is the
image itself; the others are the mirror image, where the recipe mirrors, and shifts by a pixel and more, where it crops.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from memscore.training.recipes import Recipe


def augment(images: Tensor, black: Tensor, recipe: Recipe, chance: np.random.Generator) -> Tensor:
    """Crop and mirror, drawn for each image by itself.

    Args:
        images: float32 [B, C, H, W], normalised.
        black: [C], the value of padding.
        recipe: `augment` names what is done; crops are from images padded by `crop_padding` pixels.
        chance: the model's stream.

    Returns:
        [B, C, H, W], channels last; the same tensor if the recipe augments nothing.
    """
    corners, mirrored = (
        torch.from_numpy(drawn).to(images.device) for drawn in sample_augmentation(recipe, len(images), chance)
    )
    return apply_augmentation(images, black, recipe, corners, mirrored)


def sample_augmentation(recipe: Recipe, size: int, chance: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One batch's chances: corners of the crops int64 [2, B] (top, left), and who is mirrored bool [B]; or zeros."""
    corners, mirrored = np.zeros((2, size), dtype=np.int64), np.zeros(size, dtype=bool)
    if "crop" in recipe.augment:
        corners = chance.integers(0, 2 * recipe.crop_padding + 1, (2, size))
    if "flip" in recipe.augment:
        mirrored = chance.random(size) < 0.5
    return corners, mirrored


def apply_augmentation(images: Tensor, black: Tensor, recipe: Recipe, corners: Tensor, mirrored: Tensor) -> Tensor:
    """The images cropped and mirrored as `draw` says, [B, C, H, W]; the same tensor if the recipe augments nothing."""
    size, channels, height, width = images.shape
    if "crop" in recipe.augment:
        pad = recipe.crop_padding
        canvas = black.view(1, -1, 1, 1).expand(size, channels, height + 2 * pad, width + 2 * pad).clone()
        canvas[:, :, pad : pad + height, pad : pad + width] = images
        top, left = corners[..., None]
        rows, columns = (start + torch.arange(n, device=images.device) for start, n in ((top, height), (left, width)))
        each = torch.arange(size, device=images.device)[:, None, None]
        images = canvas.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    if "flip" in recipe.augment:
        images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    return images


@dataclass(frozen=True)
class TestTimeAugmentation:
    """One fixed augmentation: mirror first, then move by so many pixels; what comes in is black."""

    mirror: bool
    down: int
    right: int


def list_test_time_augmentations(recipe: Recipe, count: int) -> list[TestTimeAugmentation]:
    """The first queries that a recipe allows, small shifts before large ones.

    Args:
        recipe: queries are augmentations that training used.
        count: how many, the image itself included.

    Returns:
        Distinct queries, the plain one first.

    Raises:
        ValueError: fewer than one, or more than the recipe has.
    """
    reach = recipe.crop_padding if "crop" in recipe.augment else 0
    moves = itertools.product(range(-reach, reach + 1), repeat=2)
    near = sorted(moves, key=lambda move: (abs(move[0]) + abs(move[1]), move))
    mirrors = (False, True) if "flip" in recipe.augment else (False,)
    known = [TestTimeAugmentation(mirror, down, right) for down, right in near for mirror in mirrors]
    if not 1 <= count <= len(known):
        augment = " and ".join(recipe.augment) or "nothing"
        raise ValueError(
            f"--queries must lie in 1 to {len(known)} for a recipe that augments by {augment}, got {count}; queries "
            "are augmentations that training used"
        )
    return known[:count]


def with_augmentation(
    logits_of: Callable[[Tensor], Tensor], query: TestTimeAugmentation, black: Tensor
) -> Callable[[Tensor], Tensor]:
    """The network as seen through one query.

    Args:
        logits_of: images [B, C, H, W] -> logits [B, K].
        query: what is done to the images.
        black: [C], what a black pixel is after normalisation.

    Returns:
        A function of the images as they are.
    """

    def through(images: Tensor) -> Tensor:
        shown = images.flip(-1) if query.mirror else images
        if query.down or query.right:
            moved = black.view(1, -1, 1, 1).expand_as(shown).clone(memory_format=torch.preserve_format)
            height, width = shown.shape[-2:]
            to, source = (
                (shift_slice(sign * query.down, height), shift_slice(sign * query.right, width)) for sign in (1, -1)
            )
            moved[..., to[0], to[1]] = shown[..., source[0], source[1]]
            shown = moved
        return logits_of(shown)

    return through


def shift_slice(move: int, size: int) -> slice:
    """Where pixels land that are moved along an axis.

    Args:
        move: by how many.
        size: of the axis.

    Returns:
        What they cover.

    >>> span(2, 8), span(-2, 8)
    (slice(2, 8, None), slice(0, 6, None))
    """
    return slice(max(move, 0), size + min(move, 0))
