"""bank verify: every damaged file named, good ones counted, nothing lost by setting aside."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from memscore.bank import main
from memscore.score_registry import get_estimator_version
from memscore.store.json_records import encode_record
from memscore.store.parquet import to_table
from memscore.store.score_files import build_version_metadata
from memscore.store.shards import format_model_name, hash_shards
from memscore.store.verify import quarantine_damaged, verify
from tests.fixtures.banks import ARM, FIELD, bank, flip, path_of, shard

KINDS = {
    "shards/iid-k0.700-00001.parquet": "bytes were changed in column row, row group 0",
    "events/k.parquet": "bytes were changed in column confidence, row group 0",
    "outputs/k.parquet": "bytes were changed in column logits, row group 0",
    "scores/mem.parquet": "bytes were changed in column row, row group 0",
    "influence/test_k0.700.parquet": "bytes were changed in column train_row, row group 0",
    "clusters.parquet": "bytes were changed in column cluster, row group 0",
    "examples.parquet": "bytes were changed in column row, row group 0",
    "weights/k.safetensors": "do not give the sha256",
    "arms/iid-k0.700.json": "do not give the record_sha256",
    "receipts/k.json": "do not give the record_sha256",
    "reports/summary.json": "do not give the record_sha256",
    "models.parquet": "bytes were changed in column model, row group 0",
    "scores.parquet": "bytes were changed in column row, row group 0",
}


@pytest.fixture
def full(tmp_path):
    """A store with a file of each kind in KINDS."""
    store = bank(tmp_path / "bank")
    store.write_clusters(np.zeros(40))
    store.write_events("k", {"confidence": np.ones(40, np.float32)})
    store.write_outputs("k", np.ones((52, 10)), np.ones((52, 3)))
    store.write_weights("k", {"w": torch.ones(30)})
    store.write_receipt("k", {"model": "k", "diverged": False, "seconds": 1})
    store.write_score("mem", {"mem": np.ones(40)}, {"mem": FIELD}, {}, hash_shards("a", {}))
    columns = dict.fromkeys(("train_row", "test_row", "influence"), np.arange(9, dtype=np.int32))
    version = build_version_metadata(get_estimator_version("influence"))
    store.write_influence(
        "test_k0.700", to_table(columns, {"arm": "a", "targets": "test", "shards_digest": "d", **version})
    )
    models = [format_model_name(ARM["name"], index) for index in range(3)]
    for name in models:
        store.write_receipt(name, {"model": name, "diverged": False, "seconds": 1})
    store.write_table("models.parquet", pa.table({"model": models, "arm": models, "index": range(3)}))
    store.write_table("scores.parquet", store.read_score("mem"))
    store.folder.replace("reports/summary.json", encode_record({"arms": [], "originals": 1}))
    return store


def damage(store, relpath):
    """Flip a bit where the values are."""
    path = path_of(store, relpath)
    if relpath.endswith(".parquet"):
        first = pq.ParquetFile(path).metadata.row_group(0).column(0)
        flip(path, first.data_page_offset + first.total_compressed_size - 1)
    elif relpath.endswith(".safetensors"):
        flip(path, path.stat().st_size - 1)
    else:
        flip(path, path.read_bytes().index(b": 1") + 2)


def find_known(lines):
    return [line for line in lines if not line.startswith("unknown: ")]


def test_a_sound_store_is_verified_and_counted(full, capsys):
    assert main(["verify", full.url]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert find_known(lines) == ["20 files verified, 0 damaged, 0 missing, 0 old"]
    # files whose key is no hash: no command writes such
    unknown = [line.split(": ")[1] for line in lines if line.startswith("unknown: ")]
    assert unknown == ["events/k.parquet", "outputs/k.parquet", "receipts/k.json", "weights/k.safetensors"]


@pytest.mark.parametrize("relpath", KINDS)
def test_one_flipped_bit_is_named_with_its_file_and_place(full, relpath, capsys):
    damage(full, relpath)
    assert main(["verify", full.url]) == 1
    lines = find_known(capsys.readouterr().out.splitlines())
    assert len(lines) == 3
    assert lines[0].startswith(f"damaged: {relpath}: ")
    assert KINDS[relpath] in lines[0]
    assert lines[1] == "19 files verified, 1 damaged, 0 missing, 0 old"


def test_a_file_that_is_set_aside_is_made_again_and_nothing_is_lost(full, capsys):
    name = format_model_name(ARM["name"], 1)
    path = path_of(full, f"shards/{name}.parquet")
    whole = path.read_bytes()
    damage(full, f"shards/{name}.parquet")
    path_of(full, "shards/stranger-00001.parquet").write_bytes(whole)
    assert main(["verify", full.url, "--set-aside"]) == 1
    out = capsys.readouterr().out
    assert f"moved to damaged/{name}.parquet-1" in out
    assert "shards/stranger-00001.parquet: a shard of no stored arm; it stays" in out
    assert len(full.folder.names("damaged")) == 1
    assert list(full.find_valid_shards(ARM["name"])) == [0, 2]
    full.write_shard(name, ARM["name"], shard(1))
    assert path.read_bytes() == whole
    full.folder.remove("shards/stranger-00001.parquet")
    assert main(["verify", full.url]) == 0


def test_a_shard_of_no_arm_stays_only_while_it_is_whole(full):
    whole = path_of(full, f"shards/{format_model_name(ARM['name'], 1)}.parquet").read_bytes()
    for name in ("stranger-00001", "stranger-00002"):
        path_of(full, f"shards/{name}.parquet").write_bytes(whole)
    damage(full, "shards/stranger-00002.parquet")
    result = verify(full)
    assert result.kept_in_place == {"shards/stranger-00001.parquet"}
    assert set(result.damaged) == {"shards/stranger-00001.parquet", "shards/stranger-00002.parquet"}
    assert quarantine_damaged(full.folder, result) == {
        "shards/stranger-00002.parquet": "damaged/stranger-00002.parquet-1"
    }
    assert full.folder.exists("shards/stranger-00001.parquet")


def test_an_arm_without_its_hash_or_missing_costs_no_shard(full, capsys):
    arm = path_of(full, f"arms/{ARM['name']}.json")
    arm.write_text(arm.read_text().replace("record_sha256", "racord_sha256"))
    shards = full.folder.names("shards")
    assert main(["verify", full.url, "--set-aside"]) == 1
    assert "it has no record_sha256; moved to damaged/" in capsys.readouterr().out
    assert full.folder.names("shards") == shards
    assert main(["verify", full.url, "--set-aside"]) == 1
    assert full.folder.names("shards") == shards
    full.add_arm(ARM)
    assert main(["verify", full.url]) == 0


def test_setting_aside_waits_for_no_driver(full, capsys):
    with full.lock():
        assert main(["verify", full.url, "--set-aside"]) == 2
        assert main(["verify", full.url]) == 0
    assert "in use by pid" in capsys.readouterr().err


def test_the_command_answers_bad_input_in_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "memscore.bank", "verify", tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: no store at")
    assert done.stderr.count("\n") == 1
