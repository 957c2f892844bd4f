"""A bank knows where its data are, and what its options were; data that changed since are said."""

import shutil
import sys

import numpy as np
import pytest

from memscore.pipeline.config import BankConfig, build_recipe
from memscore.pipeline.reload_data import reload_splits
from memscore.pipeline.stored_options import complete_options
from memscore.store.store import Store
from tests.fixtures.opened import open_bank

OPTIONS = {"arch": "mlp-8", "recipe": "small-mlp", "epochs": 2, "batch": 8, "design": "exact", "block": 8, "models": 8}


def write_images(path, order=slice(None), n=80):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 255, (n, 4, 4)).astype(np.uint8), rng.permutation(np.arange(n) % 2)
    np.savez(path, images=images[order], labels=labels[order])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with an archive."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEMSCORE_HOME", str(tmp_path / "home"))
    write_images("single.npz")
    return tmp_path


def open_single(**changes):
    opened = open_bank(BankConfig(**{"data": "./single.npz", "store": "./single", **OPTIONS, **changes}))
    arm = opened.arms[0]
    opened.store.add_arm({"name": arm.name, "design": arm.design, "keep": arm.keep, "block": arm.block})
    return opened


def test_data_are_read_again_from_another_folder_with_the_options_of_the_bank(folder, monkeypatch):
    bank = open_single(validation=0.25, train_limit=40, label_noise=0.1, seed=3)
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    again = reload_splits(Store.open(folder / "single"))
    assert again.fingerprint == bank.splits.fingerprint
    completed, notes = complete_options(BankConfig(store=str(folder / "single"), models=16))
    assert open_bank(completed).splits.fingerprint == bank.splits.fingerprint
    assert (completed.data, completed.seed, completed.label_noise) == (str(folder / "single.npz"), 3, 0.1)
    assert (completed.design, completed.block, completed.models, completed.validation) == ("exact", 8, 16, 0.25)
    assert f"--data {folder / 'single.npz'}" in notes[0]
    # the recipe is the stored one, though another is the default for data of one's own
    assert build_recipe(completed, "mlp-8")[1].epochs == 2


def test_data_that_moved_or_changed_are_said_with_the_flag_to_give(folder):
    store = open_single().store
    shutil.move("single.npz", "moved.npz")
    with pytest.raises(ValueError, match=r"were read from .*single\.npz, which is not there; give --data PATH"):
        reload_splits(store)
    assert reload_splits(store, "moved.npz").fingerprint == store.manifest.fingerprint
    write_images("single.npz", np.random.default_rng(1).permutation(80))
    with pytest.raises(ValueError, match=r"another order.*give --data or --folder of the same"):
        reload_splits(store)
    with pytest.raises(ValueError, match=r"the data have changed since .*single was made from them: "):
        open_single()
    write_images("single.npz", n=90)
    with pytest.raises(ValueError, match=r"90 examples, the bank 80: 10 new \(first all/000"):
        reload_splits(store)


def test_a_store_without_the_record_takes_no_store_for_its_data(folder):
    store = open_single().store
    (folder / "single" / "data.json").unlink()
    with pytest.raises(ValueError, match=r"the folder of that name here is a store; give --data PATH"):
        reload_splits(store)
    assert reload_splits(store, "single.npz").fingerprint == store.manifest.fingerprint
    with pytest.raises(ValueError, match="made by an earlier version and knows only the name"):
        complete_options(BankConfig(store="single"))


def test_a_recorded_function_is_called_only_where_the_user_names_it(folder, monkeypatch):
    (folder / "recorded.py").write_text(
        "from pathlib import Path\nimport numpy as np\nPath('ran').touch()\n"
        "def data():\n    z = np.load('single.npz')\n    i, l = z['images'], z['labels']\n"
        "    return i[:60], l[:60], i[60:], l[60:]\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    store = open_single(data="recorded:data").store
    (folder / "ran").unlink()
    del sys.modules["recorded"]
    for read in (lambda: reload_splits(store), lambda: complete_options(BankConfig(store="single"))):
        with pytest.raises(ValueError, match=r"runs only where you name it: add --data recorded:data"):
            read()
    assert not (folder / "ran").exists()
    assert reload_splits(store, "recorded:data").fingerprint == store.manifest.fingerprint


def test_options_that_are_given_stay_and_several_arms_must_be_named(folder):
    open_single(seed=3)
    given = BankConfig(store="single", seed=0, design="iid", keep=0.7, arch="mlp-4")
    completed, _ = complete_options(given)
    assert (completed.seed, completed.design, completed.keep, completed.arch) == (0, "iid", 0.7, "mlp-4")
    Store.open("single").add_arm({"name": "iid-k0.700", "design": "iid", "keep": 0.7, "block": 1})
    with pytest.raises(ValueError, match=r"has 2 arms, exact-k0\.500-b8, iid-k0\.700; give --design and --keep"):
        complete_options(BankConfig(store="single"))
    assert complete_options(BankConfig(store="new", data="digits")) == (BankConfig(store="new", data="digits"), ())


def test_a_new_bank_beside_one_of_the_same_command_says_that_data_changed(folder):
    options = OPTIONS | {"data": "./single.npz"}
    first = open_bank(BankConfig(**options))
    assert not first.notes
    write_images("single.npz", np.arange(80)[::-1])
    second = open_bank(BankConfig(**options))
    assert "the data have changed since the bank" in second.notes[0]
    assert first.store.folder.display_name in second.notes[0]
    # options of reading that differ are the user's own doing, and another bank without a word
    assert not open_bank(BankConfig(**options, validation=0.3)).notes


def test_a_recorded_place_is_kept_when_the_bank_is_opened_again(folder):
    store = open_single().store
    before = store.read_origin()
    completed, _ = complete_options(BankConfig(store="single"))
    open_bank(completed)
    assert store.read_origin()["path"] == before["path"]


def test_a_mistyped_store_is_noted_before_a_bank_of_digits_begins_there(folder):
    open_single()
    shutil.copytree(folder / "single", folder / "home" / "pictures")
    for store, near in (("singel", folder / "single"), ("there/picture", folder / "home" / "pictures")):
        config, [note] = complete_options(BankConfig(store=str(folder / store)))
        assert config == BankConfig(store=str(folder / store))
        assert note.startswith(f"there is no bank at {folder / store}: a new one of digits begins there")
        assert note.endswith(f"; did you mean {near}?")
    [note] = complete_options(BankConfig(store="elsewhere"))[1]
    assert "did you mean" not in note
    assert complete_options(BankConfig(store="singel", data="digits"))[1] == ()


def test_a_store_that_lost_its_manifest_is_no_new_one(folder):
    (folder / "lost" / "shards").mkdir(parents=True)
    (folder / "lost" / "shards" / "exact-k0.500-b8-00000.parquet").write_bytes(b"a model")
    assert complete_options(BankConfig(store="lost"))[1] == ()
