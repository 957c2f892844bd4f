"""Files that torchvision reads a data set from, and what is wrong with those that lie in a folder.

Addresses, names and checksums are those of torchvision's classes.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class PublisherFile:
    """One file of a data set.

    Attributes:
        path: where it is read.
        md5: its checksum; None where torchvision knows none.
        archive: the file that holds it; None where it is published as it is read.
        urls: where it is published; empty for a file of an archive.
    """

    path: Path
    md5: str | None
    archive: "PublisherFile | None" = None
    urls: tuple[str, ...] = ()


def list_publisher_files(kind: Any, root: Path) -> list[PublisherFile]:
    """List the files that a torchvision class reads.

    Args:
        kind: MNIST, FashionMNIST, CIFAR10, CIFAR100 or SVHN of torchvision.
        root: the folder that it is given.

    Returns:
        Every file, with the archive that it is unpacked from.
    """
    # The classes describe their files in three ways, and share no method that lists them.
    if hasattr(kind, "split_list"):  # SVHN
        return [
            PublisherFile(path=root / name, md5=md5, urls=(url,))
            for url, name, md5 in (kind.split_list[split] for split in ("train", "test"))
        ]
    if hasattr(kind, "resources"):  # MNIST: one archive a file
        folder = root / kind.__name__ / "raw"
        archives = [
            PublisherFile(path=folder / name, md5=md5, urls=tuple(f"{mirror}{name}" for mirror in kind.mirrors))
            for name, md5 in kind.resources
        ]
        return [PublisherFile(path=archive.path.with_suffix(""), md5=None, archive=archive) for archive in archives]
    archive = PublisherFile(path=root / kind.filename, md5=kind.tgz_md5, urls=(kind.url,))
    names = [*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])]
    return [PublisherFile(path=root / kind.base_folder / name, md5=md5, archive=archive) for name, md5 in names]


def describe_faults(files: Sequence[PublisherFile], root: Path, reason: str) -> str:
    """Describe what keeps a data set from being read, and what to do.

    Args:
        files: of list_publisher_files.
        root: the folder of the data set.
        reason: why the last attempt failed, such as an error of the network.

    Returns:
        One line, which begins with what is wrong.
    """
    compute_md5 = cache(_compute_md5)  # an archive is asked for by each of its files

    def is_whole(file: PublisherFile) -> bool:
        return file.path.is_file() and (file.md5 is None or compute_md5(file.path) == file.md5)

    # 1. Sort the files. A whole archive makes all its files again, so it is checked where one of them is not there.
    damaged, packed, missing = dict[PublisherFile, None](), dict[PublisherFile, None](), list[PublisherFile]()
    for file in files:
        if file.path.is_file():
            damaged |= {} if is_whole(file) else {file: None}
        elif file.archive is not None and file.archive.path.is_file():
            (packed if is_whole(file.archive) else damaged)[file.archive] = None
        else:
            missing.append(file)
    faults = [f"{file.path} has md5 {compute_md5(file.path)}, expected {file.md5}" for file in damaged]
    faults += [f"{file.path} is there but was not unpacked" for file in packed]
    if missing:
        names = [file.path.relative_to(root).as_posix() for file in missing]
        faults.append(f"missing {', '.join(names)}")
    if not faults:
        return (
            f"its files are there but cannot be read ({reason}); delete {files[0].path.parent} to have them made again"
        )
    # 2. What to do, in this order: torchvision takes a damaged file for a missing one only once it is deleted.
    advice = [f"delete {', '.join(file.path.name for file in damaged)}"] if damaged else []
    advice += [f"unpack {', '.join(file.path.name for file in packed)} in {file.path.parent}" for file in [*packed][:1]]
    if misplaced := _find_misplaced(missing, root):
        advice.append(f"move {misplaced}")
    elif missing or damaged:
        advice.append(_describe_source(list(dict.fromkeys(file.archive or file for file in (*missing, *damaged)))))
    options = "or name a folder that has all (--folder or $MEMSCORE_DATA)"
    return f"{'; '.join(faults)} ({reason}); {', '.join(advice)}, {options}"


def _find_misplaced(missing: Sequence[PublisherFile], root: Path) -> str:
    """Find missing files or their archives that lie in the folder itself or in one beside their place."""
    found: dict[str, None] = {}
    for file in missing:
        for candidate in (file, file.archive):
            if candidate is not None and candidate.path.parent != root and (root / candidate.path.name).is_file():
                found[f"{root / candidate.path.name} to {candidate.path.parent}"] = None
    return ", ".join(found)


def _describe_source(files: Sequence[PublisherFile]) -> str:
    """Describe which files to fetch, from where, into which folder."""
    address = files[0].urls[0].rpartition("/")[0] + "/"
    names = ", ".join(f"{file.urls[0].removeprefix(address)} (md5 {file.md5})" for file in files)
    return (
        f"fetch from {address} where there is a network: {names}, and put {'them' if len(files) > 1 else 'it'} into "
        + str(files[0].path.parent)
    )


def _compute_md5(path: Path) -> str:
    """Compute the checksum that publishers give; it finds damage, not forgery."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError as error:
        return f"unknown ({error.strerror})"
