"""`python -m unlearn.sweep`: what it prints; words that cannot hold are one line, and nothing on file is lost."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from memscore.pipeline.runner import estimate
from memscore.store.store import Store
from tests.fixtures.opened import open_bank
from tests.fixtures.sweeps import BANK, SCORE
from tests.memscore.pipeline.test_jobs import InOrder
from unlearn import sweep

FEW = ("--size", "12", "--tunings", "1", "--budget", "2", "--tune-seeds", "1", "--seeds", "1", "--pool", "serial",
       "--forget", "random", "--variants", "vanilla")  # fmt: skip
ONE = ("--algorithms", "neggrad-plus", "--set", "neggrad-plus.epochs=1")


def run_and_read_error(capsys, code, *words):
    """The single line of an error."""
    assert sweep.main([*words]) == code
    [line] = capsys.readouterr().err.strip().splitlines()
    return line


def read_sweep_files(store):
    """Everything that a sweep might change, with its bytes."""
    return {
        str(path.relative_to(store)): path.read_bytes()
        for kind in ("trials", "attempts", "weights", "outputs", "sweeps")
        for path in Path(store, kind).rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def done(store):
    """A sweep that is finished, under a name."""
    assert sweep.main([store, *FEW, *ONE, "--name", "mine"]) == 0
    return store


def test_a_sweep_prints_its_table_and_where_it_lies(done, capsys):
    assert sweep.main([done, *FEW, *ONE, "--name", "mine"]) == 0
    output = capsys.readouterr().out
    assert "judged on 1 original unseen by the choice" in output
    assert "tow_test by who chose" in output
    assert output.strip().endswith(f"every trial and what was chosen: {done}/sweeps/mine")
    assert {path.name for path in Path(done, "sweeps", "mine").iterdir()} == {
        "sweep.json",
        "trials.parquet",
        "chosen.json",
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--budget", "0"), "--budget 0: a sweep needs 1 or more"),
        (("--tune-seeds", "0"), "--tune-seeds 0: a sweep needs 1 or more"),
        (("--seeds", "0"), "--seeds 0: "),
        (("--algorithms", "finetun"), "unknown algorithm 'finetun'; did you mean 'finetune'"),
        (("--variants", "auto", "--algorithms", "salun", "--scores", SCORE), "auto chooses among --algorithms"),
        (("--variants", "rum", "--scores", "epsilon"), "unknown score 'epsilon'"),
        (("--variants", "rum", "--scores", SCORE, "--parts", "13"), "13 parts of 12 examples to forget"),
        (("--variants", "rum", "--scores", "centroid", "--parts", "13"), "13 parts of 12 examples to forget"),
        (("--variants", "shuffle", "--parts", "13"), "13 parts of 12 examples to forget"),
        (("--variants", "shuffle", "--parts", "0"), "0 parts of 12 examples to forget"),
        (("--variants", "rsu", "--rounds", "13"), "--rounds 13: random of 12 has 12 examples"),
        (("--variants", "rsu", "--rounds", "11", "--unit", "class"), "classes, and each round of rsu admits"),
        (("--plans", "finetune>salum>scrub", "--scores", SCORE), "'salum'; did you mean 'salun'"),
        (("--plans", "finetune>salun", "--scores", SCORE), "has 2 steps for 3 parts"),
        (("--set", "lr=1"), "--set 'lr=1' must be ALGORITHM.NAME=VALUE, as finetune.epochs=5"),
        (("--set", "finetune.lrr=1"), "unknown parameter of finetune 'lrr'; did you mean 'lr'"),
        (
            ("--set", "finetune.epochs=3", "finetune.lr=0"),
            "--set finetune.epochs=3 finetune.lr=0: lr of FineTuneConfig",
        ),
        (("--set", "scrub.lr=1"), "--set gives parameters of scrub, which is not compared"),
        (("--measures", "u-lira"), "--seeds 1: u-lira compare many models; use 8 or more, and 64 for useful values"),
        (("--measures", "towe"), "unknown measure 'towe'"),
        (("--tune-forget", "rendom"), "--tune-forget rendom: unknown forget set 'rendom'"),
        (("--size", "101"), "no second forget set to choose parameters on: --size 101, but there are 99"),
        (("--dynamics",), "--dynamics does nothing here: no method partitions"),
        (("--tuning", "joint"), "--tuning joint does nothing here: no method partitions"),
        (("--tuning", "defaults", "--sampler", "grid"), "--sampler grid does nothing here: no parameter is searched"),
        (("--tuning", "defaults", "--budget", "12"), "--budget 12 does nothing here: no parameter is searched"),
        (
            ("--algorithms", "finetune", "salun", "--variants", "auto", "--scores", SCORE, "--tuning", "joint"),
            "--tuning joint: auto takes the best algorithm part by part; use --tuning steps",
        ),
        (("--budget", "10001"), "--budget 10001: a sweep takes 10000 or fewer"),
        (("--seed", str(2**63)), f"--seed {2**63}: a seed is 0 to {2**63 - 1}"),
        (("--seed", "-1"), "--seed -1: a seed is 0 to "),
        (("--set", "finetune.lr=abc"), "--set finetune.lr=abc: lr is a number"),
        (("--set", "finetune.lr=.1", "finetune.lr=.2"), "--set gives finetune.lr twice, .1 and .2"),
        (("--variants", "rsu", "--rounds", "2", "--unit", "class", "--forget", "class:3"), "has 1 class, and each"),
        (
            ("--variants", "rsu", "--rounds", "4", "--unit", "class", "--forget", "class:3,0,1"),
            "has 3 classes, and each",
        ),
        (
            ("--forget", "class:0,1,2,3,4,5"),
            "on: class:0,1,2,3,4,5 leaves 4 of 10 classes, and another set like it has 6",
        ),
        (
            ("--variants", "vanilla", "--order", "high", "low"),
            "--order high low must name each of the 3 parts once, 1 being that of the lowest scores: low medium high",
        ),
        (("--scores-of", "elsewhere"), "--scores-of elsewhere does nothing here: no score is read"),
        (("--rounds", "0"), "--rounds 0: rsu has 1 or more"),
        (("--parts", "5"), "--parts 5 does nothing here: no method partitions the forget set"),
        (("--scores", SCORE), f"--scores {SCORE} does nothing here: no method refines"),
        (("--variants", "shuffle", "--rule", "spaced"), "--rule spaced does nothing here"),
        (("--again",), "--again does nothing here: no method has rounds; add --variants rsu, or leave --again out"),
        (("--risk", SCORE), f"--risk {SCORE} does nothing here: no method has rounds; add --variants rsu"),
        (("--variants", "rsu", "--risk", "epsilon"), "unknown score 'epsilon'"),
        (("--variants", "rsu", "--risk", ""), "--risk is empty; give score of the store"),
        (
            ("--variants", "rsu", "--risk", SCORE, "--again"),
            f"--again recomputes the loss, and --risk {SCORE} replaces it; leave one of them out",
        ),
        (("--scores-of", "nowhere", "--forget", f"{SCORE}:high"), "--scores-of nowhere: no store at "),
        (("--name", "a/b"), "--name 'a/b' is not a valid folder name"),
        (("--name", "mine"), "is another one: "),
    ],
)
def test_words_that_cannot_hold_are_one_line_and_nothing_is_lost(done, capsys, words, message):
    before = read_sweep_files(done)
    usual = () if "--algorithms" in words else ("--algorithms", "finetune")
    line = run_and_read_error(capsys, 2, done, *FEW, *usual, *words)
    assert line.startswith("error: ")
    assert message in line
    assert read_sweep_files(done) == before


def test_a_score_that_the_store_lacks_comes_with_the_command_that_makes_it(done, capsys):
    for words in (("--variants", "rum", "--scores", "confidence"), ("--variants", "rsu", "--risk", "confidence")):
        line = run_and_read_error(capsys, 2, done, *FEW, *words)
        assert "python -m memscore.estimate" in line
        assert "--proxies" in line


def test_where_everything_diverges_the_trials_are_kept_and_a_line_says_so(done, capsys):
    words = ("--algorithms", "gradient-ascent", "--set", "gradient-ascent.lr=1e30", "--name", "gone")
    before = read_sweep_files(done)
    assert sweep.main([done, *FEW, *words]) == 1
    output = capsys.readouterr().out
    assert "no method is left to be judged; finished trials are stored" in output
    assert (
        "gradient-ascent, vanilla, chosen by blind: ended early, no configuration at step 1 can be chosen: 1 of 1"
        in output
    )
    after = read_sweep_files(done)
    assert before.items() < after.items()
    record = json.loads(after["sweeps/gone/chosen.json"])
    assert [one["steps"] for one in record["chosen"]] == [[], []]
    kept = pq.read_table(f"{done}/sweeps/gone/trials.parquet").to_pylist()
    assert {(row["status"], row["tow_validation"]) for row in kept if row["role"] == "tuning"} == {("diverged", None)}


def test_sequences_that_all_end_at_their_first_step_are_kept_too(done, capsys):
    words = ("--algorithms", "gradient-ascent", "--set", "gradient-ascent.lr=1e30", "--name", "gone-early")
    assert sweep.main([done, *FEW, *words, "--variants", "rum", "--scores", SCORE]) == 1
    assert "no method is left to be judged; finished trials are stored" in capsys.readouterr().out
    rows = pq.read_table(f"{done}/sweeps/gone-early/trials.parquet").to_pylist()
    assert {(row["role"], row["level"]) for row in rows} == {("tuning", 1), ("judged", 0)}  # the oracle, and nothing


@pytest.fixture(scope="module")
def unvalidated(tmp_path_factory):
    """A bank that holds out nothing."""
    return open_bank(replace(BANK, validation=0, store=str(tmp_path_factory.mktemp("bare") / "store"))).store.url


def test_a_bank_without_validation_cannot_choose(unvalidated, capsys):
    line = run_and_read_error(capsys, 2, unvalidated, *FEW, *ONE)
    assert "parameters are chosen on validation examples" in line
    assert "use a bank made with --validation 0.1" in line


@pytest.fixture(scope="module")
def hardly_validated(tmp_path_factory):
    """A bank that selects on so few examples that a class is among them only by luck."""
    return open_bank(replace(BANK, validation=0.011, store=str(tmp_path_factory.mktemp("few") / "store"))).store.url


def test_the_blind_choice_needs_an_unseen_example_of_each_class(hardly_validated, capsys):
    held_out = Store.open(hardly_validated).manifest.split_sizes[1]
    assert 0 < held_out < 40
    line = run_and_read_error(capsys, 2, hardly_validated, *FEW, *ONE, "--size", "90", "--select", "blind")
    assert "the blind selection compares what is forgotten with unseen examples of its classes" in line
    assert "use --select oracle, or a bank with a larger --validation" in line


def test_scores_may_be_another_banks_of_the_same_data(done, tmp_path, capsys):
    other = tmp_path / "other"
    estimate(open_bank(replace(BANK, epochs=4, models=8, store=str(other))), InOrder())
    words = ("--forget", f"{SCORE}:high", "--scores-of", str(other), "--name", "borrowed")
    assert sweep.main([done, *FEW, *ONE, *words]) == 0
    line = f"scores are those of {other}, whose models were trained otherwise (epochs 4, theta_o's 6)"
    assert line in capsys.readouterr().out
    record = json.loads(Path(done, "sweeps", "borrowed", "chosen.json").read_text())
    assert [note.startswith(line) for note in record["notes"]] == [True, False, False]
    words = ("--forget", f"{SCORE}:high", "--scores-of", done, "--name", "own")
    assert sweep.main([done, *FEW, *ONE, *words]) == 0
    assert "scores are those" not in capsys.readouterr().out


def test_scores_of_other_data_are_refused(done, unvalidated, capsys):
    line = run_and_read_error(capsys, 2, done, *FEW, *ONE, "--forget", f"{SCORE}:high", "--scores-of", unvalidated)
    assert "is a bank of other data than" in line
    assert "use one of the same data, --validation, --label-noise and --seed" in line
