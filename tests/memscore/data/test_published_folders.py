"""CINIC-10 and Tiny-ImageNet by name: where they are found, their class names, and what is said where they are not."""

import shutil
import subprocess

import pytest

from memscore.data.datasets import load_dataset
from memscore.data.published_folders import PUBLISHED_FOLDERS
from memscore.pipeline.config import BankConfig, build_manifest
from tests.memscore.data.test_image_folder import cinic, tiny

WORDS = "n00000001\tthing\nn01443537\tgoldfish, Carassius auratus\nn02056570\tking penguin, Aptenodytes patagonica\n"


@pytest.mark.parametrize("place", ["tiny-imagenet", "tiny-imagenet/tiny-imagenet-200", "tiny-imagenet-200"])
def test_tiny_imagenet_is_found_where_it_was_unpacked_and_named_by_its_words(tmp_path, monkeypatch, place):
    root = tiny(tmp_path / place)
    (root / "words.txt").write_text(WORDS)
    monkeypatch.setenv("MEMSCORE_DATA", str(tmp_path))
    splits = load_dataset("tiny-imagenet", validation=0)
    assert splits.class_names == ("goldfish", "king penguin")
    assert splits.origin["path"] == str(root)
    assert splits.test.ids.tolist() == [f"val/images/val_{number}.JPEG" for number in range(3)]
    note = splits.notes[-1]
    assert f"{root} is not all of tiny-imagenet: 2 of 200 classes, 11 of 110,000 images" in note
    for folder in (root, root.parent):
        assert load_dataset("tiny-imagenet", validation=0, folder=str(folder)).fingerprint == splits.fingerprint


def test_words_that_two_classes_share_are_written_out(tmp_path):
    root = tiny(tmp_path)
    (root / "words.txt").write_text("n01443537\tcrane, a bird\nn02056570\tcrane\nno tab\n")
    assert load_dataset("tiny-imagenet", validation=0, folder=str(root)).class_names == ("crane, a bird", "crane")
    (root / "words.txt").unlink()
    assert load_dataset("tiny-imagenet", validation=0, folder=str(root)).class_names == ("n01443537", "n02056570")


def test_cinic10_needs_no_option_but_its_name(tmp_path, monkeypatch):
    monkeypatch.setenv("MEMSCORE_DATA", str(tmp_path))
    root = cinic(tmp_path / "cinic10")
    splits = load_dataset("cinic10", resize="8")
    assert (splits.name, splits.origin["path"]) == ("cinic10", str(root))
    manifest, recipe = build_manifest(BankConfig(data="cinic10", batch=2), splits, [])
    assert (manifest.architecture, recipe) == ("resnet18", "rum-cifar10")
    (root / "train" / "ship" / "0.png").write_bytes(b"")
    assert len(load_dataset("cinic10", skip_bad=True).train) == 7


@pytest.mark.parametrize("name", PUBLISHED_FOLDERS)
def test_a_published_folder_that_is_not_there_says_how_to_get_it(tmp_path, monkeypatch, name):
    known = PUBLISHED_FOLDERS[name]
    monkeypatch.setenv("MEMSCORE_DATA", str(tmp_path))
    with pytest.raises(OSError, match=r"is not downloaded by memscore; no folder train/ in ") as caught:
        load_dataset(name)
    assert f"fetch {known.url}" in str(caught.value)
    assert f"cd {tmp_path / name} && {known.unpack} " in str(caught.value)
    (tmp_path / known.archive).write_bytes(b"")
    with pytest.raises(OSError, match=f"{known.archive} is there but was not unpacked: unpack it by"):
        load_dataset(name)
    mine = tmp_path / "mine"
    with pytest.raises(OSError, match=r"no folder train/ in ") as caught:
        load_dataset(name, folder=str(mine))
    assert f"mkdir -p {mine} && cd {mine} && " in str(caught.value)


def test_the_advice_is_a_command_that_works(tmp_path, monkeypatch):
    monkeypatch.setenv("MEMSCORE_DATA", str(tmp_path / "data"))
    shutil.make_archive(str(tmp_path / "CINIC-10"), "gztar", cinic(tmp_path / "packed"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match=r"unpack it by") as caught:
        load_dataset("cinic10")
    command = str(caught.value).split("unpack it by '")[1].split("'")[0]
    subprocess.run(["bash", "-ec", f"cd . && {command}"], check=True)
    assert len(load_dataset("cinic10").train) == 8
