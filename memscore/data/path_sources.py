"""Read a data set from a path: a folder of images, a table of files and labels, Parquet, or arrays."""

from dataclasses import replace
from pathlib import Path

from memscore.data.array_sources import read_npz
from memscore.data.data_folder import DataFolder
from memscore.data.image_files import DecodedImages, ImageListing, read_images
from memscore.data.image_folder import SUFFIXES, list_files, list_image_folder
from memscore.data.image_size import Size
from memscore.data.image_table import find_metadata, list_image_table, list_metadata_folder
from memscore.data.named_errors import name_in_errors
from memscore.data.parquet_images import list_parquet_images
from memscore.data.sources import PublishedDataset, build_published
from memscore.data.splits import Dataset

TABLE_SUFFIXES, PARQUET_SUFFIX, ARRAY_SUFFIX = (".csv", ".tsv", ".jsonl"), ".parquet", ".npz"
KINDS = "a folder of images, a .csv of files and labels, a .parquet file or folder with images, or an .npz archive"
ADVICE = {
    ".npy": "one array has no labels: save both with numpy.savez('mine.npz', images=images, labels=labels)",
    **dict.fromkeys((".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"), "unpack it and give its folder"),
    **dict.fromkeys(
        (".pt", ".pth", ".pkl", ".pickle", ".mat", ".h5", ".hdf5", ".arrow", ".tfrecord"),
        "write a function that returns images and labels, and give module:function",
    ),
    **dict.fromkeys((".xlsx", ".txt", ".json"), "save it as .csv with the columns file and label"),
}
"""What would work in place of a file of another kind, by its suffix."""


def read_path(
    path: Path, name: str | None, *, test: float | None, size: Size | None, skip_bad: bool, follow_links: bool = False
) -> PublishedDataset:
    """Read a data set from an existing path, by what lies there.

    Args:
        path: a folder or a file.
        name: the data set's name in the store; None for that of the folder or file.
        test: as load_dataset's.
        size: height and width to which images are brought.
        skip_bad: as load_dataset's.
        follow_links: as load_dataset's.

    Returns:
        The data set.

    Raises:
        ValueError: nothing there can be read as a data set.
    """
    label = name or (path.resolve().name if path.is_dir() else path.stem)
    with name_in_errors(path):
        listing = _list_images(path, follow_links=follow_links)
        if listing is None:
            if skip_bad:
                raise ValueError(f"--skip-bad leaves out image files, and {path} holds arrays; leave it out")
            return read_npz(path, label, test, size)
        return _build_from_images(label, read_images(listing, size, skip_bad=skip_bad), test)


def _list_images(path: Path, *, follow_links: bool) -> ImageListing | None:
    """List the images of a folder, table or Parquet file; None for an archive of arrays."""
    place = DataFolder(path if path.is_dir() else path.parent, follow_links=follow_links)
    if path.is_dir():
        if metadata := find_metadata(place):
            return list_metadata_folder(place, metadata)
        files, _ = list_files(path)
        if not any(file.name.lower().endswith(SUFFIXES) for file in files):
            if parquet := sorted(file for file in files if file.suffix.lower() == PARQUET_SUFFIX):
                return list_parquet_images(path, [place.require_inside(file) for file in parquet], place)
            if any(file.suffix == ".arrow" for file in files):
                raise ValueError(
                    f"{path} holds Arrow files, as Hugging Face's save_to_disk writes them; write each split with "
                    "dataset.to_parquet('train.parquet') and give the folder of these"
                )
        return list_image_folder(path, follow_links=follow_links)
    suffix = path.suffix.lower()
    if suffix in TABLE_SUFFIXES:
        return list_image_table(path, place=place)
    if suffix == PARQUET_SUFFIX:
        return list_parquet_images(path, [path], place)
    if suffix != ARRAY_SUFFIX:
        raise ValueError(f"{path} is no data set; {ADVICE.get(suffix, f'give {KINDS}')}")
    return None


def _build_from_images(name: str, decoded: DecodedImages, test: float | None) -> PublishedDataset:
    """Build a data set of decoded images; a test split that only skip_bad emptied is missed by Splits."""
    parts = {
        split: Dataset(images=images, labels=labels, labels_true=labels.copy(), ids=ids)  # type: ignore[arg-type]
        for split, (images, labels, ids) in decoded.parts.items()
    }
    if "all" not in parts and "test" not in parts:
        raise ValueError(f"no image of the test split of {name} can be used; replace them")
    published = build_published(name, parts, test=test, class_names=decoded.class_names, is_owned=True)
    return replace(published, notes=decoded.notes, left_out=decoded.left_out)
