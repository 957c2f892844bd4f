"""bank verify names missing files and those older than the models, with the command that makes them."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from memscore import attack, fidelity, influence
from memscore.bank import main
from memscore.score_registry import ESTIMATOR_VERSIONS
from memscore.store.store import Store
from tests.fixtures.command import SERIAL, SMALL, here
from unlearn import experiment, sweep, trial

AGAIN = "`python -m memscore.estimate --store {store}` with the flags it was filled with makes it again"
LAST = "exact-k0.500-b8-00015"
KEY = "{key}"


@pytest.fixture
def copy(small, tmp_path):
    """A finished bank that a test may damage."""
    shutil.copytree(small, tmp_path / "bank")
    return Store.open(tmp_path / "bank")


def run_verify(store, capsys):
    """Return the exit code and the problem of each path."""
    capsys.readouterr()
    code = main(["verify", store.url])
    lines = [line.split(": ", 2) for line in capsys.readouterr().out.splitlines() if ": " in line]
    return code, {path: (label, hint) for label, path, hint in lines}


def test_a_bank_as_estimate_leaves_it_lacks_nothing(copy, capsys):
    assert run_verify(copy, capsys) == (0, {})


@pytest.mark.parametrize(
    ("missing", "hint"),
    [
        (
            f"shards/{LAST}.parquet",
            AGAIN,
        ),
        (f"receipts/{LAST}.json", "its seconds, worker and device are lost; `python -m memscore.estimate --store"),
        ("scores/memorization_k0.500.parquet", AGAIN),
        ("scores/final_loss.parquet", AGAIN),
        (f"events/{KEY}.parquet", AGAIN),
        (
            "arms/exact-k0.500-b8.json",
            AGAIN,
        ),
        (
            "examples.parquet",
            AGAIN,
        ),
        (
            "scores.parquet",
            AGAIN,
        ),
        (
            "models.parquet",
            AGAIN,
        ),
        (
            "reports/summary.json",
            AGAIN,
        ),
        (
            f"weights/{KEY}.safetensors",
            AGAIN,
        ),
        (
            f"outputs/{KEY}.parquet",
            AGAIN,
        ),
    ],
)
def test_a_missing_file_is_named_with_its_command_which_makes_it_again(copy, missing, hint, capsys):
    missing = missing.format(key=copy.receipts()["original-00000"]["key"])
    copy.folder.remove(missing)
    code, problems = run_verify(copy, capsys)
    assert code == 1
    label, problem = problems[missing]
    assert label == "missing"
    assert problem.startswith(hint.format(store=copy.folder.display_name))
    before = copy.folder.read(f"shards/{LAST}.parquet") if copy.has_shard(LAST) else None
    assert here(f"{SMALL} {SERIAL} --store {copy.url}", capsys)[0] == 0
    assert run_verify(copy, capsys) == (0, {})
    assert before in {None, copy.folder.read(f"shards/{LAST}.parquet")}


def test_a_lost_receipt_is_written_again_as_far_as_the_shard_says_and_estimate_says_so(copy, capsys):
    before = copy.receipts()[LAST]
    copy.folder.remove(f"receipts/{LAST}.json")
    code, problems = here(f"{SMALL} {SERIAL} --store {copy.url}", capsys)
    assert code == 0
    assert f"receipts lost of 1 model, first {LAST}: written again from their shards, without seconds" in problems
    after = copy.receipts()[LAST]
    same = ("model", "n_members", "accuracy", "diverged")
    assert {key: after[key] for key in same} == {key: before[key] for key in same}
    assert (after["restored"], after["seconds"], after["worker"]) == (True, None, None)
    assert copy.read_table("models.parquet")["seconds"].null_count == 1


def test_an_influence_without_a_picture_is_missed_with_the_command_that_makes_it(copy, capsys):
    assert influence.main([copy.url, "--pictures", "0", "--top", "3"]) == 0
    assert run_verify(copy, capsys) == (0, {})
    copy.folder.remove("influence/test_k0.500.parquet")
    code, problems = run_verify(copy, capsys)
    assert (code, [*problems]) == (1, ["influence/test_k0.500.parquet"])
    command = problems["influence/test_k0.500.parquet"][1].split("`")[1].split()
    assert influence.main([*command[3:], "--pictures", "0"]) == 0
    assert run_verify(copy, capsys) == (0, {})


def test_events_and_influences_that_other_files_imply_are_missed(copy, capsys):
    assert here(f"{SMALL} {SERIAL} --store {copy.url} --bank-events --proxies el2n", capsys)[0] == 0
    assert influence.main([copy.url]) == 0
    assert run_verify(copy, capsys) == (0, {})
    key = copy.receipts()["original-00000"]["key"]
    lost = [f"events/{LAST}.parquet", f"events/{key}-el2n.parquet", "influence/test_k0.500.parquet"]
    for path in lost:
        copy.folder.remove(path)
    code, problems = run_verify(copy, capsys)
    assert (code, sorted(problems)) == (1, sorted(lost))
    assert {label for label, _ in problems.values()} == {"missing"}
    assert "`python -m memscore.influence" in problems[lost[2]][1]


def test_tables_older_than_the_models_are_named_and_made_again(copy, capsys):
    name = "exact-k0.500-b8-00000"
    copy.folder.remove(f"shards/{name}.parquet")
    copy.folder.remove(f"receipts/{name}.json")
    code, problems = run_verify(copy, capsys)
    assert code == 1
    assert {label for label, _ in problems.values()} == {"old"}
    scores = {"scores/memorization_k0.500.parquet", "scores/lira_k0.500.parquet", "scores.parquet", "models.parquet"}
    assert scores < set(problems)
    assert "scores/final_loss.parquet" not in problems  # of the originals
    assert "python -m memscore.estimate --store" in problems["scores.parquet"][1]
    assert here(f"{SMALL} {SERIAL} --store {copy.url}", capsys)[0] == 0
    assert run_verify(copy, capsys) == (0, {})


def test_scores_and_influence_of_an_earlier_estimator_are_named(copy, capsys, monkeypatch):
    assert influence.main([copy.url, "--pictures", "0", "--top", "3"]) == 0
    monkeypatch.setitem(ESTIMATOR_VERSIONS, "cscore", ESTIMATOR_VERSIONS["cscore"] + 1)
    monkeypatch.setitem(ESTIMATOR_VERSIONS, "influence", 3)
    code, problems = run_verify(copy, capsys)
    assert code == 1
    assert set(problems) == {"scores/cscore_k0.500.parquet", "scores.parquet", "influence/test_k0.500.parquet"}
    assert "with the estimator of this memscore" in problems["scores/cscore_k0.500.parquet"][1]
    assert "python -m memscore.influence" in problems["influence/test_k0.500.parquet"][1]


@pytest.mark.parametrize(
    ("source", "target", "reason"),
    [
        ("receipts/exact-k0.500-b8-00000.json", "arms/exact-k0.500-b8.json", "without an entry 'name'"),
        ("receipts/exact-k0.500-b8-00000.json", "receipts/exact-k0.500-b8-00001.json", "file of exact-k0.500-b8-00000"),
        ("receipts/exact-k0.500-b8-00000.json", "reports/summary.json", "without an entry 'arms'"),
        ("scores.parquet", "models.parquet", "without a column 'model'"),
        ("scores/cscore_k0.500.parquet", "scores/lira_k0.500.parquet", "without a column 'lira_k0.500'"),
        ("models.parquet", "examples.parquet", "without a column 'row'"),
    ],
)
def test_an_intact_file_under_the_name_of_another_is_damage_and_its_advice_works(copy, capsys, source, target, reason):
    copy.folder.replace(target, copy.folder.read(source))
    code, problems = run_verify(copy, capsys)
    assert (code, problems[target][0]) == (1, "damaged")
    assert reason in problems[target][1]
    assert "manifest.json" not in problems
    assert main(["verify", copy.url, "--set-aside"]) == 1
    assert here(f"{SMALL} {SERIAL} --store {copy.url}", capsys)[0] == 0
    assert run_verify(copy, capsys) == (0, {})


def test_a_manifest_of_another_store_is_refused_by_every_command_that_would_judge_by_it(copy, capsys):
    manifest = replace(copy.manifest, seed=copy.manifest.seed + 1)
    copy.folder.replace("manifest.json", manifest.to_json().encode())
    before = sorted(Path(copy.url).rglob("*"))
    commands = {
        influence: [copy.url],
        fidelity: [copy.url],
        attack: ["--store", copy.url, "--model", "m.safetensors", "--arch", "mlp"],
        trial: [copy.url, "--algorithm", "finetune", "--pool", "serial"],
        sweep: [copy.url, "--pool", "serial"],
        experiment: ["memorization", copy.url, "--pool", "serial"],
    }
    for command, arguments in commands.items():
        assert command.main(arguments) == 2
        error = capsys.readouterr().err
        assert "manifest.json: it is another store's" in error, command.__name__
        assert "bank verify" in error
    assert sorted(Path(copy.url).rglob("*")) == before


def test_a_wide_table_that_holds_another_column_is_old(copy, capsys):
    wide = copy.read_table("scores.parquet")
    at = wide.column_names.index("final_loss")
    copy.write_table("scores.parquet", wide.set_column(at, wide.schema.field(at), pa.array(np.zeros(200))))
    code, problems = run_verify(copy, capsys)
    assert (code, list(problems), problems["scores.parquet"][0]) == (1, ["scores.parquet"], "old")


def test_a_damaged_shard_makes_no_score_old_since_it_is_made_again_as_it_was(copy, capsys):
    content = copy.folder.read(f"shards/{LAST}.parquet")
    copy.folder.replace(f"shards/{LAST}.parquet", content[:-50])
    assert {label for label, _ in run_verify(copy, capsys)[1].values()} == {"damaged"}


def test_a_model_that_diverged_and_a_bank_that_was_never_scored_lack_nothing(copy, capsys):
    for kind in ("scores", "reports"):
        shutil.rmtree(copy.folder.path(kind))
    for table in ("scores.parquet", "models.parquet"):
        copy.folder.remove(table)
    copy.folder.remove(f"shards/{LAST}.parquet")
    copy.write_failure(LAST, {"kind": "diverged", "error": "e"})
    assert run_verify(copy, capsys) == (0, {})


def test_files_that_no_command_writes_are_named_and_do_no_harm(copy, capsys):
    for path in ("notes.txt", "shards/notes.md", "mine/a/b.bin"):
        place = Path(copy.folder.root) / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("x")
    code, problems = run_verify(copy, capsys)
    assert code == 0
    names = ["mine/a/b.bin", "notes.txt", "shards/notes.md"]
    assert problems == dict.fromkeys(names, ("unknown", "no command of memscore writes or reads it; it does no harm"))


def test_a_damaged_list_of_a_sweeps_options_names_the_command_of_the_log(copy, capsys):
    folder = Path(copy.folder.root)
    (folder / "sweeps" / "mine").mkdir(parents=True)
    (folder / "sweeps" / "mine" / "sweep.json").write_text("{}")
    line = "2026-01-01T00:00:00Z 7 began: python -m unlearn.sweep b --name"
    (folder / "run.log").write_text(f"{line} other --budget 2\n{line} mine --budget 4\n{line} other --budget 3\n")
    _, problems = run_verify(copy, capsys)
    label, hint = problems["sweeps/mine/sweep.json"]
    assert label == "damaged"
    assert "`python -m unlearn.sweep b --name mine --budget 4`, which run.log has, makes it again" in hint
    (folder / "run.log").unlink()
    _, problems = run_verify(copy, capsys)
    assert "--name mine` with the options it was run with makes it again" in problems["sweeps/mine/sweep.json"][1]
