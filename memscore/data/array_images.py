"""Images as arrays: what is certainly 0..255, 0..1 or bool becomes uint8 [N, C, H, W], the rest is refused."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from memscore.data.image_size import Size, resize_image

ROWS = 4096  # images that are converted at a time

LAYOUTS = "[N, H, W], [N, H, W, C] or [N, C, H, W] with C = 1 or 3 in one place only"


def to_numpy(values: Any) -> np.ndarray:
    """Return an array, a torch tensor of any device or a list as a NumPy array."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    return np.asarray(values)


def convert_images(
    images_by_split: Mapping[str, Any], size: Size | None = None
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Convert the images of all splits by one rule.

    Args:
        images_by_split: split -> array, tensor or list of arrays.
        size: height and width for lists of images of several sizes.

    Returns:
        Split -> uint8 [N, C, H, W], and lines on what was changed.

    Raises:
        ValueError: values or a layout that could mean several things; the message says what to do.
    """
    arrays = {split: _stack(images, split, size) for split, images in images_by_split.items()}
    for split, images in arrays.items():
        _check_layout(images, split)
    scale, note = _find_scale(arrays)
    # Each array is replaced by its conversion before the next one is converted.
    for split in arrays:
        arrays[split] = to_channels_first(_convert_values(arrays[split], scale), split)
    return arrays, [note] if note else []


def _stack(images: Any, split: str, size: Size | None) -> np.ndarray:
    """Return one array, of a list by way of a common size."""
    if not isinstance(images, list | tuple) or not images:
        return to_numpy(images)
    items = [to_numpy(image) for image in images]
    shapes = {item.shape for item in items}
    if len(shapes) == 1:
        return np.stack(items)
    are_pictures = all(item.dtype == np.uint8 and (item.ndim == 2 or item.shape[2:] == (3,)) for item in items)
    if are_pictures and (size is not None or len({shape[:2] for shape in shapes}) == 1):
        mode = "RGB" if any(item.ndim == 3 for item in items) else "L"
        pictures = (Image.fromarray(item).convert(mode) for item in items)
        return np.stack([np.asarray(picture if size is None else resize_image(picture, size)) for picture in pictures])
    shown = ", ".join(str(shape) for shape in sorted(shapes)[:3])
    raise ValueError(
        f"{split} images must share one shape, got {len(shapes)} such as {shown}; give uint8 images [H, W] or "
        "[H, W, 3] and --image-size 32 or another size, or resize them"
    )


def _check_layout(images: np.ndarray, split: str) -> None:
    """Raise for what is no batch of gray or colour images, with the line that would make it one."""
    if images.dtype.kind not in "buif":
        raise ValueError(f"{split} images must be numbers, got {images.dtype} {images.shape}; give one array of pixels")
    if images.ndim == 2:
        n_pixels = images.shape[1]
        hint = "images.reshape(-1, HEIGHT, WIDTH)"
        for channels in (1, 3):
            side = round((n_pixels / channels) ** 0.5)
            if side * side * channels == n_pixels:
                hint = f"images.reshape(-1, {f'{channels}, ' if channels > 1 else ''}{side}, {side}) if they are square"
                break
        raise ValueError(f"{split} images are flat, {images.shape}; use {hint}")
    if images.ndim == 4 and 4 in {images.shape[1], images.shape[3]} and not {1, 3} & {images.shape[1], images.shape[3]}:
        rows = "images[..., :3]" if images.shape[3] == 4 else "images[:, :3]"
        raise ValueError(f"{split} images have 4 channels, {images.shape}; drop alpha with {rows}")
    to_channels_first(images[:0], split)


def _find_scale(arrays: Mapping[str, np.ndarray]) -> tuple[float | None, str]:
    """Find the factor that brings the values of all splits to 0..255, and a line on it; None where they are uint8."""
    if all(images.dtype == np.uint8 for images in arrays.values()):
        return None, ""
    kinds = " and ".join(sorted({str(images.dtype) for images in arrays.values()}))
    filled = [images for images in arrays.values() if images.size]
    low, high = min(images.min() for images in filled), max(images.max() for images in filled)
    values = f"images are {kinds} from {low:g} to {high:g}"
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(f"{values}; replace what is not finite")
    if low < 0:
        raise ValueError(
            f"{values}: they look normalized; give them as they are before, in 0..255 (memscore normalizes itself)"
        )
    if all(images.dtype == bool for images in filled):
        return 255, "bool images: False is read as 0, True as 255"
    if high <= 1 and all(images.dtype.kind == "f" for images in filled):
        return 255, f"{kinds} images from {low:g} to {high:g}: multiplied by 255 and rounded"
    is_whole = all(images.dtype.kind in "ui" or _is_whole(images) for images in filled)
    if 1 < high <= 255 and (is_whole or high >= 128):
        return 1, f"{kinds} images from {low:g} to {high:g}: read as 0..255" + ("" if is_whole else " and rounded")
    hint = (
        "for 16 bits use (images // 257).astype(numpy.uint8)"
        if high > 255
        else "multiply them so that white is 255, and use .round().astype(numpy.uint8)"
    )
    raise ValueError(f"{values}, and white could be 1, 255 or another value; {hint}")


def _is_whole(images: np.ndarray) -> bool:
    chunks = (images[start : start + ROWS] for start in range(0, len(images), ROWS))
    return all(bool((chunk == np.floor(chunk)).all()) for chunk in chunks)


def _convert_values(images: np.ndarray, scale: float | None) -> np.ndarray:
    """Multiply and round in chunks, so that no second array of floats is needed."""
    if scale is None:
        return images
    converted = np.empty(images.shape, np.uint8)
    for start in range(0, len(images), ROWS):
        chunk = images[start : start + ROWS]
        converted[start : start + ROWS] = np.rint(chunk.astype(np.float64) * scale)
    return converted


def to_channels_first(images: np.ndarray, split: str) -> np.ndarray:
    """Convert [N, H, W], [N, H, W, C] or [N, C, H, W] with C = 1 or 3 to [N, C, H, W].

    Args:
        images: in one of these layouts.
        split: for the message.

    Returns:
        [N, C, H, W].

    Raises:
        ValueError: another layout, or one that could be two of these.
    """
    if images.ndim == 3:
        return images[:, None]
    # With 1 or 3 at both ends (or neither) the layout would be a guess.
    first, last = (images.ndim == 4 and images.shape[axis] in {1, 3} for axis in (1, -1))
    if first == last:
        raise ValueError(f"{split} images must be {LAYOUTS}, got {images.shape}; reshape them")
    return np.ascontiguousarray(images if first else images.transpose(0, 3, 1, 2))
