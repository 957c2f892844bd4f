"""Exact copies within and across splits, against a comparison of all pairs of images."""

import json
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from memscore.data.datasets import load_dataset
from memscore.data.duplicates import (
    PAIRS,
    SPLIT_NAMES,
    build_copies_table,
    count_copies,
    find_copies,
    find_twins,
    split_by_group,
)
from memscore.data.splits import Splits, make_dataset

SIZES = (30, 12, 15)
N = sum(SIZES)


def make_splits(images, labels, sizes=SIZES):
    """Splits of images [N, ...] in the order train, validation, test."""
    bounds = np.cumsum((0, *sizes))
    parts = [
        make_dataset(name, images[a:b], labels[a:b])
        for name, a, b in zip(SPLIT_NAMES, bounds[:-1], bounds[1:], strict=True)
    ]
    return Splits(name="made", n_classes=2, **dict(zip(SPLIT_NAMES, parts, strict=True)), mean=(0.5,), std=(1.0,))


def draw_images(shape, n_different, n=N):
    """Images of which only so many are different, in a random order."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (n_different, *shape)).astype(np.uint8)[rng.integers(0, n_different, n)]


def count_naively(splits):
    """The same counts from a comparison of all pairs of images."""
    parts = {name: getattr(splits, name) for name in SPLIT_NAMES}
    rows = [(name, i) for name in SPLIT_NAMES for i in range(len(parts[name]))]
    image = {row: parts[row[0]].images[row[1]] for row in rows}
    label = {row: int(parts[row[0]].labels[row[1]]) for row in rows}
    equal = [(a, b) for a, b in combinations(rows, 2) if np.array_equal(image[a], image[b])]
    counts = {}
    for pair in PAIRS:
        found = [(a, b) for a, b in equal if (a[0], b[0]) == pair]
        involved = {row for both in found for row in both}
        conflicting = {image[a].tobytes() for a, b in found if label[a] != label[b]}
        if pair[0] != pair[1]:  # copies of one split may disagree where each is in the other split too
            conflicting |= {
                image[a].tobytes() for a, b in combinations(sorted(involved), 2)
                if label[a] != label[b] and np.array_equal(image[a], image[b])
            }  # fmt: skip
        counts["-".join(dict.fromkeys(pair))] = {
            "examples": {name: sum(row[0] == name for row in involved) for name in dict.fromkeys(pair)},
            "groups": len({image[row].tobytes() for row in involved}),
            "groups_with_other_labels": len(conflicting),
            "first": [str(parts[row[0]].ids[row[1]]) for row in min(found, key=rows_in_order)] if found else None,
        }
    return counts


def rows_in_order(pair):
    return [(SPLIT_NAMES.index(name), row) for name, row in pair]


@pytest.mark.parametrize(
    ("shape", "n_different"), [((4, 4), 40), ((4, 4), 200), ((3, 3, 5), 20), ((5, 3, 3), 3), ((2, 2), 1)]
)
def test_counts_are_those_of_a_comparison_of_all_pairs(shape, n_different):
    images = draw_images(shape, n_different)
    splits = make_splits(images, np.random.default_rng(1).integers(0, 2, len(images)))
    copies = find_copies(splits)
    assert count_copies(copies) == count_naively(splits)
    same = (images.reshape(len(images), 1, -1) == images.reshape(1, len(images), -1)).all(-1)
    np.testing.assert_array_equal(copies.groups >= 0, same.sum(1) > 1)
    np.testing.assert_array_equal(
        (copies.groups[:, None] == copies.groups) & (copies.groups >= 0), same & (same.sum(1) > 1)
    )
    firsts = [rows[0] for rows in split_by_group(copies.groups)]
    assert firsts == sorted(firsts)  # groups are numbered by their first rows


def test_twins_are_the_first_other_copies():
    images = draw_images((4, 4), 25)
    splits = make_splits(images, np.zeros(len(images), int))
    columns, ids = find_twins(find_copies(splits)), find_copies(splits).ids
    n = SIZES[0]
    for row in range(n):
        equal = [other for other in range(N) if other != row and np.array_equal(images[other], images[row])]
        trained, held_out = [other for other in equal if other < n], [other for other in equal if other >= n]
        assert columns["copies"][row] == len(trained)
        assert columns["twin"][row] == (ids[trained[0]] if trained else None)
        assert columns["held_out_twin"][row] == (ids[held_out[0]] if held_out else None)


def test_no_copies_are_none_and_the_place_of_one_pixel_counts():
    images = np.zeros((N, 8, 8), np.uint8)
    images[np.arange(N), np.arange(N) // 8, np.arange(N) % 8] = 9
    copies = find_copies(make_splits(images, np.zeros(len(images), int)))
    assert (copies.groups == -1).all()
    assert all(found["groups"] == 0 and found["first"] is None for found in count_copies(copies).values())
    assert build_copies_table(copies, "print").num_rows == 0
    # where all images are equal they are one group
    assert (find_copies(make_splits(images * 0, np.zeros(len(images), int))).groups == 0).all()


def test_a_table_has_a_row_for_each_copy_and_the_counts():
    splits = make_splits(draw_images((4, 4), 40), np.arange(N) % 2)
    copies = find_copies(splits)
    table = build_copies_table(copies, "print")
    assert table.num_rows == (copies.groups >= 0).sum()
    for row in table.to_pylist():
        part = getattr(splits, row["split"])
        place = row["row"] - {"train": 0, "validation": SIZES[0], "test": SIZES[0] + SIZES[1]}[row["split"]]
        assert (row["id"], row["label"]) == (part.ids[place], part.labels[place])
        assert row["group"] == copies.groups[row["row"]]
    assert json.loads(table.schema.metadata[b"counts"]) == count_copies(copies)


def test_copies_in_a_npz_go_to_validation_or_stay(tmp_path):
    images = draw_images((6, 6), 60, n=60)
    labels = np.arange(60) % 2
    np.savez(
        tmp_path / "data.npz", train_images=np.concatenate([images] * 2), train_labels=np.concatenate([labels] * 2),
        test_images=images[:5], test_labels=1 - labels[:5],
    )  # fmt: skip
    n_different = len(np.unique(images.reshape(60, -1), axis=0))
    splits = load_dataset(str(tmp_path / "data.npz"), validation=0.25)
    counts = count_copies(find_copies(splits))
    assert counts == count_naively(splits)
    assert counts["train-validation"]["groups"] > 0  # pairs of the file that the split separated
    whole = count_copies(find_copies(load_dataset(str(tmp_path / "data.npz"), validation=0.0)))
    assert whole["train"]["examples"] == {"train": 120}
    assert whole["train"]["groups"] == n_different
    assert whole["train-test"]["groups_with_other_labels"] == whole["train-test"]["groups"] > 0


def test_a_file_twice_in_a_folder_is_a_copy_and_a_gray_version_is_none(tmp_path):
    rng = np.random.default_rng(0)
    for split, n in (("train", 6), ("test", 2)):
        for label in "ab":
            (tmp_path / split / label).mkdir(parents=True)
            for k in range(n):
                Image.fromarray(rng.integers(0, 256, (5, 7, 3), np.uint8)).save(tmp_path / split / label / f"{k}.png")
    original = tmp_path / "train" / "a" / "0.png"
    (tmp_path / "train" / "b" / "again.png").write_bytes(original.read_bytes())
    (tmp_path / "test" / "a" / "again.png").write_bytes(original.read_bytes())
    Image.open(original).convert("L").save(tmp_path / "train" / "a" / "gray.png")
    counts = count_copies(find_copies(load_dataset(str(tmp_path), validation=0.0)))
    assert counts["train"] == {
        "examples": {"train": 2}, "groups": 1, "groups_with_other_labels": 1,
        "first": ["train/a/0.png", "train/b/again.png"],
    }  # fmt: skip
    assert counts["train-test"]["examples"] == {"train": 2, "test": 1}
