"""A model far from the others, and the number of queries, on every page and in every record that shows scores."""

import json

import numpy as np
import pytest
from rich.console import Console

from memscore import bank, estimate, status
from memscore.statistics.correlation import spearman
from memscore.store.store import Store
from memscore.tables.outlying_line import print_outlying_models

WILD = "imported-iid-k0.500-00003"
LINE = "far from the others"


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    """Masks and margins of 32 models; in the second file model 3 is 30 times larger."""
    folder, rng = tmp_path_factory.mktemp("arrays"), np.random.default_rng(0)
    member = rng.random((32, 400)) < 0.5
    gap = rng.normal(1.0 + member)
    np.save(folder / "member.npy", member)
    np.save(folder / "calm.npy", gap)
    gap[3] *= 30
    np.save(folder / "wild.npy", gap)
    return folder


def run_import(arrays, name, store):
    words = ["--member", str(arrays / "member.npy"), "--gap", str(arrays / f"{name}.npy")]
    assert bank.main(["import", str(store), *words, "--keep", "0.5"]) == 0


def test_a_wild_model_is_named_on_every_page_and_in_the_summary(arrays, tmp_path, capsys):
    run_import(arrays, "wild", tmp_path / "wild")
    page = capsys.readouterr().out
    [line] = [line for line in page.splitlines() if LINE in line]
    assert WILD in line
    assert page.index("membership inference") < page.index(LINE)
    summary = json.loads((tmp_path / "wild" / "reports" / "summary.json").read_text())
    [model] = summary["arms"][0]["outlying_models"]
    assert model["model"] == WILD
    assert model["deviations"][0]["z"] > 10
    assert summary["lowest_accuracy"]["members"]["value"] <= summary["accuracy"]["members"]
    assert summary["lowest_accuracy"]["members"]["model"] in page
    assert status.main([str(tmp_path / "wild")]) == 0
    assert WILD in capsys.readouterr().out
    print_outlying_models(Console(), Store.open(tmp_path / "wild"))  # as fidelity, influence and experiments do
    assert WILD in capsys.readouterr().out
    assert status.main([str(tmp_path / "wild"), "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["outlying_models"]) == [WILD]


def test_a_bank_of_equals_names_no_model(arrays, tmp_path, capsys):
    run_import(arrays, "calm", tmp_path / "calm")
    assert status.main([str(tmp_path / "calm")]) == 0
    assert LINE not in capsys.readouterr().out
    assert json.loads((tmp_path / "calm" / "reports" / "summary.json").read_text())["arms"][0]["outlying_models"] == []


def test_pages_and_records_say_the_number_of_queries_and_a_wide_crop_is_warned_of(tmp_path, capsys):
    flags = "--train-limit 200 --validation 0 --epochs 2 --batch 20 --design exact --block 8 --models 8 --originals 0"
    words = [*flags.split(), "--augment", "crop", "--queries", "3", "--pool", "serial", "--store", str(tmp_path / "q")]
    assert estimate.main([*words, "--dry-run"]) == 0
    heading = capsys.readouterr().out
    assert "exact-k0.500-b8: 8 models, 3 queries an image" in heading
    assert "warning crop pads 4 pixels, 1/2 of the image's side of 8" in heading
    assert estimate.main(words) == 0
    assert "k0.500: 8 models, 3 queries an image" in capsys.readouterr().out
    summary = json.loads((tmp_path / "q" / "reports" / "summary.json").read_text())
    assert summary["arms"][0]["queries"] == 3
    # a later command that does not name the number takes the stored one
    assert estimate.main([*words[:-6], *words[-4:], "--dry-run"]) == 0
    assert "3 queries an image" in capsys.readouterr().out
    assert status.main([str(tmp_path / "q"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["arms"][0]["queries"] == 3


def test_a_wild_model_changes_neither_thresholds_nor_the_scores_of_examples(arrays, tmp_path, capsys):
    values, decisions = {}, {}
    for name in ("calm", "wild"):
        run_import(arrays, name, tmp_path / name)
        values[name] = Store.open(tmp_path / name).score("lira_gap_k0.500")[1]
        [arm] = json.loads((tmp_path / name / "reports" / "summary.json").read_text())["arms"]
        decisions[name] = arm["attacks"]["lira_gap"]["thresholds"][0]
        assert ("not attacked as targets" in capsys.readouterr().out) == (name == "wild")
    assert spearman(values["calm"], values["wild"]) > 0.97
    assert decisions["wild"]["threshold"] == pytest.approx(decisions["calm"]["threshold"], rel=0.05)
    assert decisions["wild"]["tpr"][0] == pytest.approx(decisions["calm"]["tpr"][0], abs=0.01)
