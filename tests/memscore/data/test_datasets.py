"""Data sets by name, path or function: splits, limits and flips, and what is refused."""

import numpy as np
import pytest

from memscore.data.datasets import load_dataset
from memscore.data.splits import Splits, make_dataset, select_rows


def pixels(n, shape=(4, 5), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def npz(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


def four(n=40, n_classes=4, **changes):
    train = {"train_images": pixels(n), "train_labels": np.arange(n) % n_classes}
    return train | {"test_images": pixels(8, seed=1), "test_labels": np.arange(8) % n_classes} | changes


def columns(part):
    return part.ids.tolist(), part.labels.tolist(), part.labels_true.tolist(), part.images.tobytes()


def pair():
    return pixels(20), np.arange(20) % 2, pixels(4, seed=1), np.arange(4) % 2


def ready_made():
    train, test = make_dataset("mine", *pair()[:2]), make_dataset("held", *pair()[2:])
    validation = select_rows(train, np.arange(0))
    parts = {"train": train, "validation": validation, "test": test}
    return Splits(name="mine", n_classes=2, mean=(0.5,), std=(0.25,), label_changes={"spurious": True}, **parts)


def nothing():
    return pixels(3)


def test_digits_are_1200_197_400_and_rounded_to_uint8():
    digits = load_dataset("digits")
    assert [len(part) for part in (digits.train, digits.validation, digits.test)] == [1200, 197, 400]
    assert digits.input_shape == (1, 8, 8)
    assert np.unique(digits.train.images).tolist() == [round(x * 255 / 16) for x in range(17)]
    ids = [*digits.train.ids, *digits.validation.ids, *digits.test.ids]
    assert sorted(ids) == [f"all/{position:05d}" for position in range(1797)]
    for part in (digits.train, digits.validation, digits.test):
        share = np.bincount(part.labels) - len(part) * np.bincount(load_dataset("digits").train.labels) / 1200
        assert (abs(share) < 2).all()  # largest remainder is off by less than one, here on both sides


def test_the_seed_moves_the_validation_set_but_never_the_test_set():
    zero, again, one = load_dataset("digits"), load_dataset("digits", seed=0), load_dataset("digits", seed=1)
    assert zero.fingerprint == again.fingerprint
    assert columns(zero.test) == columns(one.test)
    assert set(zero.validation.ids) != set(one.validation.ids)
    assert load_dataset("digits", validation=0).test.ids.tolist() == zero.test.ids.tolist()


@pytest.mark.parametrize(("share", "size"), [(0, 0), (0.1, 140), (0.5, 698)])
def test_a_validation_share_is_of_all_that_is_not_test(share, size):
    digits = load_dataset("digits", validation=share)
    assert (len(digits.validation), len(digits.train)) == (size, 1397 - size)
    assert digits.validation.images.shape[1:] == (1, 8, 8)


def test_a_limit_keeps_data_set_order_and_leaves_validation_alone():
    full, limited = load_dataset("digits", seed=3), load_dataset("digits", seed=3, train_limit=300)
    assert columns(limited.validation) == columns(full.validation)
    rows = np.flatnonzero(np.isin(full.train.ids, limited.train.ids))
    assert columns(limited.train) == columns(select_rows(full.train, rows))
    share = np.bincount(full.train.labels) / 4
    assert (abs(np.bincount(limited.train.labels) - share) < 1).all()
    assert load_dataset("digits", seed=3, train_limit=1200).fingerprint == full.fingerprint
    assert limited.mean != full.mean


def test_label_noise_flips_exactly_its_share_to_other_classes_and_says_so():
    clean, noisy = load_dataset("digits"), load_dataset("digits", label_noise=0.05)
    flipped = noisy.train.labels != noisy.train.labels_true
    assert flipped.sum() == 60
    assert columns(clean.train)[0] == columns(noisy.train)[0]
    assert (noisy.train.labels_true == clean.train.labels).all()
    assert (noisy.train.labels[~flipped] == clean.train.labels[~flipped]).all()
    assert columns(noisy.validation) == columns(clean.validation)
    assert (clean.label_changes, noisy.label_changes) == ({}, {"label_noise": 0.05})
    assert noisy.fingerprint != clean.fingerprint
    assert load_dataset("digits", label_noise=0.05, seed=1).train.labels.tolist() != noisy.train.labels.tolist()


def test_flipped_labels_are_uniform_over_the_other_classes(tmp_path):
    path = npz(tmp_path / "a.npz", **four(n=9000, n_classes=3))
    train = load_dataset(path, validation=0, label_noise=0.9).train
    moved = train.labels != train.labels_true
    steps = (train.labels - train.labels_true)[moved] % 3
    assert moved.sum() == 8100
    assert abs((steps == 1).mean() - 0.5) < 4 * 0.5 / np.sqrt(8100)  # 4 standard errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": 1.0}, r"validation is a share and must lie in \[0, 1\), got 1.0"),
        ({"validation": -0.1}, "validation is a share .* got -0.1"),
        ({"label_noise": 1}, "label_noise is a share .* got 1"),
        ({"label_noise": float("nan")}, "label_noise is a share .* got nan"),
        ({"validation": 0.0001}, "validation 0.0001 of 1397 training images is none of them; use a larger share or 0"),
        (
            {"validation": 0.995},
            r"a validation set of 1390 images from \d+ leaves no .* class .: there are too few; use --validation 0",
        ),
        ({"train_limit": 19}, r"train_limit must lie from 20 \(two a class\) to 1200 .*, got 19"),
        ({"train_limit": 1201}, "train_limit must lie from 20 .* to 1200 .*, got 1201; leave it out"),
        ({"folder": "/tmp"}, "digits is not read from a folder, got folder '/tmp'; leave folder out"),
        ({"seed": -1}, "the root seed must be 0 or more, got -1"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused_with_a_hint(options, message):
    with pytest.raises(ValueError, match=message):
        load_dataset("digits", **options)


def test_a_limit_that_loses_a_rare_class_is_refused(tmp_path):
    labels = np.repeat([0, 1, 2], [99, 99, 2])
    path = npz(tmp_path / "a.npz", **four(train_images=pixels(200), train_labels=labels, test_labels=np.arange(8) % 3))
    assert np.bincount(load_dataset(path, validation=0, train_limit=100).train.labels).tolist() == [50, 49, 1]
    with pytest.raises(
        ValueError, match=r"a train_limit of 10 leaves no training image of class 2: .*raise train_limit"
    ):
        load_dataset(path, validation=0, train_limit=10)


def test_an_unknown_name_offers_the_nearest_and_says_how_to_write_a_path():
    with pytest.raises(
        ValueError, match=r"unknown data set 'cifar-10'; did you mean 'cifar10'\? .*there is no folder cifar-10 in"
    ):
        load_dataset("cifar-10")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./nowhere", "there is no folder or file nowhere in {}; check the path"),
        ("nowhere/at/all.npz", "there is no file nowhere/at/all.npz: {} has no folder nowhere"),
        ("mime.npz", "there is no file mime.npz in {}; did you mean mine.npz?"),
        ("images.csv", "there is no file images.csv in {}; check the path"),
        ("train.parquet", "there is no file train.parquet in {}; check the path"),
    ],
)
def test_a_path_that_does_not_exist_is_named(name, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    npz(tmp_path / "mine.npz", **four())
    with pytest.raises(FileNotFoundError) as caught:
        load_dataset(name)
    assert str(caught.value) == message.format(tmp_path)


def test_an_existing_file_needs_no_separator(tmp_path, monkeypatch):
    npz(tmp_path / "mine.npz", **four())
    monkeypatch.chdir(tmp_path)
    assert load_dataset("mine.npz").name == "mine"


def test_npz_with_a_test_set_keeps_it_and_holds_out_a_stratified_tenth(tmp_path):
    arrays = four(n=80)
    mine = load_dataset(npz(tmp_path / "mine.npz", **arrays))
    assert [len(part) for part in (mine.train, mine.validation, mine.test)] == [72, 8, 8]
    assert np.bincount(mine.validation.labels).tolist() == [2, 2, 2, 2]
    assert (mine.test.images[:, 0] == arrays["test_images"]).all()
    assert mine.test.ids[0] == "test/00000"
    position = int(mine.validation.ids[3].removeprefix("train/"))
    assert (mine.validation.images[3, 0] == arrays["train_images"][position]).all()
    default = load_dataset(npz(tmp_path / "mine.npz", **arrays), folder=None, validation=0.1)
    assert default.fingerprint == mine.fingerprint


def test_npz_may_bring_its_own_validation_split(tmp_path):
    own = {"validation_images": pixels(6, seed=2), "validation_labels": np.arange(6) % 4}
    mine = load_dataset(npz(tmp_path / "mine.npz", **four(), **own))
    assert (mine.validation.images[:, 0] == own["validation_images"]).all()
    assert mine.validation.ids[5] == "validation/00005"
    assert len(mine.train) == 40


def test_npz_without_a_test_set_gives_up_a_fixed_fifth(tmp_path):
    path = npz(tmp_path / "mine.npz", images=pixels(50), labels=np.arange(50) % 5)
    zero, one = load_dataset(path), load_dataset(path, seed=1)
    assert [len(part) for part in (zero.train, zero.validation, zero.test)] == [36, 4, 10]
    assert columns(zero.test) == columns(one.test)
    assert np.bincount(zero.test.labels).tolist() == [2] * 5


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": pixels(4)}, r"lacks labels \(it has images\); it needs images and labels, or train_images"),
        ({"pixels": pixels(4)}, r"lacks train_images, train_labels, test_images, test_labels \(it has pixels\)"),
        (four(images=pixels(4), labels=np.arange(4)), "has both images and images of splits"),
        ({"train_images": pixels(4), "train_labels": np.arange(4)}, "lacks test_images, test_labels"),
        (four(validation_images=pixels(4)), "lacks validation_labels"),
        (
            four(train_labels=np.arange(39) % 4),
            r"mine\.npz has 40 images and 39 labels for train; each image needs one",
        ),
        (
            {"images": pixels(40), "labels": np.arange(40) % 4, "ids": np.arange(5).astype(str)},
            r"mine\.npz has 40 images and 40 labels and 5 ids; each image",
        ),
        (
            {"images": pixels(4), "labels": np.array(["cat", "dog"] * 2, dtype=object)},
            r"mine\.npz: labels is an array of Python objects.* is not read; save labels\.astype\(str\)",
        ),
        (
            {"images": pixels(3), "labels": np.array([0, 1, 0])},
            r"a validation set of 1 image from 2 leaves no training image of class 0: .*use --validation 0, or a",
        ),
        (four(train_labels=np.arange(40) % 4 - 1), "train label -1 of train/00000 is negative, which often means"),
        (
            four(train_labels=np.arange(40) % 4 * 5),
            "test label 1 of test/00001 lies outside the 4 classes of the training set, 0, 5, 10, 15",
        ),
        (
            four(train_labels=np.zeros(40, int)),
            "mine: the training set must have at least 2 classes, got 1: 0; add another",
        ),
        (
            four(test_labels=np.arange(8) % 5),
            "test label 4 of test/00004 lies outside the 4 classes of the training set",
        ),
        (four(test_images=pixels(8, (9, 9))), r"test images are \(1, 9, 9\), train images \(1, 4, 5\)"),
        (
            {"images": np.array([None]), "labels": np.arange(1)},
            r"images is an array of Python objects.*one array of numbers, of images \[N, H, W, C\]",
        ),
    ],
)
def test_npz_of_other_content_is_refused(tmp_path, arrays, message):
    with pytest.raises(ValueError, match=message):
        load_dataset(npz(tmp_path / "mine.npz", **arrays))


def test_a_file_that_is_no_npz_is_refused(tmp_path):
    (tmp_path / "mine.npz").write_bytes(b"no zip archive")
    with pytest.raises(ValueError, match=r"mine.npz is no .npz archive; save the arrays with numpy.savez"):
        load_dataset(str(tmp_path / "mine.npz"))


def test_a_users_function_may_return_four_arrays():
    mine = load_dataset(f"{__name__}:pair", validation=0)
    assert mine.name == f"{__name__}.pair"
    assert (mine.train.images[:, 0] == pair()[0]).all()
    assert mine.test.ids.tolist() == [f"test/{position:05d}" for position in range(4)]


def test_a_users_splits_are_taken_as_they_are_and_can_still_be_changed():
    name = f"{__name__}:ready_made"
    assert load_dataset(name).fingerprint == ready_made().fingerprint
    changed = load_dataset(name, validation=0.2, label_noise=0.25)
    assert (len(changed.train), len(changed.validation)) == (16, 4)
    assert changed.label_changes == {"spurious": True, "label_noise": 0.25}
    assert (changed.name, changed.mean, changed.std) == ("mine", (0.5,), (0.25,))


def test_a_users_function_that_fails_is_one_line_with_the_users_own_line(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "failing_source.py").write_text("def rows():\n    return {}['no']\n")
    with pytest.raises(
        ValueError, match=r"^data set failing_source:rows fails in line 2 of failing_source\.py: KeyError"
    ):
        load_dataset("failing_source:rows")
    (tmp_path / "failing_import.py").write_text("1 / 0\n")
    with pytest.raises(ValueError, match=r"^data set failing_import:rows fails in line 1 of failing_import\.py: Zero"):
        load_dataset("failing_import:rows")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "no_such_module:make",
            r"data set 'no_such_module:make': there is no module no_such_module; run .* \$PYTHONPATH",
        ),
        (
            f"{__name__}:no_such",
            r"test_datasets has no no_such \(it has .*\); name a function without arguments that returns",
        ),
        (f"{__name__}:nothing", r"must return \(images, labels\), .*memscore.data.splits.Splits, got ndarray; fix"),
    ],
)
def test_a_users_function_that_cannot_serve_is_refused(name, message):
    with pytest.raises(ValueError, match=message):
        load_dataset(name)
