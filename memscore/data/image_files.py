"""Decode listed image files by one rule, and name everything that is wrong with them at once.

The rule for one file: the first frame, turned upright by its EXIF orientation, alpha dropped, as gray if every image is
gray and else as RGB, scaled and cropped where a size is given. Gray of more than 8 bits is refused: which of its values
is white does not stand in the file.
"""

import math
import os
import stat
import tempfile
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from memscore.data.image_size import Size, resize_image
from memscore.reading_limit import require_memory
from memscore.units import format_count, format_value

GRAY, COLOUR = {"1", "L", "LA"}, {"RGB", "RGBA", "P", "PA", "CMYK", "YCbCr"}
"""Pillow's modes of 8 bits a channel and less."""

FAULTS_SHOWN = 10
THREADS = min(8, os.cpu_count() or 1)  # Pillow decodes without Python's lock
CHUNK, CHUNK_BYTES = 32 * THREADS, 2**28  # files and bytes in memory at a time, where a source holds their bytes
MAX_PIXELS = 178_956_970
"""Of one image: Pillow's own limit for what it takes for a bomb; decoded as RGBA that is 0.7 GB."""
LARGE_PIXELS = 2**24
"""From here on images are decoded one at a time, so that threads do not hold several large ones."""
FORMATS = ("BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""Recognized by content, whatever the name (JPEG is MPO too): Pillow would start Ghostscript for EPS."""
_large_image = threading.Lock()

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class ImageEntry:
    """One image of a listing: its split ("all" where there are none), id and class, or why it cannot be used."""

    split: str
    id: str
    class_name: str
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class ImageListing:
    """The images of a source, before any is opened.

    Attributes:
        place: the source, for messages.
        entries: one for each image, in the order of rows within their splits.
        open_files: gives the path or the content of each entry's file, in their order.
        class_order: all class names in the order of labels; None sorts those of the training images.
        empty_classes: places where a class is announced that holds no image.
        notes: what was passed over, for the user.
    """

    place: str
    entries: Sequence[ImageEntry]
    open_files: Callable[[], Iterable[Path | bytes]]
    class_order: tuple[str, ...] | None = None
    empty_classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class DecodedImages:
    """Splits in memory: split -> (images uint8 [N, C, H, W], labels int64 [N], ids)."""

    parts: dict[str, tuple[np.ndarray, np.ndarray, list[str]]]
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    left_out: tuple[dict[str, str], ...] = ()


@dataclass(kw_only=True)
class ImageFacts:
    """What a file says of its image, and why the image cannot be used if it cannot."""

    fault: str = ""
    size: Size = (0, 0)  # upright
    mode: str = ""
    traits: set[str] = field(default_factory=set)


TRAITS = {
    "turned": "turned upright by their EXIF orientation",
    "alpha": "have transparency: alpha is dropped, the colours below it stay",
    "palette": "have a palette: read as its colours",
    "cmyk": "are CMYK: converted to RGB without a colour profile",
    "deep": "have 16 bits a channel: the upper 8 are used",
    "frames": "hold several frames: only the first is read",
}
"""The end of the sentence about images that have a trait."""


def read_images(listing: ImageListing, size: Size | None = None, *, skip_bad: bool = False) -> DecodedImages:
    """Decode all images of a listing.

    Args:
        listing: the images.
        size: height and width to scale and crop to; None requires that all have one size.
        skip_bad: leave out what cannot be used instead of raising.

    Returns:
        The splits, with labels in the order of class_names, and lines on what was changed.

    Raises:
        ValueError: images that cannot be used (all of them are counted, the first ten named), several sizes, or less
            than two classes.
    """
    entries = listing.entries
    # Pillow warns of large images and odd metadata; the files are the user's own, and what cannot be read is a fault.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")

        def read_header(number: int, file: Path | bytes) -> ImageFacts:
            # what may not be read, such as what lies behind a link, is not opened
            problem = entries[number].problem
            return ImageFacts(fault=problem) if problem else _read_header(file)

        facts = list(_map_in_threads(read_header, listing.open_files()))
        modes = {fact.mode for fact in facts if not fact.fault}
        mode = "L" if modes <= GRAY else "RGB"
        sizes = Counter(fact.size for fact in facts if not fact.fault)
        sizes_fault = "" if size is not None or len(sizes) < 2 else _describe_sizes(sizes)
        # Pixels are kept only if the images can be used; else the files are decoded to find all that are broken.
        is_kept = not sizes_fault and (skip_bad or not any(fact.fault for fact in facts))
        shape = size or (next(iter(sizes)) if sizes else (1, 1))
        rows = _number_rows(entries, facts)
        pixels = _allocate(listing.place, entries, rows, (len(mode), *shape)) if is_kept else {}

        def decode(number: int, file: Path | bytes) -> None:
            if not facts[number].fault:
                target = pixels[entries[number].split][rows[number]] if is_kept else None
                _decode(file, mode, size, facts[number], target)

        for _ in _map_in_threads(decode, listing.open_files()):
            pass
    names = _list_class_names(listing, facts)
    _find_unknown_classes(entries, facts, names)
    faults = [(entry.id, fact.fault) for entry, fact in zip(entries, facts, strict=True) if fact.fault]
    faults += [(name, "a class without images") for name in listing.empty_classes]
    if sizes_fault or (faults and not skip_bad):
        raise ValueError(_describe_faults(listing.place, faults, len(entries), sizes_fault, skips=skip_bad))
    if len(names) < 2:
        raise ValueError(
            f"{listing.place} must hold images of 2 or more classes, found {format_value(list(names))}; add them"
        )
    parts = _collect_parts(entries, facts, rows, pixels, names)
    notes = (*listing.notes, *_describe_traits(facts, mode, sizes, size), *_describe_left_out(faults, len(entries)))
    left_out = tuple({"path": path, "reason": reason} for path, reason in faults)
    return DecodedImages(parts=parts, class_names=names, notes=notes, left_out=left_out)


def _map_in_threads(function: Callable[[int, Path | bytes], Result], files: Iterable[Path | bytes]) -> Iterator[Result]:
    """Apply a function of number and file in threads, in order, with few files in memory at a time."""
    with ThreadPoolExecutor(THREADS) as threads:
        for first, chunk in _split_into_chunks(files):
            yield from threads.map(function, range(first, first + len(chunk)), chunk)


def _split_into_chunks(files: Iterable[Path | bytes]) -> Iterator[tuple[int, list[Path | bytes]]]:
    """Yield lists of at most CHUNK files and few more than CHUNK_BYTES, each with the number of its first file."""
    # Both are bounded, since a Parquet file holds images of any size, and threads wait for a whole list of them.
    first, chunk, n_bytes = 0, list[Path | bytes](), 0
    for file in files:
        chunk.append(file)
        n_bytes += len(file) if isinstance(file, bytes) else 0
        if len(chunk) == CHUNK or n_bytes >= CHUNK_BYTES:
            yield first, chunk
            first, chunk, n_bytes = first + len(chunk), [], 0
    yield first, chunk


def _open(file: Path | bytes) -> Image.Image:
    """Open an image file that Pillow may decode; raise for what is no file, another format or too large."""
    # a named pipe would be waited for
    if not isinstance(file, bytes) and not stat.S_ISREG(os.stat(file).st_mode):
        raise ValueError("no regular file")
    image: Image.Image = Image.open(BytesIO(file) if isinstance(file, bytes) else file, formats=FORMATS)
    width, height = image.size
    if width * height > MAX_PIXELS:
        image.close()
        raise Image.DecompressionBombError
    return image


def _read_header(file: Path | bytes) -> ImageFacts:
    """Read size, mode and traits without decoding the image."""
    facts = ImageFacts()
    try:
        with _open(file) as image:
            width, height = image.size
            facts.mode = image.mode
            # A PNG is decoded whole by getexif, so its orientation is taken from what stands before the pixels.
            has_exif = image.format != "PNG" or "exif" in image.info
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1) if has_exif else 1
            traits = {
                "turned": orientation in range(2, 9),
                "palette": image.mode in {"P", "PA"},
                "cmyk": image.mode == "CMYK",
                "deep": any(";16" in str(tile[-1]) for tile in image.tile),
                # A phone's MPO is a JPEG with small copies behind it.
                "frames": getattr(image, "is_animated", False) and image.format != "MPO",
            }
        facts.size = (width, height) if orientation in range(5, 9) else (height, width)
        facts.traits = {name for name, value in traits.items() if value}
        if image.mode not in GRAY | COLOUR:
            facts.fault = _describe_mode(image.mode)
    except Exception as error:  # decoders raise whatever a broken file makes them
        facts.fault = _describe_error(error, file)
    return facts


def _describe_mode(mode: str) -> str:
    if mode.startswith("I") or mode == "F":
        return f"{'floating-point' if mode == 'F' else '16-bit'} gray, mode {mode}: scale it to 8 bits"
    return f"mode {mode}: convert it to RGB"


def _describe_error(error: Exception, file: Path | bytes) -> str:
    """Describe in some words why a file cannot be decoded."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {MAX_PIXELS:,} pixels, which memscore does not decode: scale it down"
    if isinstance(error, MemoryError):
        return "memory ran out as it was decoded"
    if isinstance(error, UnidentifiedImageError):
        is_empty = not file if isinstance(file, bytes) else not file.stat().st_size
        return "empty file" if is_empty else "no image"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:100]


def _decode(file: Path | bytes, mode: str, size: Size | None, facts: ImageFacts, target: np.ndarray | None) -> None:
    """Decode one image into target [C, H, W], if there is one; note a fault in its facts."""
    try:
        pixels = facts.size[0] * facts.size[1]
        with _large_image if pixels > LARGE_PIXELS else nullcontext():
            _decode_pixels(file, mode, size, facts, target)
    except Exception as error:
        facts.fault = _describe_error(error, file)


def _decode_pixels(
    file: Path | bytes, mode: str, size: Size | None, facts: ImageFacts, target: np.ndarray | None
) -> None:
    """Decode one image into target, and note whether it is transparent."""
    with _open(file) as opened:
        opened.load()
        image: Image.Image = ImageOps.exif_transpose(opened)
    if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema()[0] < 255:
        facts.traits.add("alpha")
    image = image.convert(mode)
    if target is not None:
        # A large image is converted before it is scaled: a palette cannot be interpolated.
        array = np.asarray(image if size is None else resize_image(image, size))
        target[:] = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def _number_rows(entries: Sequence[ImageEntry], facts: Sequence[ImageFacts]) -> list[int]:
    """Give each entry whose header is good its row within its split; -1 to others."""
    counts: Counter[str] = Counter()
    rows = []
    for entry, fact in zip(entries, facts, strict=True):
        rows.append(-1 if fact.fault else counts[entry.split])
        counts[entry.split] += not fact.fault
    return rows


def _allocate(
    place: str, entries: Sequence[ImageEntry], rows: Sequence[int], shape: tuple[int, int, int]
) -> dict[str, np.ndarray]:
    """Make the array of each split, [N, C, H, W], one behind the other in memory; raise where they cannot fit."""
    counts: Counter[str] = Counter()
    for entry, row in zip(entries, rows, strict=True):
        counts[entry.split] += row >= 0
    content = f"{counts.total()} images of {shape[1]}x{shape[2]} in {place}"
    require_memory(counts.total() * math.prod(shape), content, "give a smaller size with --image-size")
    whole, stop, arrays = np.empty((counts.total(), *shape), np.uint8), 0, {}
    for split in sorted(counts, key=["all", "train", "validation", "test"].index):
        arrays[split] = whole[stop : stop + counts[split]]
        stop += counts[split]
    return arrays


def _list_class_names(listing: ImageListing, facts: Sequence[ImageFacts]) -> tuple[str, ...]:
    """List the classes of the training images that can be used, in the order of their labels."""
    present = {
        entry.class_name
        for entry, fact in zip(listing.entries, facts, strict=True)
        if entry.split in {"all", "train"} and not fact.fault
    }
    return tuple(name for name in listing.class_order or sort_class_names(present) if name in present)


def sort_class_names(names: Iterable[str]) -> list[str]:
    """Sort names as text, or as numbers where all of them are whole numbers.

    Args:
        names: any names.

    Returns:
        Each of them once.

    >>> sort_class_names(["10", "9"]), sort_class_names(["10", "9", "cat"])
    (['9', '10'], ['10', '9', 'cat'])
    """
    names = set(names)
    return sorted(names, key=int) if all(name.lstrip("-").isdecimal() for name in names) else sorted(names)


def _find_unknown_classes(entries: Sequence[ImageEntry], facts: Sequence[ImageFacts], names: Sequence[str]) -> None:
    """Note as faults the images of other splits whose class no training image has."""
    known = set(names)
    for entry, fact in zip(entries, facts, strict=True):
        if not fact.fault and entry.class_name not in known:
            fact.fault = f"its class {entry.class_name!r} has no training image"


def _collect_parts(
    entries: Sequence[ImageEntry],
    facts: Sequence[ImageFacts],
    rows: Sequence[int],
    pixels: dict[str, np.ndarray],
    names: Sequence[str],
) -> dict[str, tuple[np.ndarray, np.ndarray, list[str]]]:
    """Close the gaps that broken images left in the arrays, in place, and number the classes."""
    labels = {name: label for label, name in enumerate(names)}
    parts = {}
    for split, images in pixels.items():
        kept = [number for number, entry in enumerate(entries) if entry.split == split and not facts[number].fault]
        if not kept:
            continue
        for new, number in enumerate(kept):
            if new != rows[number]:
                images[new] = images[rows[number]]
        split_labels = np.array([labels[entries[number].class_name] for number in kept], np.int64)
        parts[split] = (images[: len(kept)], split_labels, [entries[number].id for number in kept])
    return parts


def _describe_sizes(sizes: Counter[Size]) -> str:
    """Describe that there are several sizes, the most frequent first."""
    shown = ", ".join(
        f"{height}x{width} ({format_count(count, 'image')})" for (height, width), count in sizes.most_common(3)
    )
    more = f" and {len(sizes) - 3} more" if len(sizes) > 3 else ""
    return (
        f"they have {len(sizes)} sizes, {shown}{more}; a model needs one: give --image-size 32 or another size "
        "to scale and crop all of them"
    )


def _describe_faults(
    place: str, faults: Sequence[tuple[str, str]], n_images: int, sizes_fault: str, *, skips: bool
) -> str:
    """Describe all faults of a source in one line; a long list goes to a file."""
    lines = [f"images in {place} cannot be used as they are: {sizes_fault}"] if sizes_fault else []
    if faults:
        listed = f"; all are listed in {_write_faults(faults)}" if len(faults) > FAULTS_SHOWN else ""
        lines.append(
            f"{len(faults)} of {n_images} images in {place} cannot be read: {_format_faults(faults)}{listed}; "
            + ("they are left out" if skips else "replace or remove them, or leave them out with --skip-bad")
        )
    if any(reason.startswith(("16-bit", "floating-point")) for _, reason in faults):
        lines.append(
            "gray of more than 8 bits is refused because its white is unknown; for the whole 16-bit range write "
            "Image.fromarray((numpy.asarray(image) // 257).astype('uint8'))"
        )
    return ". ".join(lines)


def _format_faults(faults: Sequence[tuple[str, str]], n_shown: int = FAULTS_SHOWN) -> str:
    shown = ", ".join(f"{path} ({reason})" for path, reason in faults[:n_shown])
    return shown + (f", and {len(faults) - n_shown} more" if len(faults) > n_shown else "")


def _write_faults(faults: Sequence[tuple[str, str]]) -> str:
    """Write a list of faults to a new file in the folder for temporary files."""
    with tempfile.NamedTemporaryFile("w", prefix="memscore-images-", suffix=".txt", delete=False) as file:
        file.writelines(f"{path}\t{reason}\n" for path, reason in faults)
    return file.name


def _describe_traits(facts: Sequence[ImageFacts], mode: str, sizes: Counter[Size], size: Size | None) -> Iterator[str]:
    """Say what was changed, with the number of images that it concerns."""
    used = [fact for fact in facts if not fact.fault]
    counts = Counter(trait for fact in used for trait in fact.traits)
    counts["gray"] = sum(fact.mode in GRAY for fact in used) if mode == "RGB" else 0
    for trait, text in (TRAITS | {"gray": "are gray among coloured ones: the three channels are equal"}).items():
        if counts[trait]:
            yield f"{counts[trait]} of {len(used)} images {text}"
    if size is not None and set(sizes) != {size}:
        n_changed = sum(fact.size != size for fact in used)
        yield f"{n_changed} of {len(used)} images scaled to cover {size[0]}x{size[1]}, their centre kept"


def _describe_left_out(faults: Sequence[tuple[str, str]], n_images: int) -> Iterator[str]:
    if faults:
        shown = _format_faults(faults, 3)
        yield f"{len(faults)} of {n_images} images left out: {shown}; data.json in the store lists all of them"
