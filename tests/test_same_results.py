"""This tree stores what the commits of tests/same_results.py store; and the comparison sees each kind of difference.

Run with `python -m pytest -m slow tests/test_same_results.py`; `python -m tests.same_results` does the same without
pytest, and keeps the results of the earlier commit where it is told to.
"""

import json
import re
import shutil
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from memscore.store.file_kinds import FILE_KINDS
from tests.folder_comparison import MISSING, VARIES, compare
from tests.same_results import (
    EARLIER,
    STAGES,
    Command,
    Run,
    check_out,
    compare_runs,
    compare_trees,
    group_of,
    report,
    require_own_code,
    run_command,
    run_tree,
)

TIMES = {"*/rows.parquet": ("wall_s",), "*/record.json": ("cost.*.seconds",)}
RECORD = {"name": "a", "cost": [{"seconds": 1.5, "models": 2}], "none": {}, "zero": 0.0}
NOT_IN_THE_STORE = {"failures/NAME.json", "events/KEY-rescored.parquet"}
"""Kinds that the compared commands do not write into the main store: failures are in a store of their own."""
KINDS = (
    *(re.sub(r"[A-Z]+", "*", kind.pattern) for kind in FILE_KINDS if kind.pattern not in NOT_IN_THE_STORE),
    "scenarios/*/trials/*.parquet",
)
"""Every other kind of file that a store can hold, as a pattern of fnmatch."""


def write_rows(folder, metadata=None, field=None, **columns):
    """A Parquet file of two columns and a time, some of them changed."""
    columns = {
        "id": pa.array(["a", "b"]),
        "value": pa.array([0.5, float("nan")], pa.float32()),
        "score": pa.array([None, 2.0]),
        "wall_s": pa.array([1.0, 2.0]),
    } | columns
    schema = pa.schema(
        [pa.field(name, values.type, metadata=field if name == "value" else None) for name, values in columns.items()],
        metadata={"arm": "k0.500"} if metadata is None else metadata,
    )
    (folder / "store").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(list(columns.values()), schema=schema), folder / "store" / "rows.parquet")


def write_record(folder, **changed):
    (folder / "store" / "record.json").write_text(json.dumps(RECORD | changed))


def write_weights(folder, values, **header):
    content = np.array(values, "<f4").tobytes()
    tensor = {"dtype": "F32", "shape": [len(values)], "data_offsets": [0, len(content)]} | header
    head = json.dumps({"__metadata__": {"hash": "h"}, "layer.weight": tensor}).encode()
    path = folder / "store" / "key.safetensors"
    path.write_bytes(len(head).to_bytes(8, "little") + head + content)


@pytest.fixture
def folders(tmp_path):
    """Two equal folders with a file of each format."""
    for name in ("earlier", "now"):
        write_rows(tmp_path / name)
        write_record(tmp_path / name)
        write_weights(tmp_path / name, [1.0, 0.0])
        (tmp_path / name / "store" / "lock").write_text("")
    return tmp_path / "earlier", tmp_path / "now"


def differences(folders, varies=TIMES):
    return [str(one) for one in compare(*folders, varies=varies).differences]


def test_equal_folders_have_no_differences(folders):
    found = compare(*folders, varies=TIMES)
    assert found.differences == []
    assert found.files == 4
    assert found.varying == 2
    assert found.used == {("*/rows.parquet", "wall_s"), ("*/record.json", "cost.*.seconds")}
    assert "equal to 6ad91c17de" in report("shards", EARLIER["shards"], found)


def test_a_changed_value_is_named_with_both_values(folders):
    write_rows(folders[1], value=pa.array([0.5000001, float("nan")], pa.float32()))
    [said] = differences(folders)
    assert said.startswith("store/rows.parquet: value, value 0 (1 of 2 differ): 0.5 became 0.50000")


def test_values_are_compared_bit_for_bit(folders):
    write_rows(folders[1], value=pa.array([0.5, None], pa.float32()), score=pa.array([None, np.nextafter(2.0, 3.0)]))
    write_weights(folders[1], [1.0, -0.0])
    write_record(folders[1], zero=-0.0, none=[])
    assert differences(folders) == [
        "store/key.safetensors: layer.weight, value 1 (1 of 2 differ): 0.0 became -0.0",
        "store/record.json: none: {} became []",
        "store/record.json: zero: 0.0 became -0.0",
        "store/rows.parquet: value, row 1 (1 of 2 differ): nan became None",
        "store/rows.parquet: score, row 1 (1 of 2 differ): 2.0 became 2.0000000000000004",
    ]


def test_a_whole_number_is_no_float_and_no_truth_value(folders):
    write_record(folders[1], zero=0, cost=[{"seconds": 1.5, "models": True}])
    assert differences(folders) == [
        "store/record.json: cost.0.models: 2 became True",
        "store/record.json: zero: 0.0 became 0",
    ]


def test_a_missing_file_and_a_new_name_are_named(folders):
    (folders[1] / "store" / "key.safetensors").rename(folders[1] / "store" / "other.safetensors")
    assert differences(folders) == [
        f"store/key.safetensors: a file became {MISSING}",
        f"store/other.safetensors: {MISSING} became a file",
    ]


def test_a_file_that_was_added_on_purpose_may_be_new_but_not_be_lost(folders):
    for folder in folders:
        (folder / "store" / "data.json").write_text("{}")
    assert differences(folders) == []
    (folders[0] / "store" / "data.json").unlink()
    assert differences(folders) == []
    shutil.move(folders[1] / "store" / "data.json", folders[0] / "store" / "data.json")
    assert differences(folders) == [f"store/data.json: a file became {MISSING}"]


def test_an_entry_that_was_added_on_purpose_may_be_new_but_not_be_lost_or_changed(folders):
    earlier, now = (folder / "status.json" for folder in folders)
    earlier.write_text('{"models": 1}')
    now.write_text('{"models": 1, "precision": "float32"}')
    assert differences(folders) == []
    earlier.write_text('{"models": 1, "precision": "tf32"}')
    assert differences(folders) == ["status.json: precision: 'tf32' became 'float32'"]
    now.write_text('{"models": 1}')
    assert differences(folders) == [f"status.json: precision: 'tf32' became {MISSING}"]


def test_a_renamed_key_is_named_even_where_its_value_varies(folders):
    write_record(folders[1], cost=[{"s": 1.5, "models": 2}])
    assert differences(folders) == [
        f"store/record.json: cost.0.seconds: 1.5 became {MISSING}",
        f"store/record.json: cost.0.s: {MISSING} became 1.5",
    ]


def test_a_renamed_column_and_a_new_order_are_named(folders):
    write_rows(folders[1], cost_s=pa.array([1.0, 2.0]))
    said = differences(folders)
    assert "store/rows.parquet: columns: 'id, value, score, wall_s' became 'id, value, score, wall_s, cost_s'" in said
    assert f"store/rows.parquet: cost_s: {MISSING} became 2 values" in said


def test_a_changed_type_is_named_even_where_values_vary_or_are_equal(folders):
    write_rows(folders[1], value=pa.array([0.5, float("nan")], pa.float64()), wall_s=pa.array([1, 2]))
    said = differences(folders)
    assert "store/rows.parquet: value, type: 'float' became 'double'" in said
    assert "store/rows.parquet: wall_s, type: 'double' became 'int64'" in said


def test_changed_metadata_of_file_column_and_tensor_are_named(folders):
    write_rows(folders[1], metadata={"arm": "k0.700", "models": "64"}, field={"unit": "nats"})
    write_weights(folders[1], [1.0, 0.0], shape=[1, 2])
    said = differences(folders)
    assert "store/rows.parquet: metadata arm: 'k0.500' became 'k0.700'" in said
    assert f"store/rows.parquet: metadata models: {MISSING} became '64'" in said
    assert f"store/rows.parquet: value, metadata unit: {MISSING} became 'nats'" in said
    assert "store/key.safetensors: layer.weight, type: 'F32[2]' became 'F32[1, 2]'" in said


def test_times_are_passed_over_only_where_they_are_declared(folders):
    write_rows(folders[1], wall_s=pa.array([3.0, 4.0]))
    write_record(folders[1], cost=[{"seconds": 2.5, "models": 2}])
    assert differences(folders) == []
    assert differences(folders, {"*/other.json": ("*",)}) == [
        "store/record.json: cost.0.seconds: 1.5 became 2.5",
        "store/rows.parquet: wall_s, value 0 (2 of 2 differ): 1.0 became 3.0",
    ]


def test_files_of_no_known_format_and_unreadable_ones_are_compared(folders):
    (folders[1] / "store" / "lock").write_text("x")
    (folders[1] / "store" / "rows.parquet").write_bytes(b"PAR1")
    said = differences(folders)
    assert "store/lock: bytes, shape: uint8[0] became uint8[1]" in said
    assert any(line.startswith("store/rows.parquet: files that can be read became Arrow") for line in said)


def test_of_pictures_only_the_names_are_compared(folders):
    for number, folder in enumerate(folders):
        (folder / "store" / "figure.png").write_bytes(bytes([number]))
    assert differences(folders) == []
    (folders[1] / "store" / "figure.png").unlink()
    assert differences(folders) == [f"store/figure.png: a file became {MISSING}"]


def test_a_group_is_all_files_that_either_run_has_in_it(folders):
    write_record(folders[1], name="b")
    earlier = Run(folders[0], {"store/record.json": "scores", "store/lock": "shards"})
    now = Run(folders[1], {"store/record.json": "scores", "store/lock": "shards", "store/gone.json": "shards"})
    assert [str(one) for one in compare_runs(earlier, now, "scores").differences] == [
        "store/record.json: name: 'a' became 'b'"
    ]
    assert compare_runs(earlier, now, "shards").files == 2


def test_files_are_grouped_by_the_commands_that_wrote_them():
    assert group_of("bank", "store/shards/a.parquet") == group_of("bank", "model.safetensors") == "shards"
    assert group_of("bank", "store/scores/a.parquet") == group_of("bank", "status.json") == "scores"
    assert group_of("trials", "store/weights/a.safetensors") == "trials"
    assert {*STAGES} - {"bank"} | {"shards", "scores"} == {*EARLIER}


def test_a_report_names_group_commit_and_difference(folders):
    write_record(folders[1], name="b")
    said = report("shards", "0123456789abcdef", compare(*folders, varies=TIMES))
    assert said.splitlines()[0].endswith("1 differences in 1 files from 0123456789")
    assert said.splitlines()[1:] == ["    store/record.json: name: 'a' became 'b'"]


def test_a_commit_that_a_clone_lacks_is_one_clear_message(tmp_path):
    with pytest.raises(RuntimeError, match=r"lacks commit 00000.*git fetch --unshallow"):
        check_out("0" * 40, tmp_path / "tree")
    assert not (tmp_path / "tree").exists()


def test_code_from_elsewhere_is_refused(tmp_path):
    root = Path(__file__).parents[1]
    for name in ("memscore", "unlearn", "cluster"):
        (tmp_path / "other" / name).mkdir(parents=True)
        (tmp_path / "other" / name / "__init__.py").write_text("")
    require_own_code(tmp_path / "other", tmp_path, {"PYTHONPATH": str(tmp_path / "other")})
    with pytest.raises(RuntimeError, match=r"would import .*memscore"):
        require_own_code(root, tmp_path, {"PYTHONPATH": str(tmp_path / "other")})


def test_a_command_must_end_as_it_is_said_to(tmp_path):
    (tmp_path / "command.py").write_text("import sys; print('{}'); print(*sys.argv[1:], file=sys.stderr); sys.exit(3)")
    asked = Command("command", "some words", code=3, output="printed.json")
    run_command(asked, tmp_path, {"PYTHONPATH": str(tmp_path)})
    assert (tmp_path / "printed.json").read_text() == "{}\n"
    with pytest.raises(RuntimeError, match=r"`python -m command some words` ended with exit code 3, not 0:\n.*"):
        run_command(replace(asked, code=0), tmp_path, {"PYTHONPATH": str(tmp_path)})


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """This tree and the earlier commits, run and compared once for all tests."""
    folder = tmp_path_factory.mktemp("same")
    return folder, compare_trees(folder)


@pytest.mark.slow
@pytest.mark.parametrize("group", EARLIER)
def test_this_tree_stores_what_the_earlier_commit_stores(results, group):
    found = results[1][group]
    assert not found.differences, report(group, EARLIER[group], found)
    assert found.values > 1000


@pytest.mark.slow
def test_every_kind_of_file_is_compared(results):
    folder, found = results
    [now] = folder.glob("now-*/run")
    files = run_tree(Path(__file__).parents[1], now).groups
    missing = [kind for kind in KINDS if not any(fnmatchcase(file, f"store/{kind}") for file in files)]
    assert missing == ["reports/near_duplicates.parquet"]  # of a command that the commit before the layout lacks
    failures = {json.loads(path.read_text())["kind"] for path in now.glob("unreliable/failures/*.json")}
    assert failures == {"diverged", "exception"}
    assert sum(each.files for each in found.values()) >= len(files)


@pytest.mark.slow
def test_what_is_passed_over_is_there(results):
    used = set().union(*(found.used for found in results[1].values()))
    assert {(files, entry) for files, entries in VARIES.items() for entry in entries} - used == set()
