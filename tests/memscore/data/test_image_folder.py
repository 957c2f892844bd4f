"""TODO: docstring."""

import os

import numpy as np
import pytest
from PIL import Image

from memscore.data.datasets import load_dataset
from memscore.data.image_folder import read_image_folder


def save(path, seed=0, shape=(6, 5, 3)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def plain(root, classes=("cat", "dog"), n=10):
    for label, name in enumerate(classes):
        for index in range(n):
            save(root / name / f"{index:02d}.png", seed=100 * label + index)
    return root


def cinic(root, splits=("train", "valid", "test"), n=4):
    for number, split in enumerate(splits):
        for label, name in enumerate(("airplane", "ship")):
            for index in range(n):
                save(root / split / name / f"{index}.png", seed=100 * number + 10 * label + index)
    return root


def tiny(root):
    for label, name in enumerate(("n01443537", "n02056570")):
        for index in range(4):
            save(root / "train" / name / "images" / f"{name}_{index}.JPEG", seed=10 * label + index)
        (root / "train" / name / f"{name}_boxes.txt").write_text("not an image")
    for index in range(3):
        save(root / "val" / "images" / f"val_{index}.JPEG", seed=100 + index)
        save(root / "test" / "images" / f"test_{index}.JPEG", seed=200 + index)
    lines = (
        "val_0.JPEG\tn02056570\t0\t0\t9\t9",
        "val_2.JPEG\tn02056570\t0\t0\t9\t9",
        "val_1.JPEG\tn01443537\t0\t0\t9\t9",
    )
    (root / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    return root


def test_a_plain_folder_gives_classes_by_name_ids_by_path_and_exact_pixels(tmp_path):
    pixels = save(plain(tmp_path) / "cat" / "03.png", seed=77)
    (tmp_path / "notes.txt").write_text("beside the classes")
    (tmp_path / ".cache").mkdir()
    images, labels, ids = read_image_folder(tmp_path)["all"]
    assert images.shape == (20, 3, 6, 5)
    assert labels.tolist() == [0] * 10 + [1] * 10
    assert ids[3] == "cat/03.png"
    assert ids == sorted(ids)
    assert (images[3] == pixels.transpose(2, 0, 1)).all()


def test_a_plain_folder_gives_up_a_fixed_stratified_fifth_as_test_set(tmp_path):
    zero, one = (load_dataset(str(plain(tmp_path)), seed=seed) for seed in (0, 1))
    assert (len(zero.train), len(zero.validation), len(zero.test)) == (14, 2, 4)
    assert np.bincount(zero.test.labels).tolist() == [2, 2]
    assert zero.test.ids.tolist() == one.test.ids.tolist()
    assert zero.name == tmp_path.name


def test_cinic_keeps_the_publishers_three_splits(tmp_path):
    cinic10 = load_dataset("cinic10", folder=str(cinic(tmp_path)))
    assert cinic10.name == "cinic10"
    assert [len(part) for part in (cinic10.train, cinic10.validation, cinic10.test)] == [8, 8, 8]
    assert cinic10.validation.ids[0] == "valid/airplane/0.png"
    assert cinic10.test.ids[-1] == "test/ship/3.png"
    assert len(load_dataset(str(tmp_path), validation=0).validation) == 0


def test_a_share_beside_a_publishers_validation_split_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"has its own validation split \(8 images\), so validation cannot be 0.1"):
        load_dataset(str(cinic(tmp_path)), validation=0.1)


def test_without_a_test_folder_the_validation_folder_is_the_test_set(tmp_path):
    imagenet = load_dataset(str(cinic(tmp_path, ("train", "val"), n=10)))
    assert imagenet.test.ids[0] == "val/airplane/0.png"
    assert [len(part) for part in (imagenet.train, imagenet.validation, imagenet.test)] == [18, 2, 20]


def test_tiny_imagenet_takes_its_test_labels_from_the_annotations(tmp_path):
    parts = read_image_folder(tiny(tmp_path))
    assert set(parts) == {"train", "test"}
    _, labels, ids = parts["test"]
    assert ids == ["val/images/val_0.JPEG", "val/images/val_1.JPEG", "val/images/val_2.JPEG"]
    assert labels.tolist() == [1, 0, 1]
    assert parts["train"][2][0] == "train/n01443537/images/n01443537_0.JPEG"
    assert parts["train"][1].tolist() == [0] * 4 + [1] * 4


def test_gray_images_stay_gray_unless_one_is_coloured(tmp_path):
    for name in ("a", "b"):
        gray = save(tmp_path / name / "0.png", shape=(6, 5))
    assert (read_image_folder(tmp_path)["all"][0][1, 0] == gray).all()
    save(tmp_path / "a" / "1.png")
    images, _, ids = read_image_folder(tmp_path)["all"]
    assert images.shape == (3, 3, 6, 5)
    assert (images[ids.index("b/0.png")] == gray).all()  # the same values in every channel


def test_images_of_two_sizes_are_refused_naming_both(tmp_path):
    save(plain(tmp_path) / "dog" / "04.png", shape=(6, 7, 3))
    with pytest.raises(ValueError, match=r"must share one size, but cat/00.png is 5x6, dog/04.png is 7x6; resize them"):
        read_image_folder(tmp_path)


def test_a_file_that_is_no_image_is_named(tmp_path):
    (plain(tmp_path) / "dog" / "04.png").write_text("no pixels here")
    with pytest.raises(OSError, match=r"dog/04.png cannot be read .*; replace or remove it"):
        read_image_folder(tmp_path)


def test_a_truncated_image_is_named(tmp_path):
    path = tmp_path / "dog" / "04.png"
    save(path, shape=(64, 64, 3))
    save(tmp_path / "cat" / "0.png", shape=(64, 64, 3))
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(OSError, match=r"dog/04.png cannot be decoded .*; replace or remove it"):
        read_image_folder(tmp_path)


def test_sixteen_bit_images_are_refused(tmp_path):
    Image.fromarray(np.full((6, 5), 40_000, np.uint16)).save(plain(tmp_path) / "dog" / "04.png")
    with pytest.raises(ValueError, match=r"dog/04.png must have 8 bits a channel, got mode I;16; convert it"):
        read_image_folder(tmp_path)


def test_an_empty_folder_and_a_single_class_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"for each of 2 or more classes, found \[\]; add them"):
        read_image_folder(tmp_path)
    with pytest.raises(ValueError, match=r"for each of 2 or more classes, found \['cat'\]; add them"):
        read_image_folder(plain(tmp_path, classes=("cat",)))


def test_a_class_without_images_is_named(tmp_path):
    (plain(tmp_path) / "eel").mkdir()
    with pytest.raises(ValueError, match=r"class folder .*eel holds no image"):
        read_image_folder(tmp_path)


def test_a_test_class_that_train_lacks_is_named(tmp_path):
    save(cinic(tmp_path) / "test" / "frog" / "0.png")
    with pytest.raises(ValueError, match="test has a class 'frog' that train/ has not"):
        read_image_folder(tmp_path)


def test_train_without_anything_to_test_on_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"has train/ but neither test/ nor val/; add one, or name .*train"):
        read_image_folder(cinic(tmp_path, ("train",)))


@pytest.mark.parametrize("line", ["val_0.JPEG", "val_0.JPEG\tn99999999\t0\t0\t9\t9"])
def test_a_bad_annotation_is_named_with_its_line(tmp_path, line):
    (tiny(tmp_path) / "val" / "val_annotations.txt").write_text("val_1.JPEG\tn01443537\n" + line)
    with pytest.raises(ValueError, match=r"val_annotations.txt line 2 must be 'file<tab>class of train/', got 'val_0"):
        read_image_folder(tmp_path)


def test_an_annotated_image_that_is_missing_is_named(tmp_path):
    (tiny(tmp_path) / "val" / "images" / "val_1.JPEG").unlink()
    with pytest.raises(OSError, match=r"val_1.JPEG cannot be read"):
        read_image_folder(tmp_path)


def test_an_unreadable_class_folder_is_named(tmp_path, monkeypatch):
    real = os.scandir

    def guarded(path):
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", guarded)  # a mode of 000 does not stop root
    with pytest.raises(OSError, match=r"folder .*dog cannot be read \(Permission denied\); check its permissions"):
        read_image_folder(plain(tmp_path))
