"""The store: identities, shards, records; each claim on a small store made for it."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from memscore.store.json_records import require_same
from memscore.store.manifest import Manifest, build_default_url, compute_original_key
from memscore.store.parquet import CorruptFile, hash_columns
from memscore.store.shards import format_model_name, hash_shards
from memscore.store.store import Store
from tests.fixtures.banks import ARM, bank, examples, flip, manifest, path_of, shard


@pytest.fixture
def store(tmp_path):
    return bank(tmp_path / "bank")


def test_further_queries_are_kept_and_missing_columns_refused(store):
    more = shard(9) | {"logit_confidence_q1": np.ones(52, np.float32)}
    store.write_shard(format_model_name(ARM["name"], 9), ARM["name"], more)
    (block,) = store.read_blocks(ARM["name"], [9], ["logit_confidence_q1"])
    assert block.columns["logit_confidence_q1"].sum() == 40
    less = {name: values for name, values in shard(8).items() if name != "gap"}
    with pytest.raises(ValueError, match="begins with the columns row, member"):
        store.write_shard(format_model_name(ARM["name"], 8), ARM["name"], less)
    with pytest.raises(ValueError, match=r"model 'exact-00001' is none of arm 'iid-k0\.700'"):
        store.write_shard("exact-00001", ARM["name"], shard(8))


def test_a_manifest_comes_back_equal_from_json():
    original = manifest()
    assert Manifest.from_json(original.to_json()) == original
    assert Manifest.from_json(original.to_json()).digest == original.digest
    assert manifest(seed=1).digest != original.digest


def test_a_changed_manifest_is_refused_by_name(store):
    path = path_of(store, "manifest.json")
    path.write_text(path.read_text().replace('"n_classes": 10', '"n_classes": 11'))
    with pytest.raises(ValueError, match=r"manifest\.json: its fields do not give the record_sha256"):
        Store.open(store.url)


def test_a_store_of_a_later_schema_is_refused(tmp_path):
    with pytest.raises(ValueError, match="schema version 99 cannot be read, only 1"):
        Store.create(tmp_path / "bank", manifest(schema_version=99), examples())


def test_a_missing_store_is_an_error_with_a_hint(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no store at .*python -m memscore\.estimate"):
        Store.open(tmp_path)


def test_creating_again_opens_and_another_identity_is_refused_with_both_values(store):
    assert Store.create(store.url, manifest(), examples()).manifest == manifest()
    other = manifest(seed=5, recipe={"epochs": 4, "milestones": (1.0, 2.0)})
    with pytest.raises(
        ValueError, match=r"seed is 0, requested 5; .*recipe.epochs is 3, requested 4; give another store"
    ):
        Store.create(store.url, other, examples())


@pytest.mark.parametrize(
    ("stored", "requested", "message"),
    [
        ([0.1 + 0.2, 0.5], [0.4, 0.5], "mean is 0.3, 0.5, requested 0.4, 0.5;"),
        ([0.1 + 0.2], [0.3], "mean is [0.30000000000000004], requested [0.3];"),
        ("a" * 64, "b" * 64, f"mean is {'a' * 12}, requested {'b' * 12};"),
        (None, ["crop"], "mean is none, requested crop;"),
    ],
)
def test_values_that_differ_are_shown_in_few_digits_and_without_brackets(stored, requested, message):
    with pytest.raises(ValueError, match="another one") as caught:
        require_same({"mean": stored}, {"mean": requested}, "the store", "give another")
    assert message in str(caught.value)


def test_a_planned_store_does_not_exist_until_its_files_are_created(tmp_path):
    planned = Store.open_or_plan(tmp_path / "bank", manifest())
    assert (planned.is_created, list(tmp_path.iterdir())) == (False, [])
    planned.create_files(examples())
    assert planned.is_created
    assert Store.open(tmp_path / "bank").manifest == manifest()


def test_creating_another_store_second_is_refused(tmp_path, monkeypatch):
    late = Store.open_or_plan(tmp_path / "bank", manifest(seed=5))
    Store.create(tmp_path / "bank", manifest(), examples())
    looked = iter([False])  # when it looked, none existed
    monkeypatch.setattr(Store, "is_created", property(lambda _: next(looked)))
    with pytest.raises(ValueError, match="seed is 0, requested 5"):
        late.create_files(examples())
    assert Store.open(tmp_path / "bank").manifest == manifest()


def test_a_store_that_another_process_created_meanwhile_is_the_stored_one(tmp_path):
    """Equal as records, and in the same order of fields, which stand in each score's metadata."""
    recipe = {"lr": 0.1, "batch": 32, "epochs": 2}
    late, first = (Store.open_or_plan(tmp_path / "bank", manifest(recipe=recipe)) for _ in range(2))
    other = Store.open_or_plan(tmp_path / "bank", manifest(seed=5))
    first.create_files(examples())
    late.create_files(examples())
    assert list(late.manifest.recipe) == list(first.manifest.recipe) == ["batch", "epochs", "lr"]
    with pytest.raises(ValueError, match="seed"):
        other.create_files(examples())


def test_shards_without_their_manifest_are_refused_and_left_alone(store):
    """A new manifest would call every one of them damaged."""
    shards = store.folder.names("shards")
    path_of(store, "manifest.json").unlink()
    with pytest.raises(ValueError, match=rf"has {len(shards)} shards and no manifest\.json.*give another --store"):
        Store.create(store.url, manifest(seed=5), examples())
    assert store.folder.names("shards") == shards
    assert not store.folder.exists("manifest.json")


def test_examples_of_another_length_are_refused(tmp_path):
    with pytest.raises(ValueError, match="52 rows but the table of examples has 3"):
        Store.create(tmp_path / "bank", manifest(), examples(3))


def test_a_new_store_is_private(store):
    assert path_of(store, "").stat().st_mode & 0o777 == 0o700


def test_default_url_is_named_after_what_it_is(monkeypatch):
    monkeypatch.setenv("MEMSCORE_HOME", "/banks/")
    digest = manifest().digest[:8]
    assert build_default_url("digits", "mlp", "fast", manifest()) == f"/banks/digits-mlp-fast-{digest}"
    assert build_default_url("/a b/my set.npz", "mlp", "fast", manifest()) == f"/banks/my-set.npz-mlp-fast-{digest}"
    monkeypatch.delenv("MEMSCORE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert build_default_url("digits", "mlp", "fast", manifest()).startswith("/home/someone/memscore/digits-")


def test_suffixes_name_the_design_from_the_second_arm_of_a_fraction_on(store):
    small = {**ARM, "name": "exact-k0.700-b10", "design": "exact", "block": 10}
    assert store.arms()["iid-k0.700"]["suffix"] == "k0.700"
    assert store.add_arm({**ARM, "name": "exact-k0.700", "design": "exact", "block": 20})["suffix"] == "k0.700_exact"
    assert store.add_arm(small)["suffix"] == "k0.700_exact-b10"
    assert store.add_arm({**ARM, "name": "iid-k0.500", "keep": 0.5})["suffix"] == "k0.500"
    assert store.add_arm(ARM)["suffix"] == "k0.700"  # again, unchanged
    assert set(store.arms()) == {"iid-k0.700", "iid-k0.500", "exact-k0.700", "exact-k0.700-b10"}


def test_an_arm_with_other_content_is_refused_with_both_values(store):
    with pytest.raises(ValueError, match=r"keep is 0\.7, requested 0\.7004"):
        store.add_arm({**ARM, "keep": 0.7004})


def test_run_hash_depends_on_manifest_and_arm_but_not_on_the_suffix(store, tmp_path):
    exact = {**ARM, "name": "exact-k0.700", "design": "exact", "block": 20}
    first = Store.create(tmp_path / "first", manifest(), examples())
    first.add_arm(exact)
    first.add_arm(ARM)  # here its suffix is k0.700_iid
    other = Store.create(tmp_path / "other", manifest(seed=1), examples())
    other.add_arm(ARM)
    assert first.compute_run_hash(ARM["name"]) == store.compute_run_hash(ARM["name"])
    assert (
        len({
            store.compute_run_hash(ARM["name"]),
            other.compute_run_hash(ARM["name"]),
            first.compute_run_hash("exact-k0.700"),
        })
        == 3
    )
    with pytest.raises(ValueError, match=r"unknown arm 'iid-k0\.7'; did you mean 'iid-k0\.700'"):
        store.compute_run_hash("iid-k0.7")


def test_clusters_are_written_once_and_a_flipped_byte_is_refused(store):
    assert store.clusters() is None
    assert store.write_clusters(np.arange(40) // 4)
    assert not store.write_clusters(np.zeros(40))
    assert store.clusters().dtype == np.int32
    np.testing.assert_array_equal(store.clusters(), np.arange(40) // 4)
    flip(path_of(store, "clusters.parquet"), 30)
    with pytest.raises(CorruptFile, match=r"clusters\.parquet is damaged"):
        store.clusters()


def test_equal_columns_give_equal_bytes_and_readers_see_them_as_they_are(store, tmp_path):
    twin = Store.create(tmp_path / "twin", manifest(), examples())
    twin.add_arm(ARM)
    name = format_model_name(ARM["name"], 1)
    twin.write_shard(name, ARM["name"], shard(1))
    first, second = (path_of(s, f"shards/{name}.parquet") for s in (store, twin))
    assert first.read_bytes() == second.read_bytes()
    table = pq.read_table(first)
    assert [str(t) for t in table.schema.types] == ["int32", "bool", "bool", "float", "float", "float"]
    for column, values in shard(1).items():
        np.testing.assert_array_equal(table[column].to_numpy(), values)
    metadata = table.schema.metadata
    assert metadata[b"run_hash"].decode() == store.compute_run_hash(ARM["name"])
    assert metadata[b"content_sha256"].decode() == hash_columns(shard(1))
    assert (metadata[b"model"].decode(), metadata[b"schema_version"]) == (name, b"1")
    assert str(tmp_path).encode() not in first.read_bytes()


def test_content_hash_sees_names_types_order_and_every_value():
    a, b = np.arange(3.0), np.arange(3.0) + 1
    same = [{"a": a, "b": b}, {"a": a.copy(), "b": b[::1]}]
    other = [
        {"b": b, "a": a},
        {"a": b, "b": a},
        {"a": a, "c": b},
        {"a": a.astype("f4"), "b": b},
        {"a": a + np.array([0, 0, 1e-15]), "b": b},
        {"a": a[:, None], "b": b},
    ]
    assert len({hash_columns(columns) for columns in same}) == 1
    assert len({hash_columns(columns) for columns in [same[0], *other]}) == 1 + len(other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gap": np.full(52, np.nan, np.float32)}, "'gap' holds nan in row 0; shards hold finite numbers only"),
        ({"top_gap": np.full(52, np.inf, np.float32)}, "'top_gap' holds inf"),
        ({"gap": np.zeros(52)}, "'gap' must be float32 .52., got float64"),
        ({"member": np.zeros(51, bool)}, r"'member' must be bool \[52\], got bool \[51\]"),
        ({"row": np.zeros(52, np.int32)}, "'row' must count from 0 to 51"),
        ({"gap_q1": np.zeros(52)}, "'gap_q1' must be float32"),
        ({"other": np.zeros(52, np.float32)}, "'other' is no column of a shard"),
    ],
)
def test_a_bad_shard_is_refused_by_column(store, change, message):
    with pytest.raises(ValueError, match=message):
        store.write_shard(format_model_name(ARM["name"], 9), ARM["name"], shard(9) | change)
    assert 9 not in store.find_valid_shards(ARM["name"])


def test_finished_gives_content_hashes_and_a_second_write_changes_nothing(store):
    expected = {index: hash_columns(shard(index)) for index in range(3)}
    assert store.find_valid_shards(ARM["name"]) == store.find_valid_shards(ARM["name"], verify=False) == expected
    assert not store.write_shard(format_model_name(ARM["name"], 0), ARM["name"], shard(77))
    assert store.find_valid_shards(ARM["name"]) == expected
    assert store.has_shard(format_model_name(ARM["name"], 0))
    assert not store.has_shard(format_model_name(ARM["name"], 3))


def test_every_flipped_byte_of_a_shard_is_found(store):
    name = f"shards/{format_model_name(ARM['name'], 1)}.parquet"
    path = path_of(store, name)
    whole = path.read_bytes()
    for position in range(0, len(whole), 7):
        flip(path, position)
        check = store.check(ARM["name"])
        assert list(check.valid) == [0, 2], position
        assert list(check.damaged) == [name], position
        path.write_bytes(whole)
    assert list(store.find_valid_shards(ARM["name"])) == [0, 1, 2]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda raw: b"", "the file is empty"),
        (lambda raw: raw[:-100], "truncated or no Parquet file"),
        (lambda raw: raw[:4] + b"\0" + raw[5:], "bytes were changed in column row, row group 0"),
        (lambda raw: raw[:-30] + bytes([raw[-30] ^ 1]) + raw[-29:], "bytes were changed in the footer"),
    ],
    ids=["empty", "truncated", "page", "footer"],
)
def test_damage_is_named_with_its_place_and_quarantine_loses_nothing(store, damage, reason):
    name = f"{format_model_name(ARM['name'], 1)}.parquet"
    path = path_of(store, f"shards/{name}")
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    assert reason in store.check(ARM["name"]).damaged[f"shards/{name}"]
    assert store.quarantine(f"shards/{name}") == f"damaged/{name}-1"
    assert path_of(store, f"damaged/{name}-1").read_bytes() == damaged
    assert store.write_shard(format_model_name(ARM["name"], 1), ARM["name"], shard(1))
    assert store.check(ARM["name"]).damaged == {}
    assert store.quarantine(f"shards/{name}") == f"damaged/{name}-2"


def test_shards_of_another_run_or_model_are_not_valid(store, tmp_path):
    other = Store.create(tmp_path / "other", manifest(seed=1), examples())
    other.add_arm(ARM)
    zero, one = (f"shards/{format_model_name(ARM['name'], i)}.parquet" for i in range(2))
    other.write_shard(format_model_name(ARM["name"], 0), ARM["name"], shard(0))
    path_of(store, zero).write_bytes(path_of(other, zero).read_bytes())
    path_of(store, one).write_bytes(path_of(store, f"shards/{format_model_name(ARM['name'], 2)}.parquet").read_bytes())
    for verify in (True, False):
        check = store.check(ARM["name"], verify)
        assert list(check.valid) == [2]
        assert "its run_hash is" in check.damaged[zero]
        assert "its model is iid-k0.700-00002, here it is iid-k0.700-00001" in check.damaged[one]


def test_arms_whose_names_begin_alike_are_kept_apart(store):
    small = {**ARM, "name": "iid-k0.700-b8", "design": "exact", "keep": 0.75, "block": 8}
    store.add_arm(small)
    store.write_shard("iid-k0.700-b8-00005", "iid-k0.700-b8", shard(5))
    assert list(store.find_valid_shards("iid-k0.700")) == [0, 1, 2]
    assert list(store.find_valid_shards("iid-k0.700-b8")) == [5]


def test_shards_digest_depends_on_each_shard_and_not_on_order():
    valid = {0: "a", 1: "b"}
    assert hash_shards("x", valid) == hash_shards("x", {1: "b", 0: "a"})
    others = [hash_shards("y", valid), hash_shards("x", {0: "a"}), hash_shards("x", {0: "b", 1: "a"})]
    assert len({hash_shards("x", valid), *others}) == 4


def test_events_keep_nan_as_null(store):
    columns = {"confidence": np.array([0.5, np.nan, 1], np.float32), "visits": np.array([3, 0, 2], np.int32)}
    assert not store.has_events("m")
    assert store.write_events("m", columns)
    assert not store.write_events("m", columns)
    assert store.has_events("m")
    back = store.read_events("m")
    for name, values in columns.items():
        assert back[name].dtype == values.dtype
        np.testing.assert_array_equal(back[name], values)
    assert pq.read_table(path_of(store, "events/m.parquet"))["confidence"].null_count == 1


def test_receipts_and_failures_come_back_and_failures_can_be_cleared(store):
    store.write_receipt("m", {"seconds": 1.5})
    store.write_receipt("m", {"seconds": 2.5})
    store.write_failure("m", {"kind": "diverged", "error": "e"})
    assert store.receipts() == {"m": {"seconds": 2.5}}
    assert store.failures() == {"m": {"model": "m", "kind": "diverged", "error": "e"}}
    store.clear_failure("m")
    store.clear_failure("m")  # nothing to clear is no error
    assert store.failures() == {}


def test_a_number_that_is_not_finite_becomes_null_in_a_record(store):
    store.write_receipt("m", {"accuracy": {"left_out": float("nan"), 10: 1, 9: np.inf}})
    assert store.receipts() == {"m": {"accuracy": {"left_out": None, "10": 1, "9": None}}}


def test_a_receipt_that_is_no_json_is_named(store):
    store.write_receipt("m", {"seconds": 1.5})
    path_of(store, "receipts/m.json").write_text('{"seconds": ')
    with pytest.raises(CorruptFile, match=r"receipts/m\.json is damaged"):
        store.receipts()


def test_outputs_come_back_as_matrices(store):
    logits, embeddings = np.arange(12, dtype=np.float32).reshape(4, 3), np.ones((4, 1), np.float32)
    assert not store.has_outputs("k")
    assert store.write_outputs("k", logits, embeddings)
    assert store.has_outputs("k")
    for written, back in zip((logits, embeddings), store.read_outputs("k"), strict=True):
        np.testing.assert_array_equal(back, written)
        assert back.dtype == np.float32
    assert str(pq.read_schema(path_of(store, "outputs/k.parquet")).field("logits").type) == (
        "fixed_size_list<element: float>[3]"
    )


def test_original_keys_are_of_sets_of_examples_and_seeds():
    key = compute_original_key(manifest(), removed=["b", "a"])
    assert key == compute_original_key(manifest(data="elsewhere"), removed=["a", "b"], labels={}, index=0)
    others = [
        compute_original_key(manifest(), removed=["a"]),
        compute_original_key(manifest(), removed=["b", "a"], index=1),
        compute_original_key(manifest(), removed=["b", "a"], labels={"c": 1}),
        compute_original_key(manifest(seed=1), removed=["b", "a"]),
        compute_original_key(manifest(precision="bfloat16"), removed=["b", "a"]),
    ]
    assert len({key, *others}) == 6


def test_tables_are_replaced_whole(store):
    store.write_table("mine.parquet", pa.table({"a": [1]}))
    store.write_table("mine.parquet", pa.table({"a": [2, None], "b": ["x", "y"]}))
    assert store.read_table("mine.parquet").to_pydict() == {"a": [2, None], "b": ["x", "y"]}
