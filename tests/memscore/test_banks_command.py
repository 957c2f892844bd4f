"""memscore banks: every folder listed as what it is, with its true size; removal takes stores alone, and asks."""

import json
import os
import shutil

import numpy as np
import pytest
import torch

from memscore.banks import main
from memscore.monitoring.bank_list import list_banks
from memscore.store.filesystem import Folder, acquire_lock
from memscore.store.store import Store
from memscore.store.trial_files import write_cost
from memscore.store.verify import verify
from tests.fixtures import banks


@pytest.fixture
def homes(home, monkeypatch):
    """The folder of banks, with one bank and folders that are none."""
    folder = home / "memscore"
    monkeypatch.setenv("MEMSCORE_HOME", str(folder))
    banks.bank(folder / "good")
    shutil.copytree(folder / "good", folder / "lost")
    (folder / "lost" / "manifest.json").unlink()
    (folder / "photos").mkdir()
    (folder / "photos" / "cat.png").write_bytes(b"12345")
    (folder / "damaged").mkdir()
    (folder / "damaged" / "manifest.json").write_text("{}")
    (folder / "empty").mkdir()
    return folder


def snapshot(folder):
    return sorted(str(path) for path in folder.rglob("*"))


def test_every_folder_is_listed_as_what_it_is(homes, capsys):
    found = {bank.name: bank for bank in list_banks(str(homes))}
    assert found.keys() == {"good", "lost", "photos", "damaged", "empty"}
    assert (found["good"].models, found["good"].problem) == (len(list((homes / "good" / "shards").iterdir())), "")
    assert found["good"].bytes == sum(path.stat().st_size for path in (homes / "good").rglob("*") if path.is_file())
    assert found["lost"].problem.startswith("damaged: ")
    assert found["photos"].problem == "no bank: it has no manifest.json, but cat.png"
    assert found["damaged"].problem.startswith("manifest.json: ")
    assert found["empty"].problem == "no bank: it is empty"
    assert main([]) == 0
    assert "1 bank in " in capsys.readouterr().out
    assert main(["--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 5


def test_a_folder_that_holds_no_banks_because_it_is_none_is_an_error(homes, capsys):
    for place, message in (
        (homes / "nowhere", "there is no folder"),
        (homes / "photos" / "cat.png", "is a file"),
        (homes / "good", "is a bank; name the folder that it is in"),
    ):
        assert main([str(place)]) == 2
        assert message in capsys.readouterr().err
        assert main([str(place), "--json"]) == 2
        capsys.readouterr()
    assert main([str(homes / "empty")]) == 0
    assert "0 banks in" in capsys.readouterr().out


def test_a_bank_in_use_is_listed_so_and_not_removed(homes, capsys):
    [good] = [bank for bank in list_banks(str(homes)) if bank.name == "good"]
    assert good.activity == ""
    with acquire_lock(Folder.from_url(str(homes / "good"))):
        [good] = [bank for bank in list_banks(str(homes)) if bank.name == "good"]
        assert good.activity == "in use"
        before = snapshot(homes)
        assert main(["remove", "good", "--yes"]) == 2
        assert "is in use by pid" in capsys.readouterr().err
        assert snapshot(homes) == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("photos", "has no manifest.json"),
        ("lost", "has no manifest.json"),
        ("damaged", "is not what memscore wrote"),
        ("nothing", "no store at"),
        ("link", "is a link to"),
        ("mixed", "also holds 1 file that memscore did not write (thesis.tex)"),
    ],
)
def test_only_a_store_is_removed(homes, name, message, capsys):
    (homes / "link").symlink_to(homes / "good")
    shutil.copytree(homes / "good", homes / "mixed")
    (homes / "mixed" / "thesis.tex").write_text("years of work")
    before = snapshot(homes)
    assert main(["remove", name, "--yes"]) == 2
    assert message in capsys.readouterr().err
    assert snapshot(homes) == before


def test_a_bank_is_removed_whole_and_links_are_not_followed(homes, tmp_path, capsys):
    elsewhere = tmp_path / "elsewhere"
    shutil.move(homes / "good" / "shards", elsewhere)
    (homes / "good" / "shards").symlink_to(elsewhere)
    kept = snapshot(elsewhere)
    assert main(["remove", "good"]) == 2
    assert "wants an answer; give --yes" in capsys.readouterr().err
    assert main(["remove", "good", "--yes"]) == 0
    assert "shards was a link: what it leads to is still there" in capsys.readouterr().out
    assert not (homes / "good").exists()
    assert snapshot(elsewhere) == kept
    assert len(kept) > 1


def test_trials_are_removed_and_the_bank_stays_sound(homes, capsys):
    store = Store.open(str(homes / "good"))
    original, oracle, unlearned = ("1" * 64, "2" * 64, "3" * 64)
    for key in (original, oracle, unlearned):
        store.write_weights(key, {"w": torch.ones(3)})
        store.write_outputs(key, np.ones((store.manifest.n_rows, 10)), np.ones((store.manifest.n_rows, 3)))
    store.write_receipt(
        "original-00000", {"model": "original-00000", "key": original, "diverged": False, "seconds": 1.0}
    )
    store.write_receipt("oracle-x", {"model": "oracle-x", "key": oracle, "diverged": False, "seconds": 1.0})
    write_cost(store, unlearned, "ok", 1.0, 1, 1)
    os.makedirs(homes / "good" / "sweeps" / "one")
    store.folder.replace("sweeps/one/sweep.json", b"{}")
    before = set(verify(store).missing)
    assert main(["remove", "good", "--trials", "--yes"]) == 0
    assert "removed 7 files" in capsys.readouterr().out
    assert [path.stem for path in (homes / "good" / "weights").iterdir()] == [original]
    assert not (homes / "good" / "sweeps").exists()
    assert not (homes / "good" / "trials").exists()
    assert verify(store).damaged == {}
    assert set(verify(store).missing) <= before
    assert main(["remove", "good", "--trials"]) == 0
    assert "has no trials" in capsys.readouterr().out
