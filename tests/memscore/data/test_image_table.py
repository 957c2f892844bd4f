"""Images named in a .csv, a metadata file or Parquet: the same pixels as from a folder, and clear refusals."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from memscore.data.datasets import load_dataset

NAMES = ("ant", "bee")


@pytest.fixture
def pictures(tmp_path):
    """Twenty pictures without class folders."""
    (tmp_path / "raw").mkdir()
    rng = np.random.default_rng(0)
    for row in range(20):
        Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)).save(tmp_path / "raw" / f"{row:02d}.png")
    return tmp_path


def write(path, lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
    return str(path)


def table(form, split=False):
    header, delimiter = form
    lines = [header] if header else []
    for row in range(20):
        cells = [f"raw/{row:02d}.png", NAMES[row % 2], *((["test"] if row >= 16 else ["train"]) if split else [])]
        lines.append(delimiter.join(cells))
    return lines


@pytest.mark.parametrize(
    "form", [("file,label", ","), ("", ","), ("Path;Class", ";"), ("image\tcategory", "\t"), ("filename|target", "|")]
)
def test_a_table_of_any_form_gives_the_same_data(pictures, form):
    splits = load_dataset(write(pictures / "mine.csv", table(form)), validation=0)
    assert (len(splits.train), len(splits.test), splits.class_names, splits.name) == (16, 4, NAMES, "mine")
    row = splits.train.ids.tolist().index("raw/03.png")
    assert (splits.train.images[row] == np.asarray(Image.open(pictures / "raw/03.png")).transpose(2, 0, 1)).all()
    assert NAMES[splits.train.labels[row]] == "bee"


@pytest.mark.parametrize("form", [("file,label,split", ","), ("", ",")])
def test_a_column_of_splits_is_followed(pictures, form):
    splits = load_dataset(write(pictures / "mine.csv", table(form, split=True)), validation=0)
    assert splits.test.ids.tolist() == [f"raw/{row}.png" for row in range(16, 20)]


def test_a_table_of_windows_and_one_that_lies_among_its_images(pictures):
    lines = [line.replace("/", "\\") for line in table(("file,label", ","))]
    assert load_dataset(write(pictures / "mine.csv", lines)).train.ids[0].startswith("raw\\")
    with pytest.raises(ValueError, match=r"found raw; add them, or give .*mine.csv itself"):
        load_dataset(str(pictures))


def test_numbers_as_classes_are_sorted_as_numbers(pictures):
    lines = ["file,label", *(f"raw/{row:02d}.png,{(9, 10)[row % 2]}" for row in range(20))]
    assert load_dataset(write(pictures / "mine.csv", lines)).class_names == ("9", "10")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["picture,kind", "raw/00.png,ant"], r"no column for file and label: its first line is picture, kind"),
        (["file,label,class", "raw/00.png,ant,ant"], "several columns for label: label, class; keep one"),
        (["file,label", "raw/00.png,ant", "raw/00.png,bee"], "names 'raw/00.png' in lines 2 and 3"),
        (["file,label", "raw/00.png"], "line 2 has 1 column, its first line 2"),
        (["file,label,split", "raw/00.png,ant,fold1"], "line 2 has the split 'fold1'; write one of train"),
        (["file,label,split", "raw/00.png,ant,train"], "rows of the splits train; it needs train and test"),
        (["file,label"], "has no rows"),
        (
            ["file,label", "raw/00.png,", "raw/01.png,ant", "raw/99.png,bee"],
            r"2 of 3 .*raw/00.png \(no label in line 2\)",
        ),
    ],
)
def test_an_unclear_table_is_refused_with_what_works(pictures, lines, message):
    with pytest.raises(ValueError, match=message):
        load_dataset(write(pictures / "mine.csv", lines))


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_metadata_beside_the_images_gives_the_labels(pictures, suffix):
    names = [f"{row:02d}.png" for row in range(20)]
    lines = ["file_name,label", *(f"{name},{NAMES[row % 2]}" for row, name in enumerate(names))]
    if suffix == "jsonl":
        lines = [json.dumps({"file_name": name, "label": row % 2}) for row, name in enumerate(names)]
    (pictures / "raw" / f"metadata.{suffix}").write_text("\n".join(lines))
    splits = load_dataset(str(pictures / "raw"), validation=0)
    assert (len(splits.train), splits.class_names) == (16, NAMES if suffix == "csv" else ("0", "1"))


def test_metadata_of_splits_and_captions_beside_class_folders(pictures):
    for split in ("train", "test"):
        for row, name in enumerate(NAMES):
            (pictures / split / name).mkdir(parents=True)
            source = pictures / "raw" / f"{row + 2 * (split == 'test'):02d}.png"
            source.rename(pictures / split / name / "0.png")
        (pictures / split / "metadata.csv").write_text("file_name,text\nant/0.png,an ant\n")
    by_folder = load_dataset(str(pictures), validation=0)
    assert by_folder.class_names == NAMES
    for split in ("train", "test"):
        (pictures / split / "metadata.csv").write_text("file_name,label\nant/0.png,ant\nbee/0.png,bee\n")
    assert load_dataset(str(pictures), validation=0).fingerprint == by_folder.fingerprint


def parquet(pictures, path, rows, labels=None, column="image"):
    path.parent.mkdir(exist_ok=True)
    content = [{"bytes": (pictures / "raw" / f"{row:02d}.png").read_bytes(), "path": None} for row in rows]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {
        column: pa.array(content, kind),
        "label": pa.array([row % 2 for row in rows] if labels is None else labels),
    }
    features = {"info": {"features": {"label": {"names": list(NAMES), "_type": "ClassLabel"}}}}
    pq.write_table(pa.table(columns).replace_schema_metadata({"huggingface": json.dumps(features)}), path)


def test_parquet_of_hugging_face_gives_splits_pixels_and_names(pictures):
    parquet(pictures, pictures / "hf/train-00000-of-00002.parquet", range(8), column="img")
    parquet(pictures, pictures / "hf/train-00001-of-00002.parquet", range(8, 16), column="img")
    parquet(pictures, pictures / "hf/test-00000-of-00001.parquet", range(16, 20), column="img")
    splits = load_dataset(str(pictures / "hf"), validation=0)
    assert (len(splits.train), len(splits.test), splits.class_names) == (16, 4, NAMES)
    assert splits.train.ids.tolist() == [f"train/{row:05d}" for row in range(16)]
    picture = np.asarray(Image.open(pictures / "raw/11.png")).transpose(2, 0, 1)
    assert (splits.train.images[11] == picture).all()
    one = load_dataset(str(pictures / "hf/train-00000-of-00002.parquet"), validation=0, test=0.25)
    assert (len(one.train), len(one.test)) == (6, 2)


def test_parquet_that_is_unclear_is_refused_with_what_works(pictures):
    place = pictures / "hf"
    parquet(pictures, place / "train.parquet", range(4))
    parquet(pictures, place / "more.parquet", range(4, 8))
    with pytest.raises(ValueError, match=r"splits are unclear: more.parquet, train.parquet; name them train-\*"):
        load_dataset(str(place))
    (place / "more.parquet").unlink()
    parquet(pictures, place / "train.parquet", range(4), labels=[0, 1, -1, 1])
    with pytest.raises(ValueError, match=r"all/00002 \(no label \(-1\)\)"):
        load_dataset(str(place))
    pq.write_table(pa.table({"image": [[1, 2]], "label": [0]}), place / "train.parquet")
    with pytest.raises(ValueError, match=r"column image with the bytes of image files .* it has image \(list"):
        load_dataset(str(place))
    (place / "train.parquet").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="no readable Parquet file"):
        load_dataset(str(place))


def test_a_folder_of_arrow_files_says_how_to_write_parquet(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "data-00000-of-00001.arrow").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"dataset.to_parquet\('train.parquet'\)"):
        load_dataset(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("mine.npy", "one array has no labels"),
        ("mine.zip", "unpack it and give its folder"),
        ("mine.pt", "write a function that returns images and labels"),
        ("mine.xlsx", "save it as .csv"),
        ("mine.dat", "give a folder of images, a .csv"),
    ],
)
def test_a_file_of_another_kind_is_refused_with_what_works(tmp_path, name, advice):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ValueError, match=advice):
        load_dataset(str(tmp_path / name))
