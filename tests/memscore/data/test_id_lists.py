"""Lists of ids: every kind of file, and paths of files with other folders before them."""

import numpy as np
import pandas as pd
import pytest

from memscore.data.id_lists import match_ids, read_id_list, read_matching_ids

IDS = ["cat/001.jpg", "dog, big/é 2.jpg"]
KNOWN = [*IDS, "cat/002.jpg", "dog/001.jpg"]


@pytest.mark.parametrize(
    "text",
    [
        'id\ncat/001.jpg\n"dog, big/é 2.jpg"\n',
        'cat/001.jpg\n"dog, big/é 2.jpg"\n',
        ',id,label\n0,cat/001.jpg,3\n1,"dog, big/é 2.jpg",4\n\n',
        'label;Filename\r\n3;"cat/001.jpg"\r\n4;"dog, big/é 2.jpg"\r\n',
        "path\tlabel\ncat/001.jpg\t3\ndog, big/é 2.jpg\t4\n",
        'members of mine\ncat/001.jpg\n"dog, big/é 2.jpg"\n',
        'id,member\ncat/001.jpg,True\n"dog, big/é 2.jpg",True\n',
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_ids_are_read_from_csv(tmp_path, text, encoding):
    (tmp_path / "a.CSV").write_bytes(text.encode(encoding))
    matched = read_matching_ids(str(tmp_path / "a.CSV"), KNOWN)
    assert matched.ids.tolist() == IDS
    assert len(matched.notes) == text.startswith("members of")


def test_ids_are_read_from_parquet_and_from_quoted_text(tmp_path):
    pd.DataFrame({"row": [0, 1], "id": IDS, "score": [0.1, 0.2]}).to_parquet(tmp_path / "a.parquet")
    pd.DataFrame({"anything": IDS}).to_parquet(tmp_path / "b.parquet")
    (tmp_path / "a.txt").write_text("".join(f'"{name}"\n\n' for name in IDS))
    for name in ("a.parquet", "b.parquet", "a.txt"):
        assert read_id_list(str(tmp_path / name)).tolist() == IDS


def test_tables_that_do_not_say_which_ids_are_meant_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    (tmp_path / "b.csv").write_text("id,member\nx,1\ny,0\n")
    (tmp_path / "c.parquet").write_bytes(b"no")
    pd.DataFrame({"id": ["x"], "member": [False]}).to_parquet(tmp_path / "d.parquet")
    pd.DataFrame({"a": ["x"], "b": ["y"]}).to_parquet(tmp_path / "e.parquet")
    for name, message in {
        "a.csv": "has the columns 'a', 'b', and none that is called id, file",
        "b.csv": "'member' that is false for 1 rows; write the ids of the others only",
        "c.parquet": "is no readable Parquet file",
        "d.parquet": "'member' that is false for 1 rows",
        "e.parquet": "has the columns 'a', 'b'",
    }.items():
        with pytest.raises(ValueError, match=message):
            read_id_list(str(tmp_path / name))


@pytest.mark.parametrize(
    ("given", "note"),
    [
        (["cat/001.jpg", "dog/001.jpg"], ""),
        (["data/train/cat/001.jpg", "data/train/dog/001.jpg"], "'data/train/' was taken off the beginning of all ids"),
        (["C:\\data\\cat\\001.jpg", "C:\\data\\dog\\001.jpg"], "'C:/data/' was taken off"),
        (["/home/me/cat/001.jpg", "/home/me/dog/001.jpg"], "'/home/me/' was taken off"),
        (["./cat/001.jpg", "./dog/001.jpg"], "'./' was taken off"),
    ],
)
def test_paths_of_files_are_matched_by_one_folder_before_all(given, note):
    matched = match_ids(np.array(given), KNOWN)
    assert matched.ids.tolist() == ["cat/001.jpg", "dog/001.jpg"]
    assert note in "".join(matched.notes)
    assert len(matched.notes) == bool(note)


def test_folders_are_put_before_ids_only_where_one_way_fits():
    known = ["train/a/1.png", "train/b/1.png", "test/a/1.png"]
    assert match_ids(np.array(["a/1.png", "b/1.png"]), known).ids.tolist() == known[:2]
    ambiguous = match_ids(np.array(["a/1.png"]), known)
    assert (ambiguous.ids.tolist(), ambiguous.notes) == (["a/1.png"], ())
    unknown = match_ids(np.array(["train/a/1.png", "x/b/1.png"]), known)
    assert unknown.ids.tolist() == ["train/a/1.png", "x/b/1.png"]


def test_ids_named_twice_are_counted():
    matched = match_ids(np.array(["cat/001.jpg", "cat/001.jpg", "dog/001.jpg"]), KNOWN)
    assert matched.notes == ("1 ids are named more than once and count once",)


def test_an_id_in_place_of_a_file_says_so():
    with pytest.raises(
        ValueError, match=r"--members takes a file of ids, and '.*' is an id; write it into a .txt file"
    ):
        read_matching_ids(next(iter(KNOWN)), KNOWN)
