"""A data set as a source gives it, before a seed or a limit changes it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from memscore.data.splits import Dataset, split_stratified
from memscore.seeds import generator
from memscore.units import format_count

DEFAULT_TEST = 0.2
"""Share of a data set without a test split that becomes its test set."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PublishedDataset:
    """A data set as published, before a seed or a limit changes it."""

    name: str
    train: Dataset
    test: Dataset
    n_classes: int
    validation: Dataset | None = None
    default_validation: int | None = None  # images to hold out when the user gives no share; None is 10 % of train
    mean_std: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    label_changes: Mapping[str, object] = field(default_factory=dict)  # what changed the labels, for the manifest
    class_names: tuple[str, ...] | None = None  # in the order of the labels; None where the source gives none
    notes: tuple[str, ...] = ()  # what reading changed or left out, one line each
    left_out: tuple[Mapping[str, str], ...] = ()  # path and reason of each image that skip_bad left out
    is_owned: bool = False  # nobody else has the arrays, so splitting may move their images
    origin: Mapping[str, object] = field(default_factory=dict)


def build_published(
    name: str,
    parts: Mapping[str, Dataset],
    *,
    test: float | None = None,
    default_test: int | None = None,
    class_names: tuple[str, ...] | None = None,
    is_owned: bool = False,
) -> PublishedDataset:
    """Build a published data set from its splits; the single split "all" gives a share of it as test set.

    Args:
        name: its name in the store.
        parts: train, test and perhaps validation; or all.
        test: share of "all" in (0, 1) that becomes the test set; None for default_test.
        default_test: images of the test set without a share; None for DEFAULT_TEST.
        class_names: names in the order of the labels, where there are any.
        is_owned: nobody else has the arrays of parts, so that their images may be moved.

    Returns:
        The data set; the test set is the same for every seed.

    Raises:
        ValueError: labels that are not 0..K-1, or a share where it cannot be.
    """
    train = parts["all"] if "all" in parts else parts["train"]
    classes = np.unique(train.labels)
    n_classes = len(classes)
    if n_classes < 2:
        raise ValueError(f"the training set of {name} must have at least 2 classes, got {n_classes}; add another")
    if classes[0] != 0 or classes[-1] != n_classes - 1:
        labels = f"{n_classes} different ones from {classes[0]} to {classes[-1]}"
        raise ValueError(f"training labels of {name} must be 0..K-1 without gaps, got {labels}; renumber them")
    if class_names is not None:
        class_names = class_names[:n_classes]  # a part of a published data set may lack its last classes
    # Published splits stay as they are. A test set drawn from a single split is drawn with seed 0, so it is the same
    # for every seed of a user.
    if "all" not in parts:
        require_no_test_share(name, test, len(parts["test"]))
        validation, test_part = parts.get("validation"), parts["test"]
    else:
        size = default_test or max(1, round(len(train) * DEFAULT_TEST))
        if test is not None:
            size = round(len(train) * test)
            if not size:
                raise ValueError(f"test {test} of {len(train)} images is none of them; use a larger share")
        test_part, train = split_stratified(train, size, generator(0, "validation", "fixed-test"), in_place=is_owned)
        require_every_class(
            train,
            n_classes,
            f"the test set of {format_count(size, 'image')} of {name}",
            "use a smaller --test, bring a test split",
            class_names,
        )
        validation = None
    return PublishedDataset(
        name=name,
        train=train,
        test=test_part,
        validation=validation,
        n_classes=n_classes,
        class_names=class_names,
        is_owned=is_owned,
    )


def require_no_test_share(name: str, test: float | None, n_test: int) -> None:
    """Raise ValueError if a share for the test set is given beside a test split of the source's own."""
    if test is not None:
        raise ValueError(
            f"{name} has its own test split ({format_count(n_test, 'image')}), so test cannot be {test:g}; leave it "
            "out to use that "
            "split"
        )


def require_every_class(
    train: Dataset, n_classes: int, cause: str, hint: str, class_names: tuple[str, ...] | None = None
) -> None:
    """Raise ValueError if a split left the training set without a class."""
    for missing in np.setdiff1d(np.arange(n_classes), train.labels)[:1].tolist():
        label = class_names[missing] if class_names else missing
        raise ValueError(
            f"{cause} leaves no training image of class {label}: there are too few; {hint}, add images of it, or drop "
            "that class"
        )
