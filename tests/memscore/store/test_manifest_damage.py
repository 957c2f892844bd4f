"""A damaged manifest.json is named with a command, and after it the same estimate makes an equal bank."""

import json
import re
import shutil

import pytest

from memscore.bank import main
from memscore.store.manifest import Manifest
from memscore.store.store import Store
from memscore.store.verify import verify
from tests.fixtures.banks import ARM, bank, examples, manifest, path_of
from tests.fixtures.command import SERIAL, SMALL, contents, here, refused

DAMAGES = {
    "truncated": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "other JSON": lambda content: b'{"seed": 0}',
    "a list": lambda content: b"[1, 2]",
    "nested deeply": lambda content: b"[" * 100_000,
    "binary": lambda content: bytes(range(256)) * 4,
    "a changed value": lambda content: content.replace(b'"seed": 0', b'"seed": 1'),
    "another store's": lambda content: manifest().to_json().encode(),
}
IN_EVERY_RUN = {"truncated", "another store's"}
KINDS = ("shards", "scores", "weights", "outputs", "events", "receipts", "arms", "manifest.json", "examples.parquet")


@pytest.fixture
def copy(small, tmp_path):
    return shutil.copytree(small, tmp_path / "bank")


@pytest.mark.parametrize(
    "kind", [kind if kind in IN_EVERY_RUN else pytest.param(kind, marks=pytest.mark.slow) for kind in DAMAGES]
)
def test_the_advice_on_a_damaged_manifest_leads_back_to_the_same_bank(copy, kind, capsys):
    before = contents(copy, KINDS)
    path = copy / "manifest.json"
    damaged = DAMAGES[kind](path.read_bytes())
    path.write_bytes(damaged)
    line = refused(*here(f"{SMALL} {SERIAL} --store {copy}", capsys))
    assert str(path) in line
    assert contents(copy, ("shards",)) == {name: before[name] for name in contents(copy, ("shards",))}
    [command] = re.findall(r"`python -m memscore\.bank ([^`]+)`", line)
    assert main(command.split()) == 1
    out = capsys.readouterr().out
    assert re.search(r"^damaged: manifest\.json: .*; moved to damaged/manifest\.json-1; the command that made", out)
    assert "1 damaged, 0 missing" in out
    assert (copy / "damaged" / "manifest.json-1").read_bytes() == damaged
    assert here(f"{SMALL} {SERIAL} --store {copy}", capsys)[0] == 0
    assert contents(copy, KINDS) == before
    assert verify(Store.open(copy)).damaged == {}


def test_a_store_without_manifest_is_made_whole_by_the_same_estimate_and_refused_to_another(copy, capsys):
    before = contents(copy, KINDS)
    (copy / "manifest.json").unlink()
    assert main(["verify", str(copy)]) == 2
    assert "16 shards and no manifest.json" in capsys.readouterr().err
    for other in ("--seed 1", "--lr 0.01", "--label-noise 0.1"):
        line = refused(*here(f"{SMALL} {SERIAL} --store {copy} {other}", capsys))
        assert "16 shards and no manifest.json, and they are of other data, another network, recipe or seed" in line
    assert not (copy / "manifest.json").exists()
    assert here(f"{SMALL} {SERIAL} --store {copy}", capsys)[0] == 0
    assert contents(copy, KINDS) == before


def test_a_store_of_another_identity_is_still_refused_with_both_values(copy, capsys):
    line = refused(*here(f"{SMALL} {SERIAL} --store {copy} --seed 1", capsys))
    assert "seed is 0, requested 1" in line
    assert "give another store" in line


def test_the_owner_of_a_foreign_manifest_is_refused_too_and_loses_no_shard(tmp_path):
    store = bank(tmp_path / "bank")
    shards = store.folder.names("shards")
    foreign = manifest(seed=5)
    path_of(store, "manifest.json").write_bytes(foreign.to_json().encode())
    with pytest.raises(ValueError, match=r"it is another store's, for no shard here was made under it; .*--set-aside"):
        Store.create(store.url, foreign, examples())
    assert main(["verify", store.url, "--set-aside"]) == 1
    assert store.folder.names("shards") == shards
    assert Store.create(store.url, manifest(), examples()).check(ARM["name"]).damaged == {}


def test_shards_that_no_arm_explains_are_refused_without_a_manifest(tmp_path):
    store = bank(tmp_path / "bank")
    path_of(store, "manifest.json").unlink()
    path_of(store, f"arms/{ARM['name']}.json").write_bytes(b"{}")
    with pytest.raises(ValueError, match="no readable arm tells what they are"):
        Store.create(store.url, manifest(), examples())


def test_a_manifest_of_another_version_is_not_called_damaged(tmp_path):
    store = bank(tmp_path / "bank")
    later = Manifest(**(manifest().record() | {"schema_version": 2}))
    path_of(store, "manifest.json").write_text(later.to_json())
    with pytest.raises(ValueError, match="use the memscore that wrote it") as refusal:
        Store.open(store.url)
    assert "--set-aside" not in str(refusal.value)
    assert main(["verify", store.url, "--set-aside"]) == 2
    assert json.loads(path_of(store, "manifest.json").read_text())["schema_version"] == 2


def test_the_manifest_of_a_store_within_the_bank_is_reported_and_moved(tmp_path, capsys):
    outer = bank(tmp_path / "bank")
    inner = Store.create(f"{outer.url}/scenarios/canaries-s0", manifest(), examples())
    path = path_of(inner, "manifest.json")
    path.write_bytes(b"{")
    main(["verify", outer.url, "--set-aside"])
    out = capsys.readouterr().out
    assert "damaged: scenarios/canaries-s0/manifest.json: " in out
    assert not path.exists()
    main(["verify", outer.url])
    out = capsys.readouterr().out
    assert f"missing: scenarios/canaries-s0/manifest.json: `python -m unlearn.trial {outer.url}`" in out
    Store.create(inner.url, manifest(), examples())
    assert main(["verify", outer.url]) == 1  # the bank of this test has no receipts
    assert "manifest.json" not in capsys.readouterr().out
