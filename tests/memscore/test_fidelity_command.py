"""The fidelity command on a small bank prints every table, writes figures, and refuses what cannot be compared."""

import json
import re
from contextlib import redirect_stdout
from io import StringIO

import pytest

from cluster.launch import PoolOptions
from memscore import estimate, fidelity
from memscore.pipeline.cards import CardOptions
from memscore.pipeline.config import BankConfig
from memscore.store.store import Store

SMALL = {"train_limit": 240, "epochs": 8, "design": "exact", "block": 8, "models": 24, "originals": 2}


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fidelity") / "bank"
    config = BankConfig(store=str(folder), proxies=("holdout", "el2n"), **SMALL)
    assert estimate.estimate_bank(config, PoolOptions(pool="serial"), CardOptions()) == 0
    return folder


@pytest.fixture(scope="module")
def printed(bank):
    """The output of the command, run once."""
    with redirect_stdout(StringIO()) as output:
        assert fidelity.main([str(bank), "--draws", "40"]) == 0
    return output.getvalue()


def test_every_proxy_is_compared_with_memorization_with_its_cost(bank, printed):
    report = json.loads((bank / "reports" / "fidelity_k0.500.json").read_text())["standings"]
    rows = {row["score"]: row for row in report["rows"]}
    assert {"events_confidence", "events_entropy", "holdout", "el2n", "cscore_k0.500", "lira_k0.500"} <= set(rows)
    assert rows["holdout"]["seconds"] > 0
    assert rows["holdout"]["of_training"] == pytest.approx(rows["holdout"]["seconds"] / report["training_s"])
    assert 0 < rows["events_confidence"]["of_training"] < 1  # recorded within the training
    assert rows["events_confidence"]["spearman"]["hi"] < 0
    assert rows["cscore_k0.500"]["corrected"] is None
    for name in rows:
        assert re.search(rf"^ ?{re.escape(name)} ", printed, re.MULTILINE), name


def test_figures_are_written(bank, printed):
    for name in ("lorenz_k0.500", "proxies_k0.500", "loss_and_attack_success_k0.500"):
        assert (bank / "reports" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert f"{name}.png" in printed


def test_what_the_papers_report_has_a_verdict(printed):
    claims = [line for line in printed.splitlines() if line.rstrip().endswith(("holds", "fails", "undecided"))]
    assert len(claims) >= 10
    assert any("confidence falls with memorization" in line for line in claims)
    assert any("riskiest by attack_success_k0.500: more loss" in line for line in claims)


def test_a_second_run_prints_the_same(bank, printed, capsys):
    assert fidelity.main([str(bank), "--draws", "40"]) == 0
    assert capsys.readouterr().out == printed


def get_error(arguments, capsys):
    assert fidelity.main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


def test_what_cannot_be_compared_is_one_line(bank, tmp_path, capsys):
    assert "no store at" in get_error([str(tmp_path / "none")], capsys)
    assert "did you mean 'k0.500'" in get_error([str(bank), "--arm", "k0.50"], capsys)
    assert "--draws must be 10 or more" in get_error([str(bank), "--draws", "3"], capsys)


def test_a_bank_without_scores_names_the_command_that_makes_them(bank, tmp_path, capsys):
    from tests.fixtures.opened import open_bank

    open_bank(BankConfig(store=str(tmp_path / "empty"), **SMALL))
    assert "`python -m memscore.estimate --store" in get_error([str(tmp_path / "empty")], capsys)


def test_stale_scores_are_refused_with_the_command_that_recomputes_them(bank, capsys, tmp_path):
    import shutil

    shutil.copytree(bank, tmp_path / "copy")
    Store.open(tmp_path / "copy").folder.remove("shards/exact-k0.500-b8-00003.parquet")
    assert "is stale" in get_error([str(tmp_path / "copy")], capsys)
