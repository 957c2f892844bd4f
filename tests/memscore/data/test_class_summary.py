"""What is printed on the classes of a data set, and on images that show nothing."""

from dataclasses import replace

import numpy as np
import pytest

from memscore.data.class_summary import describe_classes, describe_constant_images
from memscore.data.datasets import load_dataset
from memscore.data.splits import join_images, select_rows, split_stratified

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 3, 4, 5), dtype=np.uint8)


@pytest.fixture
def splits(tmp_path):
    names = np.array(["ant", "bee", "cat"])
    labels = np.repeat([0, 1, 2], (20, 15, 5))
    np.savez(tmp_path / "mine.npz", images=PIXELS, labels=labels, class_names=names)
    return load_dataset(str(tmp_path / "mine.npz"), validation=0.1)


def test_classes_are_counted_and_named_and_what_a_split_lacks_is_said(splits):
    assert describe_classes(splits) == (
        "3 classes: ant, bee, cat; 4 to 14 training images each; validation has no image of 1 of them: cat"
    )
    test = select_rows(splits.test, splits.test.labels == 0)
    assert describe_classes(replace(splits, test=test)).endswith("test has no image of 2 of them: bee, cat")
    assert describe_classes(replace(splits, class_names=None)).startswith("3 classes; 4 to 14 training images each;")


def test_images_that_show_nothing_are_counted_with_the_first_id(splits):
    assert describe_constant_images(splits) == ""
    images = splits.train.images.copy()
    images[[3, 5]] = np.array([10, 200, 30], np.uint8)[:, None, None]  # one colour is nothing, whatever it is
    images[3, 0, 0, 0] += 2
    changed = replace(splits, train=replace(splits.train, images=images))
    line = describe_constant_images(changed)
    assert line == f"2 images have nearly one value in each channel and nothing to see, first {splits.train.ids[3]}"


def test_splits_in_place_are_the_same_and_need_no_copy_to_be_joined(splits):
    parts = (splits.train, splits.validation, splits.test)
    assert np.shares_memory(join_images(parts), splits.test.images)
    assert (join_images(parts) == np.concatenate([part.images for part in parts])).all()
    mixed = (splits.test, splits.train)
    assert (join_images(mixed) == np.concatenate([part.images for part in mixed])).all()
    copies = [select_rows(splits.train, np.arange(len(splits.train))) for _ in range(2)]
    for some, other in zip(
        split_stratified(copies[0], 7, np.random.default_rng(1)),
        split_stratified(copies[1], 7, np.random.default_rng(1), in_place=True),
        strict=True,
    ):
        assert (some.ids == other.ids).all()
        assert (some.images == other.images).all()
        assert (some.labels == other.labels).all()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("digits", {"test": 0.0}, r"test is a share and must lie in \(0, 1\), got 0.0"),
        ("digits", {"test": 0.0001}, "test 0.0001 of 1797 images is none of them; use a larger share"),
        (
            "digits",
            {"test": 0.999},
            r"test set of 1795 images of digits leaves no training image of class \d: .*use a smaller --test",
        ),
        ("digits", {"resize": "8x0"}, "an image size is one side or HEIGHTxWIDTH, .* got '8x0'; write 64 or 32x48"),
        ("digits", {"resize": "big"}, "got 'big'"),
        ("digits", {"skip_bad": True}, "--skip-bad leaves out image files, and digits gives arrays"),
    ],
)
def test_an_option_of_reading_that_cannot_be_met_is_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        load_dataset(name, **options)


def test_the_test_share_is_of_all_images_and_refused_beside_a_test_split(tmp_path):
    digits = load_dataset("digits", test=0.1, resize="4x6")
    assert [len(part) for part in (digits.train, digits.validation, digits.test)] == [1420, 197, 180]
    assert digits.input_shape == (1, 4, 6)
    assert (digits.origin["test"], digits.origin["resize"], digits.origin["image_size"]) == (0.1, "4x6", [4, 6])
    np.savez(tmp_path / "a.npz", x_train=PIXELS, y_train=np.arange(40) % 2, x_test=PIXELS, y_test=np.arange(40) % 2)
    with pytest.raises(ValueError, match=r"a has its own test split \(40 images\), so test cannot be 0.2"):
        load_dataset(str(tmp_path / "a.npz"), test=0.2)
