"""TODO: docstring."""

import numpy as np
import pyarrow as pa
import pytest

from memscore.data.splits import (
    Dataset,
    Splits,
    build_examples_table,
    compute_mean_std,
    make_dataset,
    select_rows,
    split_halves,
    split_stratified,
)


def make_part(split="train", n=20, n_classes=4, side=5, channels=1, seed=0):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (n, channels, side, side), dtype=np.uint8)
    return make_dataset(split, pixels, np.arange(n) % n_classes)


def splits(**changes):
    fields = {"name": "toy", "n_classes": 4, "train": make_part(), "mean": (0.5,), "std": (0.2,)}
    fields |= {"validation": make_part("validation", 8), "test": make_part("test", 4)}
    return Splits(**fields | changes)


def with_labels(dataset, labels, labels_true=None):
    true = dataset.labels_true if labels_true is None else labels_true
    return Dataset(images=dataset.images, labels=labels, labels_true=true, ids=dataset.ids)


def test_ids_are_split_and_position_and_are_kept_as_an_array_of_str():
    part = make_part("test", 3)
    assert part.ids.tolist() == ["test/00000", "test/00001", "test/00002"]
    assert part.ids.dtype.kind == "U"
    listed = Dataset(images=part.images, labels=part.labels, labels_true=part.labels, ids=["a", "b", "c"])
    assert isinstance(listed.ids, np.ndarray)
    assert len(listed) == 3


@pytest.mark.parametrize("shape", [(7, 5, 6), (7, 5, 6, 1), (7, 1, 5, 6)])
def test_every_gray_layout_gives_the_same_pixels(shape):
    pixels = np.random.default_rng(0).integers(0, 256, (7, 5, 6), dtype=np.uint8)
    part = make_dataset("train", pixels.reshape(shape), np.zeros(7, np.uint8))
    assert part.images.shape == (7, 1, 5, 6)
    assert (part.images[:, 0] == pixels).all()


def test_channels_last_is_turned_and_contiguous():
    pixels = np.random.default_rng(0).integers(0, 256, (7, 5, 6, 3), dtype=np.uint8)
    part = make_dataset("train", pixels, np.zeros(7, int))
    assert (part.images == np.moveaxis(pixels, -1, 1)).all()
    assert part.images.flags.c_contiguous


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((4, 5, 5)), np.zeros(4, int), "test images must be uint8, got float64; scale to 0..255"),
        (np.zeros((4, 5, 5), np.uint8), np.zeros(4), r"test labels must be whole numbers \[N\], got float64"),
        (np.zeros((4, 5, 5), np.uint8), np.zeros((4, 1), int), r"got int64 \(4, 1\)"),
        (np.zeros((4, 5, 5), np.uint8), np.zeros(3, int), "got 4 images, 3 labels, 3 labels_true, 4 ids; the first id"),
        (np.zeros((4, 5, 5, 5), np.uint8), np.zeros(4, int), r"with C = 1 or 3 in one place only, got \(4, 5, 5, 5\)"),
        (np.zeros((4, 3, 5, 3), np.uint8), np.zeros(4, int), r"in one place only, got \(4, 3, 5, 3\)"),
        (np.zeros((4, 25), np.uint8), np.zeros(4, int), r"got \(4, 25\); reshape"),
    ],
)
def test_arrays_of_another_kind_are_refused_with_a_hint(images, labels, message):
    with pytest.raises(ValueError, match=message):
        make_dataset("test", images, labels)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("images", np.zeros((3, 1, 2, 2)), r"images must be uint8 \[N, C, H, W\], got float64"),
        ("images", np.zeros((3, 2, 2), np.uint8), r"\[N, C, H, W\], got uint8 \(3, 2, 2\)"),
        ("labels", np.zeros(3, np.int32), "labels must be int64, got int32"),
        ("labels_true", np.zeros(3, bool), "as published, bool"),
    ],
)
def test_a_dataset_checks_its_columns(field, value, message):
    columns = {"images": np.zeros((3, 1, 2, 2), np.uint8), "labels": np.zeros(3, int), "labels_true": np.zeros(3, int)}
    with pytest.raises(ValueError, match=message):
        Dataset(**columns | {field: value}, ids=["a", "b", "c"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_classes": 1}, "n_classes must be 2 or more, got 1"),
        ({"n_classes": 3}, r"train label 3 of train/00003 lies outside 0\.\.2"),
        ({"test": with_labels(make_part("test", 2), np.array([0, -1]))}, "test label -1 of test/00001 lies outside"),
        ({"test": with_labels(make_part("test", 2), np.array([0, 1]), np.array([9, 1]))}, "test label 9 of test/00000"),
        ({"test": make_part("test", 4, side=6)}, r"test images are \(1, 6, 6\), train images \(1, 5, 5\)"),
        ({"test": make_part("test", 0)}, "toy needs images to train and to test on, got 20 and 0"),
        ({"validation": make_part("train", 1)}, "unique over all splits, got 'train/00000' more than once"),
    ],
)
def test_splits_that_do_not_fit_together_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        splits(**changes)


def test_the_fingerprint_sees_every_column_of_every_split_and_nothing_else():
    base = splits()
    other = {
        "image": {"train": make_part(seed=1)},
        "label": {"test": with_labels(base.test, base.test.labels[::-1].copy())},
        "true label": {"test": with_labels(base.test, base.test.labels, base.test.labels[::-1].copy())},
        "ids": {"validation": make_part("valid", 8)},
        "classes": {"n_classes": 5},
        "no validation": {"validation": make_part("validation", 0)},
        "swapped": {"validation": base.test, "test": base.validation},
    }
    prints = {base.fingerprint} | {splits(**changes).fingerprint for changes in other.values()}
    assert len(prints) == len(other) + 1
    assert splits(name="other", mean=(0.0,), std=(1.0,), label_changes={"x": 1}).fingerprint == base.fingerprint
    shuffled = select_rows(select_rows(base.train, np.arange(20)[::-1]), np.arange(20)[::-1])
    assert splits(train=shuffled).fingerprint == base.fingerprint


def test_input_shape_is_channels_height_width():
    part = make_dataset("train", np.zeros((4, 6, 7, 3), np.uint8), np.arange(4))
    test = make_dataset("test", np.zeros((4, 6, 7, 3), np.uint8), np.arange(4))
    assert splits(train=part, validation=select_rows(part, np.arange(0)), test=test).input_shape == (3, 6, 7)


def test_a_subset_takes_positions_in_their_order_or_a_mask_and_copies():
    part = make_part()
    picked = select_rows(part, np.array([7, 2]))
    assert picked.ids.tolist() == ["train/00007", "train/00002"]
    assert (picked.images == part.images[[7, 2]]).all()
    assert picked.labels.tolist() == [3, 2]
    assert select_rows(part, part.labels == 3).labels.tolist() == [3] * 5
    picked.images[:] = 0
    assert part.images[7].any()


@pytest.mark.parametrize("size", [0, 1, 7, 13, 99, 100])
def test_a_stratified_draw_is_exact_in_size_within_one_per_class_and_ordered(size):
    labels = np.repeat([0, 1, 2], [50, 33, 17])
    part = make_dataset("train", np.zeros((100, 2, 2), np.uint8), np.random.default_rng(0).permutation(labels))
    drawn, rest = split_stratified(part, size, np.random.default_rng(1))
    assert len(drawn) == size
    assert sorted([*drawn.ids, *rest.ids]) == part.ids.tolist()
    assert drawn.ids.tolist() == sorted(drawn.ids)
    assert rest.ids.tolist() == sorted(rest.ids)
    assert (abs(np.bincount(drawn.labels, minlength=3) - np.array([50, 33, 17]) * size / 100) < 1).all()


def test_every_example_of_a_class_is_drawn_equally_often():
    part = make_dataset("train", np.zeros((20, 2, 2), np.uint8), np.repeat([0, 1], 10))
    rng = np.random.default_rng(0)
    counts = sum(np.isin(part.ids, split_stratified(part, 6, rng)[0].ids).astype(int) for _ in range(2000))
    assert (abs(counts / 2000 - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 2000)).all()  # 4 standard errors


def test_halves_are_disjoint_stratified_and_follow_the_seed():
    part = make_part("validation", 41)
    first, second = split_halves(part, 0)
    assert (len(first), len(second)) == (20, 21)
    assert sorted([*first.ids, *second.ids]) == part.ids.tolist()
    assert np.ptp(np.bincount(first.labels)) <= 1
    assert split_halves(part, 0)[0].ids.tolist() == first.ids.tolist()
    assert split_halves(part, 1)[0].ids.tolist() != first.ids.tolist()


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_examples_to_halve_are_refused(n):
    with pytest.raises(ValueError, match=f"{n} validation images cannot be halved; load with a validation share"):
        split_halves(make_part("validation", n), 0)


def test_normalisation_is_the_float64_mean_and_deviation_of_each_channel():
    images = np.random.default_rng(0).integers(0, 256, (40, 3, 300, 200), dtype=np.uint8)  # two chunks
    mean, std = compute_mean_std(images)
    np.testing.assert_allclose(mean, (images / 255).mean((0, 2, 3)), rtol=1e-10)
    np.testing.assert_allclose(std, (images / 255).std((0, 2, 3)), rtol=1e-10)


def test_the_deviation_of_a_flat_channel_is_floored():
    images = np.zeros((4, 2, 3, 3), np.uint8)
    images[:, 1] = 255
    assert compute_mean_std(images) == ((0.0, 1.0), (1e-6, 1e-6))


def test_the_examples_table_has_rows_of_train_validation_test_and_clusters_of_train():
    toy = splits(train=with_labels(make_part(), (make_part().labels + 1) % 4))
    table = build_examples_table(toy, np.arange(20, dtype=np.int32))
    kinds = [pa.int32(), pa.string(), pa.string(), pa.int64(), pa.int64(), pa.int32()]
    assert table.schema.types == kinds
    assert table.schema.names == ["row", "id", "split", "label", "label_true", "cluster"]
    assert table["row"].to_pylist() == list(range(32))
    assert table["split"].to_pylist() == ["train"] * 20 + ["validation"] * 8 + ["test"] * 4
    assert table["id"].to_pylist()[19:21] == ["train/00019", "validation/00000"]
    assert table["label"].to_pylist()[:4] == [1, 2, 3, 0]
    assert table["label_true"].to_pylist()[:4] == [0, 1, 2, 3]
    assert table["cluster"].to_pylist() == [*range(20)] + [None] * 12


def test_without_clusters_the_column_is_null_and_a_wrong_number_is_refused():
    assert build_examples_table(splits())["cluster"].null_count == 32
    with pytest.raises(ValueError, match="expected 20 of them, got 32; cluster again"):
        build_examples_table(splits(), np.zeros(32, np.int32))
