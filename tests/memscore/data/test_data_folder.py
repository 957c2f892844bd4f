"""Names that a file gives, and links, do not lead out of the data's folder."""

import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from memscore.data.data_folder import DataFolder, join_name, normalize_name
from memscore.data.datasets import load_dataset, read_published
from memscore.data.image_files import read_images
from memscore.data.image_folder import list_image_folder
from memscore.data.splits import build_examples_table
from memscore.pipeline.config import BankConfig, build_manifest, load_splits
from memscore.pipeline.reload_data import reload_splits
from memscore.store.store import Store
from tests.memscore.data.test_image_folder import plain, save, tiny

OUTSIDE = {
    "../secret.png": "leads out of its folder by '..'",
    "a/../../secret.png": "leads out of its folder by '..'",
    "a\\..\\..\\secret.png": "leads out of its folder by '..'",
    "/secret.png": "is absolute",
    "\\\\server\\secret.png": "is absolute",
    "C:\\secret.png": "begins with a drive",
    "c:secret.png": "begins with a drive",
    "cat/\0.png": "holds a byte 0",
}


@pytest.mark.parametrize(("name", "message"), OUTSIDE.items())
def test_a_name_that_leads_outside_is_refused_with_file_and_line(tmp_path, name, message):
    with pytest.raises(ValueError, match=r"^list.csv line 7 names '.*', which ") as error:
        join_name(tmp_path, name, "list.csv line 7")
    assert message in str(error.value)


def test_a_name_may_have_folders_unless_it_must_be_plain(tmp_path):
    assert join_name(tmp_path, "cat\\a..b/..c.png", "x") == tmp_path / "cat" / "a..b" / "..c.png"
    for name in ("cat/1.png", "cat\\1.png"):
        with pytest.raises(ValueError, match="has a folder; it must be the name of a file alone"):
            join_name(tmp_path, name, "x", is_plain=True)
    assert {normalize_name(name) for name in ("a//b.png", "./a/b.png", "a\\b.png")} == {"a/b.png"}


@pytest.mark.parametrize("name", [*OUTSIDE, "images/val_0.JPEG"])
def test_an_annotation_names_a_file_beside_the_others(tmp_path, name):
    save(tmp_path / "secret.png")
    root = tiny(tmp_path / "tin")
    annotations = root / "val" / "val_annotations.txt"
    annotations.write_text(annotations.read_text() + f"{name}\tn02056570\t0\n")
    with pytest.raises(ValueError, match=r"val_annotations.txt line 4 names '"):
        list_image_folder(root)


def test_an_annotation_names_a_file_once(tmp_path):
    annotations = tiny(tmp_path) / "val" / "val_annotations.txt"
    annotations.write_text(annotations.read_text() * 2)
    with pytest.raises(ValueError, match=r"line 4 names 'val_0.JPEG' again"):
        list_image_folder(tmp_path)


@pytest.mark.parametrize("name", [*OUTSIDE])
@pytest.mark.parametrize("kind", ["images.csv", "train/metadata.csv", "metadata.jsonl"])
def test_a_table_names_files_in_its_folder(tmp_path, kind, name):
    save(tmp_path / "secret.png")
    table = tmp_path / "data" / kind
    for folder in {table.parent, tmp_path / "data" / "test"}:
        folder.mkdir(parents=True, exist_ok=True)
    if kind.endswith("jsonl"):
        text = name.replace("\\", "\\\\").replace("\0", "\\u0000")
        table.write_text(f'{{"file_name": "0.png", "label": 1}}\n{{"file_name": "{text}", "label": 2}}\n')
    else:
        table.write_text(f"file_name,label\n0.png,a\n{name},b\n")
    (tmp_path / "data" / "test" / "metadata.csv").write_text("file_name,label\n0.png,a\n")
    with pytest.raises(ValueError, match=rf"{table.name} line {2 + kind.endswith('csv')} names '"):
        load_dataset(str(table if kind == "images.csv" else tmp_path / "data"))


def test_a_table_names_a_file_once_however_it_is_written(tmp_path):
    (tmp_path / "a.csv").write_text("file,label\nx/1.png,a\n./x//1.png,b\n")
    with pytest.raises(ValueError, match=r"names './x//1.png' in lines 2 and 3"):
        load_dataset(str(tmp_path / "a.csv"))


def test_a_metadata_file_of_a_split_may_have_windows_paths(tmp_path):
    for split in ("train", "test"):
        for k in range(4):
            save(tmp_path / split / "pets" / f"{k}.png", seed=k)
        rows = "".join(f"pets\\{k}.png,{'ab'[k % 2]}\n" for k in range(4))
        (tmp_path / split / "metadata.csv").write_text(f"file_name,label\n{rows}")
    assert read_published(str(tmp_path)).test.ids[0] == "test/pets\\0.png"


def test_a_parquet_row_names_a_file_beside_it(tmp_path):
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    save(tmp_path / "secret.png")
    for k in range(10):
        save(tmp_path / "data" / "images" / f"{k}.png", seed=k)

    def write(names):
        rows = pa.array([{"bytes": None, "path": name} for name in names], kind)
        pq.write_table(pa.table({"image": rows, "label": [0, 1] * (len(names) // 2)}), tmp_path / "data" / "a.parquet")

    write([f"images/{k}.png" for k in range(10)])
    assert len(read_published(str(tmp_path / "data" / "a.parquet")).train) == 8
    write(["images/0.png", "../secret.png"])
    with pytest.raises(ValueError, match=r"a.parquet row 2 names '../secret.png', which leads out"):
        load_dataset(str(tmp_path / "data" / "a.parquet"))


def test_a_text_column_is_not_taken_for_paths(tmp_path):
    save(tmp_path / "secret.png")
    rows = [{"bytes": str(tmp_path / "secret.png"), "path": None}] * 4
    pq.write_table(pa.table({"image": rows, "label": [0, 1, 0, 1]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="needs a column image with the bytes of image files"):
        load_dataset(str(tmp_path / "a.parquet"))


def test_a_linked_file_is_read_within_the_folder_and_refused_outside_it(tmp_path):
    root = plain(tmp_path / "data")
    secret = save(tmp_path / "secret.png", seed=99)
    (root / "cat" / "10.png").symlink_to("../dog/00.png")
    assert len(read_images(list_image_folder(root)).parts["all"][2]) == 21
    (root / "cat" / "11.png").symlink_to(tmp_path / "secret.png")
    (root / "dog" / "12.png").symlink_to("/nowhere/at/all.png")
    with pytest.raises(ValueError, match=r"2 of 23 images .* cat/11.png \(a link that leads out .*--follow-links"):
        load_dataset(str(root))
    assert len(read_images(list_image_folder(root), skip_bad=True).parts["all"][2]) == 21
    (root / "dog" / "12.png").unlink()
    images, _, ids = read_images(list_image_folder(root, follow_links=True)).parts["all"]
    assert (images[ids.index("cat/11.png")] == secret.transpose(2, 0, 1)).all()


def test_a_linked_class_or_split_is_read_within_the_folder_and_refused_outside_it(tmp_path):
    elsewhere = plain(tmp_path / "elsewhere")
    root = plain(tmp_path / "data")
    (root / "rat").symlink_to("cat")
    assert len(list_image_folder(root).entries) == 30
    (root / "cow").symlink_to(elsewhere / "cat")
    with pytest.raises(ValueError, match=r"data/cow is a link that leads out of the data folder, to /.*--follow-links"):
        load_dataset(str(root))
    assert len(list_image_folder(root, follow_links=True).entries) == 40
    for split in ("train", "test"):
        (tmp_path / "splits").mkdir(exist_ok=True)
        (tmp_path / "splits" / split).symlink_to(elsewhere)
    with pytest.raises(ValueError, match=r"splits/train is a link"):
        load_dataset(str(tmp_path / "splits"))
    assert len(read_published(str(tmp_path / "splits"), follow_links=True).train) == 20


def test_the_data_folder_itself_may_be_a_link_and_what_is_linked_below_classes_is_named(tmp_path):
    root = plain(tmp_path / "data")
    (root / "cat" / "more").symlink_to(root / "dog")
    (tmp_path / "link").symlink_to(root)
    listing = list_image_folder(tmp_path / "link")
    assert len(listing.entries) == 20
    assert listing.notes == ("1 linked folder below class folders passed over: cat/more",)
    assert len(read_published(str(tmp_path / "link")).train) == 16


def test_tables_annotations_and_parquet_files_behind_links_are_refused(tmp_path):
    save(tmp_path / "secret.png")
    (tmp_path / "list.csv").write_text("file_name,label\n0.png,a\n")
    for kind in ("table", "folder", "annotations", "parquet"):
        (tmp_path / kind).mkdir()
    (tmp_path / "table" / "a.csv").write_text("file,label\nx.png,a\ny.png,b\n")
    (tmp_path / "table" / "x.png").symlink_to("../secret.png")
    save(tmp_path / "table" / "y.png")
    with pytest.raises(ValueError, match=r"1 of 2 images .* x.png \(a link that leads out"):
        load_dataset(str(tmp_path / "table" / "a.csv"))
    (tmp_path / "folder" / "metadata.csv").symlink_to("../list.csv")
    with pytest.raises(ValueError, match=r"folder/metadata.csv is a link that leads out"):
        load_dataset(str(tmp_path / "folder"))
    (tmp_path / "list.csv").rename(tiny(tmp_path / "annotations") / "words.txt")
    (tmp_path / "annotations" / "val" / "val_annotations.txt").rename(tmp_path / "moved.txt")
    (tmp_path / "annotations" / "val" / "val_annotations.txt").symlink_to(tmp_path / "moved.txt")
    with pytest.raises(ValueError, match=r"val_annotations.txt is a link that leads out"):
        load_dataset(str(tmp_path / "annotations"))
    (tmp_path / "parquet" / "train.parquet").symlink_to(tmp_path / "moved.txt")
    with pytest.raises(ValueError, match=r"train.parquet is a link that leads out"):
        load_dataset(str(tmp_path / "parquet"))


def test_a_pipe_among_images_is_named_and_not_waited_for(tmp_path):
    os.mkfifo(plain(tmp_path) / "cat" / "pipe.png")
    with pytest.raises(ValueError, match=r"cat/pipe.png \(no regular file\)"):
        load_dataset(str(tmp_path))


def test_folders_whose_names_begin_alike_are_not_one(tmp_path):
    for name in ("data", "data2"):
        (tmp_path / name).mkdir()
    (tmp_path / "data" / "x").symlink_to("../data2")
    assert DataFolder(tmp_path / "data").find_link_fault(tmp_path / "data" / "x")
    assert not DataFolder(tmp_path / "data2").find_link_fault(tmp_path / "data" / "x")
    assert not DataFolder(tmp_path).find_link_fault(tmp_path / "data" / "x")


def test_a_bank_s_own_data_are_read_again_through_links(tmp_path):
    root = plain(tmp_path / "data")
    splits = load_splits(BankConfig(data=str(root), arch="mlp-8", recipe="digits", validation=0.0))
    config = BankConfig(data=str(root), arch="mlp-8", recipe="digits", batch=4, epochs=1)
    manifest, _ = build_manifest(config, splits, [])
    store = Store.create(str(tmp_path / "store"), manifest, build_examples_table(splits), splits.origin)
    (root / "cat").rename(tmp_path / "moved")
    (root / "cat").symlink_to(tmp_path / "moved")
    assert reload_splits(store).fingerprint == splits.fingerprint
