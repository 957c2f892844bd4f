"""Records and tables that others wrote, sealed with sound checksums: each is named as damage, or is a sound one."""

import json
import re
import shutil
from contextlib import suppress
from dataclasses import asdict, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from memscore import bank, banks, fidelity, influence, status
from memscore.monitoring.heartbeat import Heartbeat
from memscore.store.file_formats import JSON, PARQUET
from memscore.store.file_kinds import FILE_KINDS, find_kind
from memscore.store.filesystem import Folder
from memscore.store.json_records import CHECKSUM_KEY, decode_record, hash_record, parse_record
from memscore.store.parquet import CorruptFile, encode, to_columns, to_table, update_content_hash
from memscore.store.record_schemas import SCHEMAS, check_block, find_record_fault, find_schema
from memscore.store.store import Store
from memscore.store.table_schemas import SCHEMAS as TABLE_SCHEMAS
from memscore.store.table_schemas import find_schema as find_table_schema
from memscore.store.verify import verify
from memscore.subsets.designs import Arm
from tests.fixtures.banks import ARM, manifest, path_of, receipt
from tests.fixtures.banks import bank as make_bank

HOSTILE = (
    None,
    True,
    -1,
    0,
    1,
    10**400,
    2**63,
    0.5,
    -1e308,
    "",
    "x",
    "../../x",
    "\x1b[2J\n",
    [],
    {},
    [[]],
    {"a": {}},
    [None],
)
"""Values of every type, and out of every range."""
READERS = (status, bank, banks)


def seal(record):
    """Encode a record with its checksum, whatever it holds."""
    return json.dumps({**record, CHECKSUM_KEY: hash_record(record)}).encode()


def list_places(value, path=()):
    """List the path of every entry in a record."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield (*path, key)
        yield from list_places(child, (*path, key))


def change(record, place, value, *, remove):
    """Change or remove one entry of a record."""
    inner = record
    for key in place[:-1]:
        inner = inner[key]
    if remove:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    return record


def run(command, store, capsys):
    """Run a command that reads a store; return its exit code and what it said, which is no traceback."""
    words = {bank: ["verify", str(store)], banks: [str(store.parent)]}.get(command, [str(store)])
    capsys.readouterr()
    code = command.main(words)
    said = "".join(capsys.readouterr())
    assert "Traceback" not in said
    assert "maximum recursion" not in said
    assert "int_max_str_digits" not in said
    return code, said


def list_files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def bank_copy(small, tmp_path_factory):
    """A bank with influence, a comparison and a failure, in a folder of its own."""
    folder = tmp_path_factory.mktemp("foreign") / "homes"
    store = shutil.copytree(small, folder / "store")
    assert influence.main([str(store), "--pictures", "0"]) == 0
    assert fidelity.main([str(store), "--draws", "10"]) == 0
    Store.open(store).write_failure("original-00007", {"kind": "exception", "error": "boom", "traceback": ""})
    return store


def check_readers(store, path, content, capsys):
    """Run commands with other content in a file; if it is refused it is named, and nothing else is written."""
    before = list_files(store.parent)
    (store / path).write_bytes(content)
    try:
        for command in READERS:
            code, said = run(command, store, capsys)
            assert code in {0, 1, 2}
            if command is bank and "damaged: " in said:
                assert path in said
        after = list_files(store.parent)
        assert {name for name in after if after[name] != before.get(name)} <= {f"store/{path}"}
    finally:
        (store / path).write_bytes(before[f"store/{path}"])


def check_any_record(data, bank_copy, capsys, readers):
    """Change one entry of one record of a bank, seal it, and run commands."""
    paths = sorted(path.relative_to(bank_copy).as_posix() for path in bank_copy.rglob("*.json"))
    path = data.draw(st.sampled_from(paths))
    record = decode_record((bank_copy / path).read_bytes())
    place = data.draw(st.sampled_from(sorted(list_places(record), key=str)))
    value, remove = data.draw(st.sampled_from(HOSTILE)), data.draw(st.booleans())
    return check_readers(bank_copy, path, seal(change(record, place, value, remove=remove)), capsys, readers)


SETTINGS = {
    "deadline": None,
    "derandomize": True,
    "suppress_health_check": list(HealthCheck),
    "phases": (Phase.generate,),
}


@pytest.mark.slow
@settings(max_examples=150, **SETTINGS)
@given(data=st.data())
def test_no_record_ends_a_command_in_a_traceback(data, bank_copy, capsys):
    paths = sorted(path.relative_to(bank_copy).as_posix() for path in bank_copy.rglob("*.json"))
    path = data.draw(st.sampled_from(paths))
    record = decode_record((bank_copy / path).read_bytes())
    place = data.draw(st.sampled_from(sorted(list_places(record), key=str)))
    value, remove = data.draw(st.sampled_from(HOSTILE)), data.draw(st.booleans())
    check_readers(bank_copy, path, seal(change(record, place, value, remove=remove)), capsys)


def change_table(data, content):
    """Change a column, the rows or the metadata of a table, with sound checksums."""
    table = pq.read_table(pa.BufferReader(content))
    what = data.draw(st.sampled_from(("rows", "column", "drop", "metadata", "lose metadata", "nothing")))
    column = data.draw(st.sampled_from(table.column_names))
    metadata = dict(table.schema.metadata or {})
    if what == "rows":
        table = pa.concat_tables([table, table]) if data.draw(st.booleans()) else table.slice(0, 0)
    elif what == "column":
        values = data.draw(st.sampled_from((["x"], [1], [-1.5], [None], [2**31 - 1], [True])))
        position = table.column_names.index(column)
        table = table.set_column(position, column, pa.array(values * len(table)))
    elif what == "drop":
        table = table.drop_columns([column])
    elif metadata and what.endswith("metadata"):
        key = data.draw(st.sampled_from(sorted(metadata)))
        changed = metadata | {key: data.draw(st.sampled_from((b"", b"-1", b"x", b"../x", b"1e9", b"[[]]")))}
        changed = {k: v for k, v in metadata.items() if k != key} if what == "lose metadata" else changed
        table = table.replace_schema_metadata(changed)
    if b"content_sha256" in metadata and len(table.column_names):
        table = update_content_hash(table)
    return encode(table)


@pytest.mark.slow
@settings(max_examples=150, **SETTINGS)
@given(data=st.data())
def test_no_table_ends_a_command_in_a_traceback(data, bank_copy, capsys):
    paths = sorted(path.relative_to(bank_copy).as_posix() for path in bank_copy.rglob("*.parquet"))
    path = data.draw(st.sampled_from(paths))
    content = (bank_copy / path).read_bytes()
    if data.draw(st.booleans()):
        changed = change_table(data, content)
    else:  # any bytes of the footer, which no checksum protects where the footer alone is read
        changed = bytearray(content)
        for _ in range(data.draw(st.integers(1, 4))):
            changed[-data.draw(st.integers(1, min(1200, len(content))))] = data.draw(st.integers(0, 255))
    check_readers(bank_copy, path, bytes(changed), capsys)


RECORDS = {
    "manifest.json": json.loads(json.dumps(manifest().record())),
    "arms/iid-k0.700.json": {**ARM, "suffix": "k0.700"},
    "receipts/iid-k0.700-00001.json": receipt("iid-k0.700-00001", n_members=30, accuracy={"members": 0.5}, worker=None),
    "receipts/original-00000.json": receipt("original-00000", key="a" * 64),
    f"receipts/{'a' * 64}-el2n.json": {"key": "a" * 64, "ending": "el2n", "seconds": 1.0},
    "failures/iid-k0.700-00001.json": {"kind": "exception", "error": "boom", "traceback": ""},
    "data.json": {"name": "digits", "train_limit": None, "class_names": ["a"], "image_size": [8, 8], "validation": 0.1},
    "progress.json": asdict(Heartbeat(run="r", pid=1, host="h", began=1.0, at=2.0, every_s=10.0, planned={"a": 3})),
    "reports/summary.json": {"arms": [{"suffix": "k0.700", "attacks": {}}], "originals": 1},
    "sweeps/s/sweep.json": {"forget": "random", "seeds": 2, "budget": 1},
    "sweeps/s/chosen.json": {"chosen": [], "failed": []},
    "experiments/rum-1/findings.json": {"experiment": "rum", "findings": []},
}
"""Sound records, of most kinds."""
STRICT = {
    ("manifest.json", "n_classes"): -1,
    ("manifest.json", "split_sizes"): "abc",
    ("manifest.json", "mean"): [0.1, 0.2],
    ("arms/iid-k0.700.json", "block"): 0,
    ("arms/iid-k0.700.json", "keep"): "xxx",
    ("arms/iid-k0.700.json", "suffix"): "../../x",
    ("receipts/iid-k0.700-00001.json", "model"): ["x"],
    ("receipts/iid-k0.700-00001.json", "seconds"): -1,
    ("receipts/original-00000.json", "key"): "b",
    ("failures/iid-k0.700-00001.json", "error"): None,
    ("data.json", "train_limit"): 10**400,
    ("data.json", "class_names"): [1],
    ("progress.json", "planned"): {"a": "x"},
    ("progress.json", "at"): 1e300,
    ("reports/summary.json", "arms"): {},
    ("sweeps/s/sweep.json", "seeds"): 0.5,
    ("sweeps/s/chosen.json", "chosen"): [{}],
}
"""Entry -> a value that it cannot have."""


def test_sound_records_of_all_kinds_pass():
    assert {path: find_record_fault(path, record) for path, record in RECORDS.items()} == dict.fromkeys(RECORDS, "")


@pytest.mark.parametrize(("path", "entry"), STRICT)
def test_a_value_of_another_type_or_range_is_named(path, entry):
    fault = find_record_fault(path, RECORDS[path] | {entry: STRICT[path, entry]})
    assert fault.startswith(("its ", "it is the file of ", "it must "))
    assert len(fault) < 200


@settings(max_examples=300, **SETTINGS)
@given(data=st.data())
def test_a_check_of_a_record_never_raises(data):
    path = data.draw(st.sampled_from(sorted(RECORDS)))
    record = json.loads(json.dumps(RECORDS[path]))
    place = data.draw(st.sampled_from(sorted(list_places(record), key=str)))
    changed = change(record, place, data.draw(st.sampled_from(HOSTILE)), remove=data.draw(st.booleans()))
    with suppress(ValueError):
        parse_record(path, seal(changed))


@pytest.mark.parametrize("kind", [*SCHEMAS, *(kind.pattern for kind in FILE_KINDS if kind.format is JSON)])
def test_every_kind_of_record_has_a_schema_and_every_schema_a_kind(kind):
    path = kind.replace("KEY", "a" * 64).replace("INDEX", "00001").replace("MODEL", "x-00001")
    assert find_schema(path)
    assert find_kind(path) or kind == "receipts/NAME.json"  # of an earlier or later version


@pytest.mark.parametrize("kind", [*TABLE_SCHEMAS, *(kind.pattern for kind in FILE_KINDS if kind.format is PARQUET)])
def test_every_kind_of_table_has_a_schema_and_every_schema_a_kind(kind):
    path = kind.replace("KEY", "a" * 64).replace("MODEL", "x-00001")
    assert find_table_schema(path)
    assert find_kind(path)


@pytest.mark.parametrize("design", ["iid", "exact", "orthogonal"])
def test_stored_arms_have_the_blocks_that_new_ones_may_have(design):
    for keep in (0.1, 0.25, 0.5, 0.7, 0.75):
        for block in (1, 2, 3, 4, 8, 10, 16, 20, 63, 64, 128):
            try:
                Arm(design=design, keep=keep, block=block)
                is_valid = True
            except ValueError:
                is_valid = False
            fault = check_block({"design": design, "keep": keep, "block": block})
            assert is_valid == (not fault), (design, keep, block)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}", "nested too deeply"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "a whole number of 5000 digits"),
        (b'{"a": NaN}', "NaN"),
        (b"\xff\xfe{", "no text"),
        (b"{", "no JSON"),
        (b"[]", "no JSON object"),
    ],
)
def test_json_that_is_no_record_is_refused_in_words(content, reason):
    with pytest.raises(ValueError, match=reason):
        decode_record(content)


def test_a_renamed_arm_is_damage_and_its_shards_are_not(tmp_path):
    store = make_bank(tmp_path / "bank")
    path_of(store, "arms/iid-k0.700.json").write_bytes(seal({**ARM, "name": "iid-k0.500", "suffix": "k0.700"}))
    assert verify(store).damaged == {"arms/iid-k0.700.json": "it is the file of iid-k0.500"}
    with pytest.raises(CorruptFile, match=r"arms/iid-k0\.700\.json is damaged: .*--set-aside.*estimate makes it again"):
        store.arms()


def reseal(store, path, change_columns):
    """Write a table with other columns and sound checksums."""
    table = pq.read_table(path_of(store, path))
    columns = change_columns(to_columns(table))
    metadata = {k.decode(): v.decode() for k, v in table.schema.metadata.items()}
    path_of(store, path).write_bytes(encode(to_table(columns, metadata)))


@pytest.mark.parametrize(
    ("change_columns", "reason", "by_footer"),
    [
        (lambda c: {k: v[:-1] for k, v in c.items()}, "it has 51 rows, and the store's manifest says 52", True),
        (lambda c: c | {"row": c["row"][::-1]}, "'row' must count from 0 to 51", False),
        (lambda c: c | {"gap": np.full(52, np.inf, np.float32)}, "column 'gap' holds inf", False),
        (lambda c: c | {"gap": np.zeros(52)}, "column 'gap'", True),
        (lambda c: {k: v for k, v in c.items() if k != "member"}, "without a column 'member'|no column 'member'", True),
    ],
)
def test_a_sealed_shard_that_cannot_be_one_is_damage(tmp_path, change_columns, reason, by_footer):
    store, path = make_bank(tmp_path / "bank"), "shards/iid-k0.700-00001.parquet"
    reseal(store, path, change_columns)
    assert re.search(reason, verify(store).damaged[path])
    assert (path in store.check("iid-k0.700", verify=False).damaged) == by_footer


def test_other_tables_under_the_name_of_examples_are_damage(bank_copy, tmp_path):
    store = Store.open(shutil.copytree(bank_copy, tmp_path / "bank"))
    path_of(store, "examples.parquet").write_bytes(path_of(store, "scores.parquet").read_bytes())
    assert "examples.parquet" in verify(store).damaged
    with pytest.raises(CorruptFile, match=r"examples\.parquet is damaged: it has 200 rows, .* says"):
        store.examples()
    path_of(store, "examples.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"examples\.parquet is missing; the next estimate makes it again"):
        store.examples()


def test_files_of_another_bank_or_model_are_damage(bank_copy, tmp_path):
    """Sound files in a wrong place: examples and the table of models of another bank, weights of another original."""
    copy = shutil.copytree(bank_copy, tmp_path / "copy")
    store = Store.open(str(copy))
    other = replace(store.manifest, seed=store.manifest.seed + 1)
    for name in ("examples.parquet", "models.parquet"):
        Store(Folder.from_url(str(tmp_path)), other).write_table(name, store.read_table(name))
        shutil.copy(tmp_path / name, copy / name)
    first = next((copy / "weights").iterdir())
    second = shutil.copy(first, first.with_stem("0" * 64))
    damaged = verify(store).damaged
    assert damaged["examples.parquet"] == damaged["models.parquet"] == "it is another store's"
    assert damaged[f"weights/{second.name}"] == f"it is the file of {first.stem}"
    with pytest.raises(CorruptFile, match=r"it is the file of .* verify .* --set-aside"):
        store.read_weights(second.stem)
    with pytest.raises(CorruptFile, match=r"examples\.parquet is damaged: it is another store's"):
        store.examples()


def test_examples_that_are_not_those_of_the_data_are_damage(bank_copy, tmp_path):
    store = Store.open(str(shutil.copytree(bank_copy, tmp_path / "copy")))
    examples = store.examples()
    backwards = examples["id"].take(np.arange(len(examples))[::-1])
    others = examples.set_column(examples.column_names.index("id"), "id", backwards)
    store.folder.replace("examples.parquet", encode(others.replace_schema_metadata(None)))
    with pytest.raises(CorruptFile, match=r"column 'id' is not that of the bank's data; .*--set-aside"):
        store.create_files(examples)
