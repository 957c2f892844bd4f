"""Data sets that are published as folders of images: CINIC-10 and Tiny-ImageNet, found where they were unpacked."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from memscore.data.data_folder import DataFolder
from memscore.data.image_size import Size
from memscore.data.path_sources import read_path
from memscore.data.sources import PublishedDataset
from memscore.reading_limit import read_whole_file


@dataclass(frozen=True, kw_only=True)
class PublishedFolder:
    """A data set as its publisher packs it.

    Attributes:
        url: where the archive is published.
        size: of the archive, in words; "" where it is not known.
        unpack: the command that unpacks it in the data set's folder.
        top_folder: the folder that all of the archive lies in; "" if there is none.
        n_classes: number of classes.
        n_images: number of images that memscore reads.
    """

    url: str
    size: str
    unpack: str
    top_folder: str
    n_classes: int
    n_images: int

    @property
    def archive(self) -> str:
        """Name of the archive."""
        return self.url.rpartition("/")[2]


PUBLISHED_FOLDERS = {
    "cinic10": PublishedFolder(
        url="https://datashare.ed.ac.uk/bitstream/handle/10283/3192/CINIC-10.tar.gz",
        size="",
        unpack="tar -xzf",
        top_folder="",
        n_classes=10,
        n_images=270_000,
    ),
    "tiny-imagenet": PublishedFolder(
        url="http://cs231n.stanford.edu/tiny-imagenet-200.zip",
        size="about 240 MB",
        unpack="unzip",
        top_folder="tiny-imagenet-200",
        n_classes=200,
        n_images=110_000,
    ),
}
"""Data sets that are read by name once they are unpacked. Tiny-ImageNet's 10,000 test images have no labels."""


def list_places(name: str, folder: str | None) -> list[Path]:
    """List the folders in which a published folder may lie, the first choice first."""
    top = PUBLISHED_FOLDERS[name].top_folder
    if folder is not None:
        root = Path(folder).expanduser()
        return [root, root / name, *([root / top, root / name / top] if top else [])]
    root = Path(os.environ.get("MEMSCORE_DATA") or "~/.cache/memscore/data").expanduser()
    return [root / name, *([root / name / top, root / top] if top else [])]


def find_published_folder(name: str, folder: str | None) -> Path | None:
    """Find the folder with train/ of a data set; None if it is in none of the places."""
    return next((place for place in list_places(name, folder) if (place / "train").is_dir()), None)


def load_published_folder(
    name: str, folder: str | None, *, test: float | None, size: Size | None, skip_bad: bool, follow_links: bool = False
) -> PublishedDataset:
    """Load a data set that its publisher packs as a folder of images.

    Args:
        name: a key of PUBLISHED_FOLDERS.
        folder: the unpacked folder, or one that holds it; None for $MEMSCORE_DATA or ~/.cache/memscore/data.
        test: as load_dataset's.
        size: height and width to which images are brought.
        skip_bad: as load_dataset's.
        follow_links: as load_dataset's.

    Returns:
        The data set, with the names of words.txt as class names where the folders are WordNet ids, and a note where
        images or classes are missing.

    Raises:
        OSError: the data set is in none of the places.
    """
    place = find_published_folder(name, folder)
    if place is None:
        raise OSError(_describe_missing(name, folder))
    source = read_path(place, name, test=test, size=size, skip_bad=skip_bad, follow_links=follow_links)
    known, notes = PUBLISHED_FOLDERS[name], list(source.notes)
    n_images = sum(len(part) for part in (source.train, source.validation, source.test) if part is not None)
    if (source.n_classes, n_images) != (known.n_classes, known.n_images):
        notes.append(
            f"{place} is not all of {name}: {source.n_classes} of {known.n_classes} classes, {n_images:,} of "
            f"{known.n_images:,} images"
        )
    return replace(
        source,
        class_names=_read_class_names(DataFolder(place, follow_links=follow_links), source.class_names),
        notes=tuple(notes),
    )


def _describe_missing(name: str, folder: str | None) -> str:
    """Say where a data set was sought, and how to get it there."""
    known, places = PUBLISHED_FOLDERS[name], list_places(name, folder)
    target = places[0]
    # With --folder the archive may lie in it; without, beside the data set's own folder too.
    around = (target, target.parent) if folder is None else (target,)
    near = [place / known.archive for place in around if (place / known.archive).is_file()]
    if near:
        found, fetch = f"{near[0]} is there but was not unpacked", ""
    else:
        found = f"no folder train/ in {', '.join(map(str, places))}"
        size = f" ({known.size})" if known.size else ""
        fetch = f"fetch {known.url}{size}, "
    archive = near[0] if near else "$OLDPWD/" + known.archive
    unpack = f"mkdir -p {target} && cd {target} && {known.unpack} {archive}"
    return f"{name} is not downloaded by memscore; {found}: {fetch}unpack it by '{unpack}', or give its --folder"


def _read_class_names(place: DataFolder, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Replace WordNet ids by the first word of their lines in words.txt, or all where two classes share the first."""
    words = place.root / "words.txt"
    if names is None or not words.is_file():
        return names
    content = read_whole_file(place.require_inside(words))
    lines = (line.partition("\t") for line in content.decode("utf-8", errors="replace").splitlines())
    meanings = {key: meaning.strip() for key, tab, meaning in lines if tab and meaning.strip()}
    whole = [meanings.get(name, name) for name in names]
    short = [meaning.partition(",")[0] for meaning in whole]
    return tuple(word if short.count(word) == 1 else meaning for word, meaning in zip(short, whole, strict=True))
