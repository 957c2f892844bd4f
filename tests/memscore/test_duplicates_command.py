"""A bank of data with copies: every file, table and line that names them, old and imported banks, and near copies."""

import json
from contextlib import redirect_stdout

import numpy as np
import pyarrow.parquet as pq
import pytest

from memscore import attack, bank, status
from memscore.data.datasets import load_dataset
from memscore.estimate import main
from memscore.store.store import Store
from memscore.store.verify import verify

FLAGS = "--arch mlp-8 --recipe digits --epochs 2 --design exact --block 2 --models 4 --originals 1 --validation 0.1"
SERIAL = "--pool serial --device cpu"
COLUMNS = ["twin", "copies", "held_out_twin"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """240 digits; the first three are in the training file three times, once mislabelled, and in the test set."""
    folder, digits = tmp_path_factory.mktemp("copies"), load_dataset("digits")
    images, labels = digits.train.images[:240], digits.train.labels[:240]
    np.savez(
        folder / "data.npz",
        train_images=np.concatenate([images, images[:3], images[:3]]),
        train_labels=np.concatenate([labels, labels[:3], (labels[:3] + 1) % 10]),
        test_images=np.concatenate([digits.test.images[:40], images[:3]]),
        test_labels=np.concatenate([digits.test.labels[:40], labels[:3]]),
    )
    return folder


@pytest.fixture(scope="module")
def page(folder):
    with (folder / "page.txt").open("w") as file, redirect_stdout(file):
        assert main(f"--data {folder}/data.npz {FLAGS} {SERIAL} --store {folder}/store".split()) == 0
    return (folder / "page.txt").read_text()


def find_rows(folder):
    """Rows of the bank whose image is one of the copied ones."""
    splits = load_dataset(str(folder / "data.npz"), validation=0.1)
    copied = {image.tobytes() for image in splits.test.images[-3:]}
    return {
        name: [i for i, image in enumerate(getattr(splits, name).images) if image.tobytes() in copied]
        for name in ("train", "validation", "test")
    }, splits


def test_estimate_names_the_copies_on_its_page_and_in_its_files(folder, page):
    rows, splits = find_rows(folder)
    n = len(rows["train"])
    assert f"{n} train examples are exact copies of another one there, 3 images in all" in page
    assert "3 images under different labels" in page
    assert "measure what one copy adds beyond the others" in page
    assert f"{n} train and 3 test examples are exact copies of each other" in page
    summary = json.loads((folder / "store/reports/summary.json").read_text())["exact_copies"]
    assert summary["train"]["examples"]["train"] == n
    assert summary["train-test"]["examples"] == {"train": n, "test": 3}
    table = pq.read_table(folder / "store/scores.parquet")
    assert table["held_out_twin"].null_count == table["twin"].null_count == len(splits.train) - n
    assert {row for row, copies in enumerate(table["copies"].to_pylist()) if copies} == set(rows["train"])
    first, second = rows["train"][0], table["twin"].to_pylist()[rows["train"][0]]
    np.testing.assert_array_equal(
        splits.train.images[splits.train.ids.tolist().index(second)], splits.train.images[first]
    )
    named = pq.read_table(folder / "store/duplicates.parquet").to_pylist()
    assert sorted(row["id"] for row in named) == sorted(
        str(getattr(splits, name).ids[i]) for name, positions in rows.items() for i in positions
    )


@pytest.mark.usefixtures("page")
def test_status_has_the_counts_and_verify_finds_a_lost_file(folder, capsys):
    store = Store.open(str(folder / "store"))
    assert verify(store).missing == {}
    assert status.main([str(folder / "store")]) == 0
    assert "3 test examples are exact copies of each other" in capsys.readouterr().out
    content = (folder / "store/duplicates.parquet").read_bytes()
    (folder / "store/duplicates.parquet").unlink()
    assert list(verify(store).missing) == ["duplicates.parquet"]
    # as in a store of an earlier version: nothing is known, which is not the same as none
    assert status.main([str(folder / "store")]) == 0
    assert "copies  unknown" in capsys.readouterr().out
    assert bank.main(["duplicates", str(folder / "store"), "--data", str(folder / "data.npz")]) == 0
    assert "exact copies: 3 images that occur more than once" in capsys.readouterr().out
    assert (folder / "store/duplicates.parquet").read_bytes() == content


@pytest.mark.usefixtures("page")
def test_the_file_of_other_data_is_not_believed(folder, tmp_path):
    store = Store.open(str(folder / "store"))
    table = store.read_table("duplicates.parquet")
    metadata = {**table.schema.metadata, b"fingerprint": b"0" * 64}
    content = (folder / "store/duplicates.parquet").read_bytes()
    store.write_table("duplicates.parquet", table.replace_schema_metadata(metadata))
    assert "of other data" in verify(store).damaged["duplicates.parquet"]
    (folder / "store/duplicates.parquet").write_bytes(content)


@pytest.mark.parametrize("near", ["pixels", "embeddings"])
@pytest.mark.usefixtures("page")
def test_near_copies_are_apart_from_exact_ones(folder, capsys, near):
    words = ["duplicates", str(folder / "store"), "--data", str(folder / "data.npz"), "--near", near]
    assert bank.main([*words, "--threshold", "0.9"]) == 0
    assert "cosine 0.90000 or more (given)" in capsys.readouterr().out
    table = pq.read_table(folder / "store/reports/near_duplicates.parquet").to_pylist()
    assert table
    assert all(row["similarity"] >= 0.9 and row["row"] != row["nearest_row"] for row in table)
    _, splits = find_rows(folder)
    images = np.concatenate([splits.train.images, splits.validation.images, splits.test.images])
    assert all((images[row["row"]] != images[row["nearest_row"]]).any() for row in table)
    assert bank.main(words) == 0
    assert "similar to their JPEG of quality 75" in capsys.readouterr().out
    assert bank.main([*words[:4], "--threshold", "0.9"]) == 2
    assert bank.main([*words, "--threshold", "1.5"]) == 2


@pytest.mark.usefixtures("page")
def test_an_audit_names_members_with_a_copy_that_is_no_member(folder, tmp_path, capsys):
    rows, splits = find_rows(folder)
    key = json.loads((folder / "store/receipts/original-00000.json").read_text())["key"]
    members = tmp_path / "members.txt"
    members.write_text("\n".join(np.delete(splits.train.ids, rows["train"][3:])))
    words = f"--store {folder}/store --model {folder}/store/weights/{key}.safetensors --arch mlp-8 --device cpu"
    data = f"--data {folder}/data.npz --members {members} --out {tmp_path}/audit.parquet"
    assert attack.main(f"{words} {data}".split()) == 0
    n = len(rows["train"])
    assert f"3 members and {n - 3} others are exact copies of each other" in capsys.readouterr().out


def test_copies_of_an_import_are_counted_or_unknown(folder, tmp_path, capsys):
    splits, rng = load_dataset(str(folder / "data.npz"), validation=0.0), np.random.default_rng(0)
    n = len(splits.train)
    np.save(tmp_path / "member.npy", rng.random((4, n)) < 0.5)
    np.save(tmp_path / "gap.npy", rng.normal(size=(4, n)))
    arrays = ["--member", str(tmp_path / "member.npy"), "--gap", str(tmp_path / "gap.npy")]
    assert bank.main(["import", str(tmp_path / "unknown"), *arrays]) == 0
    assert "copies unknown" in " ".join(capsys.readouterr().out.split())
    assert not (tmp_path / "unknown/duplicates.parquet").exists()
    table = pq.read_table(tmp_path / "unknown/scores.parquet")
    assert all(table[column].null_count == n for column in COLUMNS)
    assert json.loads((tmp_path / "unknown/reports/summary.json").read_text())["exact_copies"] is None
    assert verify(Store.open(str(tmp_path / "unknown"))).missing == {}
    # the bank has no test examples, so their copies are none of its own
    assert bank.main(["import", str(tmp_path / "known"), *arrays, "--data", str(folder / "data.npz")]) == 0
    assert "9 train examples are exact copies of another one there" in " ".join(capsys.readouterr().out.split())
    counts = json.loads((tmp_path / "known/reports/summary.json").read_text())["exact_copies"]
    assert counts["train-test"]["groups"] == 0
    assert pq.read_table(tmp_path / "known/duplicates.parquet").num_rows == 9
