"""Images of the examples as sprites: PNG files with many small images each, in the page or beside it."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

SPRITE_IMAGES = 500
SPRITE_COLUMNS = 25
MAX_SIDE = 64
"""Longest side of a thumbnail; smaller images keep their size."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Sprite:
    """Many thumbnails in one image, row by row.

    Attributes:
        rows: of the examples, in order.
        columns: thumbnails in a row.
        png: the file.
    """

    rows: list[int]
    columns: int
    png: bytes


def choose_extremes(values: np.ndarray, count: int) -> np.ndarray:
    """Choose the rows with the highest and the lowest values, half of the count each, ascending; undefined ones last.

    >>> choose_extremes(np.array([0.1, 0.9, 0.5, np.nan]), 2).tolist()
    [0, 1]
    """
    if count >= len(values):
        return np.arange(len(values))
    defined = np.flatnonzero(~np.isnan(values))
    order = np.concatenate([defined[np.argsort(-values[defined], kind="stable")], np.flatnonzero(np.isnan(values))])
    # the lowest are the last that are defined; where nothing is, the last of all
    last = len(defined) or len(order)
    lowest = order[max(last - count // 2, 0) : last]
    others = order[~np.isin(order, lowest)]
    return np.sort(np.concatenate([others[: count - len(lowest)], lowest]))


def compute_size(shape: Sequence[int]) -> dict[str, int]:
    """Compute width, height and channels of a thumbnail from an image's channels, height and width."""
    channels, height, width = shape
    # small images are not enlarged: the page draws them larger
    scale = min(1.0, MAX_SIDE / max(height, width))
    return {"w": max(round(width * scale), 1), "h": max(round(height * scale), 1), "c": channels}


def draw_sprites(images: np.ndarray, rows: np.ndarray) -> list[Sprite]:
    """Draw the images of some rows as sprites; images are uint8 [N, C, H, W]."""
    sprites = []
    for start in range(0, len(rows), SPRITE_IMAGES):
        part = rows[start : start + SPRITE_IMAGES]
        columns = min(SPRITE_COLUMNS, len(part))
        sprites.append(Sprite(rows=part.tolist(), columns=columns, png=encode_sprite(images[part], columns)))
    return sprites


def encode_sprite(images: np.ndarray, columns: int) -> bytes:
    """Draw images in a grid as one PNG, each as large as a thumbnail is."""
    size = compute_size(images.shape[1:])
    height, width = size["h"], size["w"]
    # the last row may be shorter, and is black there
    pixels = to_pixels(images)
    n_rows = -(-len(pixels) // columns)
    grid = np.zeros((n_rows * height, columns * width, *pixels.shape[3:]), np.uint8)
    for number, image in enumerate(pixels):
        if image.shape[:2] != (height, width):
            image = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))
        row, column = divmod(number, columns)
        grid[row * height : (row + 1) * height, column * width : (column + 1) * width] = image
    return encode_png(grid)


def to_pixels(images: np.ndarray) -> np.ndarray:
    """Turn uint8 [n, C, H, W] into grey [n, H, W] or colour [n, H, W, 3]; of other channels the first are shown."""
    channels = images.shape[1]
    return images[:, 0] if channels < 3 else np.moveaxis(images[:, :3], 1, -1)


def encode_png(pixels: np.ndarray) -> bytes:
    """Encode grey [H, W] or colour [H, W, 3] pixels as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="png")
    return buffer.getvalue()
