"""One size for all images: scale an image until it covers the size, then crop its centre."""

import math
import re

import numpy as np
from PIL import Image, ImageOps

from memscore.reading_limit import require_memory

Size = tuple[int, int]
"""Height and width in pixels."""

LARGEST_SIDE = 8192


def parse_image_size(text: str) -> Size:
    """Read "64" or "32x48" as (height, width).

    Args:
        text: a side in pixels, or HEIGHTxWIDTH.

    Returns:
        Height and width.

    Raises:
        ValueError: another form, or a side outside 1..8192.

    >>> parse_image_size("64"), parse_image_size("32x48")
    ((64, 64), (32, 48))
    """
    match = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", str(text).strip().lower())
    size = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not all(1 <= side <= LARGEST_SIDE for side in size):
        raise ValueError(
            f"an image size is one side or HEIGHTxWIDTH, 1 to {LARGEST_SIDE} pixels, got {text!r}; write 64 or 32x48"
        )
    return size


def resize_image(image: Image.Image, size: Size) -> Image.Image:
    """Scale an image until it covers the size and crop its centre: bicubic, antialiased where it shrinks."""
    height, width = size
    return image if image.size == (width, height) else ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC)


def resize_images(images: np.ndarray, size: Size) -> np.ndarray:
    """Resize images uint8 [N, C, H, W] one by one, each channel by itself."""
    if images.shape[2:] == size:
        return images
    shape = (*images.shape[:2], *size)
    require_memory(math.prod(shape), f"{len(images)} images of {size[0]}x{size[1]}", "give a smaller --image-size")
    resized = np.empty(shape, np.uint8)
    for source, target in zip(images, resized, strict=True):
        for channel, pixels in enumerate(source):
            target[channel] = np.asarray(resize_image(Image.fromarray(pixels), size))
    return resized
