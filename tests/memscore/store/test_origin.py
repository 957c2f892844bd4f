"""data.json: where the data of a bank were read and how; no part of its identity, and absent in older stores."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from memscore.bank import main as bank_command
from memscore.data.datasets import load_dataset, read_published
from memscore.store.json_records import decode_record
from memscore.store.store import Store
from tests.fixtures.banks import bank
from tests.fixtures.command import SERIAL, SMALL, contents, here


@pytest.fixture
def pets(tmp_path):
    """A folder of images of two classes."""
    rng = np.random.default_rng(0)
    for name in ("dog", "cat"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for k in range(20):
            Image.fromarray(rng.integers(0, 256, (6, 9, 3), dtype=np.uint8)).save(tmp_path / "pets" / name / f"{k}.png")
    return tmp_path / "pets"


def test_a_bank_says_where_its_data_were_read_and_how(small):
    record = decode_record((small / "data.json").read_bytes(), require_checksum=True)
    assert record == {
        "name": "digits",
        "folder": None,
        "path": None,
        "class_names": [str(digit) for digit in range(10)],
        "image_size": [8, 8],
        "test": None,
        "resize": None,
        "skip_bad": False,
        "follow_links": False,
        "left_out": [],
        "validation": None,
        "train_limit": 200,
        "recipe": "digits",
        "recipe_options": {"epochs": 2},
    }
    assert record == Store.open(small).read_origin()


def test_a_folder_gives_its_absolute_path_and_the_names_of_its_classes(pets, monkeypatch):
    monkeypatch.chdir(pets.parent)
    for origin in (load_dataset("./pets", validation=0.2).origin, read_published("mine", "pets").origin):
        assert origin["path"] == str(pets)
        assert origin["class_names"] == ["cat", "dog"]
        assert origin["image_size"] == [6, 9]
    assert load_dataset("./pets", validation=0.2).origin["validation"] == 0.2


def test_an_archive_gives_its_path_and_no_names(tmp_path):
    images, labels = np.zeros((40, 5, 5), np.uint8), np.arange(40) % 2
    np.savez(tmp_path / "mine.npz", images=images, labels=labels)
    origin = read_published(str(tmp_path / "mine.npz")).origin
    assert (origin["path"], origin["class_names"]) == (str(tmp_path / "mine.npz"), None)


def test_where_data_lie_changes_neither_fingerprint_nor_digest(pets, tmp_path):
    moved = shutil.copytree(pets, tmp_path / "elsewhere" / "pets")
    assert load_dataset(str(pets)).fingerprint == load_dataset(str(moved)).fingerprint


def test_an_older_store_gets_it_from_the_next_estimate_and_does_without_until_then(small, tmp_path, capsys):
    copy = shutil.copytree(small, tmp_path / "bank")
    before, origin = contents(copy, ("shards", "scores", "manifest.json")), Store.open(copy).read_origin()
    (copy / "data.json").unlink()
    assert Store.open(copy).read_origin() is None
    assert bank_command(["verify", str(copy)]) == 0
    assert here(f"{SMALL} {SERIAL} --store {copy}", capsys)[0] == 0
    assert contents(copy, ("shards", "scores", "manifest.json")) == before
    # the name of a recipe that no option names is known only where a bank is made
    known = {key: value for key, value in origin.items() if key not in {"recipe", "recipe_options"}}
    assert Store.open(copy).read_origin() == known


def test_what_was_learned_later_stays_and_a_damaged_record_is_written_anew(tmp_path):
    store = bank(tmp_path / "bank")
    store.write_origin({"name": "x", "path": "/a", "later": [1]})
    store.write_origin({"path": "/b"})
    assert store.read_origin() == {"name": "x", "path": "/b", "later": [1]}
    store.folder.replace("data.json", json.dumps({"path": "/b"}).encode())
    assert store.read_origin() is None
    store.write_origin({"name": "x", "path": "/c"})
    assert store.read_origin() == {"name": "x", "path": "/c"}


def test_names_of_classes_are_beside_their_numbers_in_tables_that_are_read(small, tmp_path):
    copy = shutil.copytree(small, tmp_path / "bank")
    store, names = Store.open(copy), [f"class {k}" for k in "abcdefghij"]
    assert store.class_names == tuple("0123456789")
    store.write_origin({"class_names": names})
    assert store.class_names == tuple(names)
    stored, read = store.read_table("scores.parquet"), store.scores(aliases=True)
    assert read["label_name"].to_pylist() == [names[label] for label in stored["label"].to_pylist()]
    assert "label_name" not in stored.column_names
    assert read["memorization_k0_500"].equals(stored["memorization_k0.500"])
    assert store.scores().column_names[: len(stored.column_names)] == stored.column_names
    # names that are not one for each class are none
    store.write_origin({"class_names": names[:3]})
    assert store.class_names == tuple("0123456789")


def test_a_score_is_found_by_its_name_without_a_dot(small):
    store = Store.open(small)
    np.testing.assert_array_equal(store.score("memorization_k0_500")[1], store.score("memorization_k0.500")[1])
    with pytest.raises(ValueError, match=r"unknown score 'memorization_k0_5'; did you mean 'memorization_k0\.500'"):
        store.score("memorization_k0_5")
