"""Arrays of every kind that users have: taken by a stated rule with a note, or refused with advice that works."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Subset, TensorDataset

from memscore.data.array_labels import encode_labels
from memscore.data.datasets import load_dataset

N = 40
PIXELS = np.random.default_rng(0).integers(0, 256, (N, 4, 5), dtype=np.uint8)
LABELS = np.arange(N) % 4


@pytest.fixture
def load(monkeypatch):
    """Load what a user's function returns."""

    def load(result, **options):
        monkeypatch.setitem(sys.modules, "mine", SimpleNamespace(make=lambda: result))
        return load_dataset("mine:make", **({"validation": 0} | options))

    return load


def images_in_order(splits):
    """The images of train and test by the numbers in their ids."""
    parts = (splits.train, splits.test)
    rows = {int(id_[4:]): image for part in parts for id_, image in zip(part.ids, part.images, strict=True)}
    return np.stack([rows[number] for number in range(N)])


@pytest.mark.parametrize(
    ("images", "note"),
    [
        (PIXELS / 255, "float64 images from 0 to 1: multiplied by 255 and rounded"),
        (torch.from_numpy(PIXELS / np.float32(255))[:, None], "float32 images from 0 to 1: multiplied by 255"),
        (PIXELS.astype(np.float32), "float32 images from 0 to 255: read as 0..255"),
        (PIXELS.astype(np.int64), "int64 images from 0 to 255: read as 0..255"),
        (list(PIXELS), ""),
        ([Image.fromarray(image) for image in PIXELS], ""),
    ],
)
def test_images_of_a_certain_range_give_the_same_pixels(load, images, note):
    splits = load((images, LABELS))
    assert (images_in_order(splits)[:, 0] == PIXELS).all()
    assert "".join(splits.notes).startswith(note)
    assert bool(splits.notes) == bool(note)
    assert splits.fingerprint == load((PIXELS, LABELS)).fingerprint


def test_bool_images_are_black_and_white(load):
    splits = load((PIXELS > 128, LABELS))
    assert (images_in_order(splits)[:, 0] == np.where(PIXELS > 128, 255, 0)).all()
    assert splits.notes == ("bool images: False is read as 0, True as 255",)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (PIXELS / 127.5 - 1, "look normalized; give them as they are before"),
        (PIXELS / 10, "white could be 1, 255 or another value; multiply them so that white is 255"),
        (PIXELS.astype(np.uint16) * 257, r"for 16 bits use \(images // 257\).astype\(numpy.uint8\)"),
        (np.where(PIXELS > 250, np.nan, PIXELS), "replace what is not finite"),
        (PIXELS.astype(np.uint8).reshape(N, 20), "images are flat, .*; use images.reshape"),
        (np.zeros((N, 3072), np.uint8), r"use images.reshape\(-1, 3, 32, 32\) if they are square"),
        (np.zeros((N, 8, 8, 4), np.uint8), r"have 4 channels, .*; drop alpha with images\[..., :3\]"),
        ([*PIXELS[1:], PIXELS[0][:2]], "must share one shape, got 2 .* --image-size 32"),
        (np.array([["a"] * 4] * N), "images must be numbers"),
    ],
)
def test_images_that_could_mean_several_things_are_refused_with_what_works(load, images, message):
    with pytest.raises(ValueError, match=message):
        load((images, LABELS))


def test_images_of_several_sizes_are_brought_to_one(load):
    images = [np.full((4 + row % 3, 5, 3), row, np.uint8) for row in range(N)]
    assert load((images, LABELS), resize="6x7").train.images.shape == (32, 3, 6, 7)
    assert load((PIXELS, LABELS), resize="8").train.images.shape == (32, 1, 8, 8)


@pytest.mark.parametrize(
    ("labels", "names", "note"),
    [
        (LABELS, None, ""),
        (LABELS[:, None], None, "labels [N, 1] are read as [N]"),
        (np.eye(4)[LABELS], None, "labels [N, 4] are one-hot: the position of the 1 is the label"),
        (LABELS.astype(float), None, "float64 labels are whole numbers and read as such"),
        (LABELS + 1, ("1", "2", "3", "4"), "labels are 1, 2, 3, 4: numbered 0..3 in this order"),
        (LABELS * 5, ("0", "5", "10", "15"), "labels are 0, 5, 10, 15: numbered 0..3 in this order"),
        (np.array(["ant", "bee", "cat", "dog"])[LABELS], ("ant", "bee", "cat", "dog"), ""),
        (np.array(["ant", "bee", "cat", "dog"], object)[LABELS], ("ant", "bee", "cat", "dog"), ""),
        (torch.from_numpy(LABELS), None, ""),
        (LABELS.tolist(), None, ""),
    ],
)
def test_labels_of_every_kind_become_the_same_numbers(labels, names, note):
    numbers, class_names, notes = encode_labels({"all": labels})
    assert numbers["all"].tolist() == LABELS.tolist()
    assert numbers["all"].dtype == np.int64
    assert (class_names, "".join(notes)) == (names, note)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.where(LABELS == 0, -1, LABELS), "label -1 of all/00000 is negative, .*; leave such images out"),
        (LABELS / 3, "names of classes, .* cut it into ranges first"),
        (np.ones((N, 4), int), r"are not one-hot, .* use labels.argmax\(1\)"),
        (np.zeros(N, int), "at least 2 classes, got 1: 0; add another"),
        (LABELS.reshape(2, 20, 1), r"must be one for each image, \[N\]"),
    ],
)
def test_labels_that_name_no_class_are_refused_with_what_works(labels, message):
    with pytest.raises(ValueError, match=message):
        encode_labels({"all": labels})


def test_given_class_names_follow_the_labels():
    names = ["ant", "bee", "cat", "dog"]
    assert encode_labels({"all": LABELS}, names)[1] == tuple(names)
    assert encode_labels({"all": LABELS + 1}, names)[1] == tuple(names)
    assert encode_labels({"all": LABELS[LABELS != 1]}, names)[1] == ("ant", "cat", "dog")
    numbers, order, _ = encode_labels({"all": np.array(names)[LABELS]}, names[::-1])
    assert (order, numbers["all"][:4].tolist()) == (tuple(names[::-1]), [3, 2, 1, 0])
    with pytest.raises(ValueError, match="one name for each of the 4 classes 0, 1, 2, 3, got 3"):
        encode_labels({"all": LABELS}, names[:3])


@pytest.mark.parametrize(
    "keys", [("x_train", "y_train", "x_test", "y_test"), ("train_images", "train_labels", "test_images", "test_labels")]
)
def test_npz_files_of_keras_and_medmnist_are_read(tmp_path, keys):
    x, y, x_test, y_test = keys
    arrays = {x: PIXELS, y: LABELS[:, None], x_test: PIXELS[:8], y_test: LABELS[:8, None]}
    if x == "train_images":
        arrays |= {"val_images": PIXELS[:4], "val_labels": LABELS[:4, None]}
    np.savez(tmp_path / "mine.npz", **arrays, class_names=np.array(["ant", "bee", "cat", "dog"]))
    splits = load_dataset(str(tmp_path / "mine.npz"))
    assert (len(splits.test), splits.class_names) == (8, ("ant", "bee", "cat", "dog"))
    assert len(splits.validation) == 4
    assert splits.origin["class_names"] == ["ant", "bee", "cat", "dog"]


def pil_dataset():
    return [(Image.fromarray(image), int(label)) for image, label in zip(PIXELS, LABELS, strict=True)]


class Items:
    """A dataset by protocol: a length and items by number."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, row):
        return self.items[row]


def test_a_function_returns_what_is_at_hand(load):
    half = N // 2
    tensors = TensorDataset(torch.from_numpy(PIXELS / np.float32(255))[:, None], torch.from_numpy(LABELS))
    same = load((PIXELS, LABELS)).fingerprint
    for result in (
        {"images": PIXELS, "labels": LABELS},
        {"train": (PIXELS, LABELS)},
        tensors,
        Items(pil_dataset()),
        Items([{"image": image, "label": label} for image, label in pil_dataset()]),
    ):
        assert load(result).fingerprint == same
    two = load((PIXELS[:half], LABELS[:half], PIXELS[half:], LABELS[half:])).fingerprint
    parts = [Subset(tensors, range(half)), Subset(tensors, range(half, N))]
    for result in (
        tuple(parts),
        {"train": parts[0], "test": parts[1]},
        ((PIXELS[:half], LABELS[:half]), (PIXELS[half:], LABELS[half:])),
        {"x_train": PIXELS[:half], "y_train": LABELS[:half], "x_test": PIXELS[half:], "y_test": LABELS[half:]},
    ):
        assert load(result).fingerprint == two
    three = (parts[0], TensorDataset(*tensors[:4]), parts[1])
    assert len(load(three, validation=None).validation) == 4


def test_a_function_gives_ids_and_class_names(load):
    ids, names = [f"scan-{row}" for row in range(N)], ["ant", "bee", "cat", "dog"]
    splits = load({"images": PIXELS, "labels": LABELS, "ids": ids, "class_names": names})
    assert splits.class_names == tuple(names)
    assert set(splits.train.ids) | set(splits.test.ids) == set(ids)
    dataset = Items(pil_dataset())
    dataset.classes = names
    assert load(Subset(dataset, range(N))).class_names == tuple(names)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (PIXELS, "got ndarray; fix that function"),
        (DataLoader(TensorDataset(torch.zeros(4, 1))), "got DataLoader; return its .dataset"),
        ((PIXELS,) * 5, "got tuple of 5"),
        ({"test": (PIXELS, LABELS)}, "got dict"),
        ({"pixels": PIXELS}, "lacks train_images"),
        (Items([{"a": 1}]), "have a; they need image and label"),
        (Items([PIXELS[0]]), r"must be \(image, label\), got ndarray"),
        (Items([]), "a Dataset without items"),
    ],
)
def test_a_result_of_another_shape_is_refused_with_all_that_would_do(load, result, message):
    with pytest.raises(ValueError, match=message):
        load(result)


def test_a_dataset_with_random_transforms_is_refused(load):
    class Noisy(Items):
        def __getitem__(self, row):
            return torch.rand(1, 4, 4), 0

    with pytest.raises(ValueError, match=r"differs between two reads; leave out random transforms .*--augment"):
        load(Noisy([0] * 8))
