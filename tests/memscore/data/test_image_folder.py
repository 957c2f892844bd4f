"""Folders of images: layouts, what is read by which rule, and every fault named at once."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from memscore.data.datasets import load_dataset
from memscore.data.image_files import read_images
from memscore.data.image_folder import list_image_folder


def read_image_folder(root, size=None, **options):
    return read_images(list_image_folder(root), size, **options).parts


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


def test_images_of_two_sizes_are_refused_with_the_option_that_helps(tmp_path):
    save(plain(tmp_path) / "dog" / "04.png", shape=(6, 7, 3))
    with pytest.raises(ValueError, match=r"2 sizes, 6x5 \(19 images\), 6x7 \(1 image\); .* give --image-size 32"):
        read_image_folder(tmp_path)


def test_all_broken_files_are_named_at_once_or_left_out(tmp_path):
    plain(tmp_path)
    save(tmp_path / "cat" / "truncated.png", shape=(6, 5, 3))
    content = (tmp_path / "cat" / "truncated.png").read_bytes()
    (tmp_path / "cat" / "truncated.png").write_bytes(content[:60])
    (tmp_path / "dog" / "04.png").write_text("no pixels here")
    (tmp_path / "dog" / "05.png").write_bytes(b"")
    (tmp_path / "dog" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    Image.fromarray(np.full((6, 5), 40_000, np.uint16)).save(tmp_path / "dog" / "06.png")
    (tmp_path / "eel").mkdir()
    reasons = {
        "cat/truncated.png": "unexpected end|truncated|broken",
        "dog/04.png": "no image",
        "dog/05.png": "empty file",
        "dog/06.png": "16-bit gray",
        "dog/gone.png": "no such file",
        "eel": "a class without images",
    }
    with pytest.raises(ValueError, match=r"6 of 22 images in .* --skip-bad.* // 257") as error:
        read_image_folder(tmp_path)
    decoded = read_images(list_image_folder(tmp_path), skip_bad=True)
    assert [entry["path"] for entry in decoded.left_out] == list(reasons)
    for entry in decoded.left_out:
        assert re.search(reasons[entry["path"]], entry["reason"])
        assert f"{entry['path']} ({entry['reason']}" in str(error.value)
    images, labels, ids = decoded.parts["all"]
    assert (len(images), np.bincount(labels).tolist(), decoded.class_names) == (17, [10, 7], ("cat", "dog"))
    row = ids.index("dog/07.png")  # the gap that broken files left is closed
    assert (images[row] == np.asarray(Image.open(tmp_path / "dog" / "07.png")).transpose(2, 0, 1)).all()
    assert any(note.startswith("6 of 22 images left out: cat/truncated.png") for note in decoded.notes)


def test_a_long_list_of_faults_stands_in_a_file(tmp_path):
    plain(tmp_path, n=12)
    for number in range(12):
        (tmp_path / "dog" / f"{number:02d}.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"12 of 24 images .* and 2 more; all are listed in ") as error:
        read_image_folder(tmp_path)
    listed = Path(re.search(r"listed in (\S+);", str(error.value))[1])
    assert listed.read_text().splitlines() == [f"dog/{number:02d}.png\tempty file" for number in range(12)]
    listed.unlink()


def test_hidden_folders_are_read_at_no_depth_and_other_files_are_counted(tmp_path):
    cinic(tmp_path, ("train", "test"))
    for place in (".trash/cat", "train/.hidden", "train/ship/.ipynb_checkpoints", "test/__MACOSX/ship", "__MACOSX/x"):
        save(tmp_path / place / "0.png")
    save(tmp_path / "train" / "ship" / "._0.png")
    (tmp_path / "train" / "ship" / "photo.HEIC").write_bytes(b"x")
    (tmp_path / "train" / "ship" / "Thumbs.db").write_bytes(b"x")
    listing = list_image_folder(tmp_path)
    assert len(listing.entries) == 16
    assert {entry.class_name for entry in listing.entries} == {"airplane", "ship"}
    assert listing.notes == ("1 file passed over, by its name no image: 1 .heic",)


def test_an_image_is_turned_by_its_exif_orientation_before_sizes_are_compared(tmp_path):
    pixels = save(plain(tmp_path) / "cat" / "00.png")
    turned = np.rot90(pixels)  # orientation 6 turns it back, clockwise
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(np.ascontiguousarray(turned)).save(tmp_path / "cat" / "00.png", exif=exif)
    decoded = read_images(list_image_folder(tmp_path))
    assert (decoded.parts["all"][0][0] == pixels.transpose(2, 0, 1)).all()
    assert decoded.notes == ("1 of 20 images turned upright by their EXIF orientation",)


def test_alpha_palette_cmyk_gray_and_frames_are_read_by_the_stated_rule(tmp_path):
    plain(tmp_path, n=1)
    red, blue = Image.new("RGB", (5, 6), (200, 10, 10)), Image.new("RGB", (5, 6), (10, 10, 200))
    glass = red.copy()
    glass.putalpha(0)
    glass.save(tmp_path / "cat" / "alpha.png")
    opaque = red.copy()
    opaque.putalpha(255)
    opaque.save(tmp_path / "cat" / "opaque.png")
    red.quantize(4).save(tmp_path / "cat" / "palette.png", transparency=0)
    red.convert("CMYK").save(tmp_path / "cat" / "cmyk.tif")
    red.convert("L").save(tmp_path / "dog" / "gray.png")
    red.save(tmp_path / "dog" / "frames.tif", save_all=True, append_images=[blue])
    decoded = read_images(list_image_folder(tmp_path))
    images, _, ids = decoded.parts["all"]
    for name in ("cat/alpha.png", "cat/opaque.png", "cat/palette.png", "cat/cmyk.tif", "dog/frames.tif"):
        assert images[ids.index(name), :, 0, 0].tolist() == [200, 10, 10], name
    assert len(set(images[ids.index("dog/gray.png")].ravel().tolist())) == 1
    assert [note.split(":")[0] for note in decoded.notes] == [
        "2 of 8 images have transparency",
        "1 of 8 images have a palette",
        "1 of 8 images are CMYK",
        "1 of 8 images hold several frames",
        "1 of 8 images are gray among coloured ones",
    ]


def test_images_of_all_sizes_are_scaled_to_cover_the_size_and_cropped(tmp_path):
    wide = np.zeros((10, 40, 3), np.uint8)
    wide[:, 15:25] = 255  # the square in the middle is white, and only it is kept
    for name in ("cat", "dog"):
        save(tmp_path / name / "small.png", shape=(4, 4, 3))
        Image.fromarray(wide).save(tmp_path / name / "wide.png")
    decoded = read_images(list_image_folder(tmp_path), (10, 10))
    images, _, ids = decoded.parts["all"]
    assert images.shape == (4, 3, 10, 10)
    assert (images[ids.index("cat/wide.png")] == 255).all()
    assert decoded.notes == ("4 of 4 images scaled to cover 10x10, their centre kept",)


def test_an_empty_folder_and_a_single_class_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"for each of 2 or more classes, found none; add them, or give a .csv"):
        read_image_folder(tmp_path)
    with pytest.raises(ValueError, match=r"for each of 2 or more classes, found cat; add them"):
        read_image_folder(plain(tmp_path, classes=("cat",)))


def test_a_test_class_that_train_lacks_is_named(tmp_path):
    save(cinic(tmp_path) / "test" / "frog" / "0.png")
    with pytest.raises(ValueError, match=r"test/frog/0.png \(its class 'frog' has no training image\)"):
        read_image_folder(tmp_path)
    assert len(read_image_folder(tmp_path, skip_bad=True)["test"][1]) == 8


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
    with pytest.raises(ValueError, match=r"1 of 11 images .*val_1.JPEG \(no such file\)"):
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
