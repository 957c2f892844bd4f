"""Stored scores: the paper's value, oriented only when read, and refused when stale."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from memscore.score_registry import ESTIMATOR_VERSIONS, get_estimator_version
from memscore.store.parquet import decode_metadata
from memscore.store.score_files import is_stale
from memscore.store.shards import format_model_name, hash_shards
from tests.fixtures.banks import ARM, FIELD, bank, path_of, shard


@pytest.fixture
def store(tmp_path):
    return bank(tmp_path / "bank")


def score(store, name="mem", direction=1, digest=None, **metadata):
    values = np.linspace(0, 1, 40)
    values[3] = np.nan
    columns = {name: values, f"{name}_n_in": np.arange(40, dtype=np.int32)}
    fields = {name: {**FIELD, "direction": direction}, f"{name}_n_in": {**FIELD, "unit": "count", "direction": 0}}
    digest = digest or hash_shards(ARM["name"], store.find_valid_shards(ARM["name"]))
    store.write_score(name, columns, fields, metadata or {"arm": ARM["name"]}, digest)
    return values


def test_a_score_is_stored_as_in_the_paper_with_null_for_undefined(store):
    values = score(store, direction=-1)
    table = pq.read_table(path_of(store, "scores/mem.parquet"))
    assert table.column_names == ["row", "id", "mem", "mem_n_in"]
    assert table["mem"].null_count == 1
    assert table["mem"][3].as_py() is None
    assert table["mem_n_in"].null_count == 0
    np.testing.assert_array_equal(np.delete(table["mem"].to_numpy(), 3), np.delete(values, 3))
    assert table["id"][39].as_py() == "train/00039"
    field = table.schema.field("mem").metadata
    assert field == {b"source": b"a paper", b"unit": b"probability", b"direction": b"-1"}
    assert store.read_score("mem").equals(table)
    assert store.read_score_digest("mem") == hash_shards(ARM["name"], store.find_valid_shards(ARM["name"]))


@pytest.mark.parametrize("direction", [1, -1])
def test_score_returns_the_oriented_vector(store, direction):
    values = score(store, direction=direction)
    ids, oriented = store.score("mem")
    assert (ids[0], ids[-1], oriented.dtype) == ("train/00000", "train/00039", np.float64)
    np.testing.assert_array_equal(oriented, direction * values)
    assert not np.signbit(oriented[0])  # a score of 0 is printed as 0, not -0, whichever way it points


def test_a_score_of_some_rows_has_their_ids(store):
    columns = {"row": np.array([7, 2], np.int32), "mem": np.array([0.5, 1])}
    store.write_score("mem", columns, {"mem": FIELD}, {}, "d")
    assert store.score("mem")[0].tolist() == ["train/00007", "train/00002"]


def test_a_stale_score_is_refused_with_the_command_that_renews_it(store):
    score(store)
    store.score("mem")
    store.write_shard(format_model_name(ARM["name"], 3), ARM["name"], shard(3))
    with pytest.raises(ValueError, match=r"'mem' is stale.*python -m memscore\.estimate --store"):
        store.score("mem")
    score(store)
    store.score("mem")
    with pytest.raises(ValueError, match="stale"):
        store.score("mem", digest="another")


def test_a_score_of_another_version_of_its_estimator_is_stale(store, monkeypatch):
    """Version 1 is not written, so files from before there were versions are of version 1 and keep their bytes."""
    name = "mem_k0.500_exact-b8"
    score(store, name)
    first = path_of(store, f"scores/{name}.parquet").read_bytes()
    assert b"estimator_version" not in first
    monkeypatch.setitem(ESTIMATOR_VERSIONS, "mem", 2)
    with pytest.raises(ValueError, match=r"stale, its estimator has changed since; run `python -m memscore\.est"):
        store.score(name)
    score(store, name)
    store.score(name)
    assert decode_metadata(store.read_score(name).schema)["estimator_version"] == "2"
    monkeypatch.delitem(ESTIMATOR_VERSIONS, "mem")
    with pytest.raises(ValueError, match="its estimator has changed"):
        store.score(name)
    score(store, name)
    assert path_of(store, f"scores/{name}.parquet").read_bytes() == first


def test_a_score_of_no_arm_can_have_another_version_too(store, monkeypatch):
    score(store, "events_mem", models_of="originals")
    store.score("events_mem")
    monkeypatch.setitem(ESTIMATOR_VERSIONS, "events_mem", 2)
    with pytest.raises(ValueError, match="its estimator has changed"):
        store.score("events_mem")


@pytest.mark.parametrize(
    ("metadata", "digest", "version", "stale"),
    [
        ({"shards_digest": "a"}, "a", 1, False),
        ({"shards_digest": "a"}, None, 1, False),
        ({"shards_digest": "a"}, "b", 1, True),
        ({"shards_digest": "a"}, "a", 2, True),
        ({"shards_digest": "a", "estimator_version": "2"}, "a", 2, False),
        ({"shards_digest": "a", "estimator_version": "2"}, None, 3, True),
    ],
)
def test_what_is_stale_is_of_other_shards_or_of_another_version(metadata, digest, version, stale):
    assert is_stale(metadata, digest, version) == stale


def test_a_version_is_that_of_the_score_in_every_arm(monkeypatch):
    monkeypatch.setitem(ESTIMATOR_VERSIONS, "memorization", 9)
    monkeypatch.setitem(ESTIMATOR_VERSIONS, "events_bank_entropy", 3)
    for name in ("memorization", "memorization_k0.700", "memorization_k0.700_orthogonal"):
        assert get_estimator_version(name) == 9
    assert get_estimator_version("memorization_probit_k0.500") == 1
    assert get_estimator_version("events_bank_k0.500_iid_entropy") == 3


def test_an_unknown_score_offers_the_nearest(store):
    with pytest.raises(ValueError, match=r"has no scores yet, so none named 'mem'; run `python -m memscore\.estimate"):
        store.score("mem")
    score(store)
    with pytest.raises(
        ValueError,
        match=r"unknown score 'mems'; did you mean 'mem'.*made by `python -m memscore.estimate .* another --keep",
    ):
        store.score("mems")


def test_a_score_without_direction_cannot_be_oriented(store):
    score(store, direction=0)
    with pytest.raises(ValueError, match="'mem' points neither way"):
        store.score("mem")


@pytest.mark.parametrize(
    ("columns", "fields", "message"),
    [
        ({"mem": np.zeros(3)}, {}, "'mem' lacks source, unit, direction"),
        ({"mem": np.zeros(3)}, {"mem": {**FIELD, "direction": 2}}, "direction of 'mem' must be one of"),
        ({"other": np.zeros(3)}, {"other": FIELD}, "'mem' needs a column of that name, got other"),
        ({"mem": np.zeros(53)}, {"mem": FIELD}, "at most 52 rows, got 53"),
        ({"mem": np.zeros(3), "b": np.zeros(2)}, {"mem": FIELD, "b": FIELD}, "need one length"),
    ],
)
def test_a_score_that_says_too_little_is_refused(store, columns, fields, message):
    with pytest.raises(ValueError, match=message):
        store.write_score("mem", columns, fields, {}, "d")
