"""Trials with algorithms and measures of the user's own: keys that follow the source, columns, a sweep, Ray."""

import importlib
import json
import sys
from dataclasses import replace

import numpy as np
import pytest

from memscore.store.store import Store
from memscore.store.trial_files import list_trials, read_trial
from tests.fixtures.cases import make_inputs
from tests.fixtures.sweeps import SCORE, make_config, run_sweep
from unlearn import trial
from unlearn.measures import get_measure
from unlearn.trials.config import TrialConfig, model_key, trial_key
from unlearn.trials.runner import run_trial

OWN = '''"""A user's own."""
import torch

def forget(model, retain, forget):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.9)
    return model

def fail(model, retain, forget):
    return model.no_such_layer

def mean_loss(inputs):
    """mean loss of the forget set"""
    return -inputs.judged.label_log_probabilities(inputs.forget, inputs.labels).mean()

mean_loss.splits = ()

def shares(inputs):
    right = inputs.judged.correct(inputs.held_out, inputs.labels_true).mean()
    return {"right": right, "wrong": 1 - right}

shares.best = "max"

def accuracy(inputs): return 1.0
def broken(inputs): return inputs.absent
def text(inputs): return "high"
def ends(inputs): raise SystemExit(4)
def bad(inputs): return 1
bad.best = "upwards"
'''
NAME = "own_of_trials"


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    path = tmp_path / f"{NAME}.py"
    path.write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    return path


def make_trial(store="s", **options):
    defaults = {"algorithm": f"{NAME}:forget", "forget_set": "f", "forget": (1, 2, 5)}
    return TrialConfig(store=store, **defaults | options)


def edit(path, monkeypatch):
    path.write_text(OWN.replace("0.9", "0.8"))
    monkeypatch.delitem(sys.modules, NAME)
    importlib.invalidate_caches()


def test_an_edited_file_is_another_trial_and_other_trials_keep_their_keys(store, own, monkeypatch):
    opened = Store.open(store)
    built_in = make_trial(algorithm="finetune")
    measured = replace(built_in, measures=(f"{NAME}:mean_loss",))
    before = [trial_key(opened, t) for t in (make_trial(), measured, built_in)]
    model = model_key(opened, measured)
    edit(own, monkeypatch)
    measured = replace(measured)
    after = [trial_key(opened, t) for t in (make_trial(), measured, built_in)]
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, False, True]
    assert model_key(opened, measured) == model == model_key(opened, built_in)


def test_a_worker_refuses_another_source_than_the_command_had(store, own, monkeypatch):
    made = make_trial(store)
    edit(own, monkeypatch)
    with pytest.raises(ValueError, match=r"the source of own_of_trials is not that of this command"):
        run_trial(made, None)


def run_command(store, capsys, *words):
    code = trial.main([store, "--algorithm", f"{NAME}:forget", "--size", "12", "--seeds", "1", *words])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_the_command_shows_an_own_measure_with_its_direction_and_runs_an_edited_one_again(
    store, own, monkeypatch, capsys
):
    measures = ("--measures", f"{NAME}:mean_loss", f"{NAME}:shares", "--pool", "serial")
    code, out, _ = run_command(store, capsys, *measures)
    assert code == 0, out
    lines = dict(line.split()[:2] for line in out.splitlines() if len(line.split()) > 1)
    directions = {"mean_loss": "oracle", "mean_loss_gap": "min", "shares_right_test": "max"}
    assert lines.items() >= directions.items()
    rows = [json.loads(row["sources"]) for row in read_rows(store)]
    assert rows == [{f"{NAME}:{name}": rows[0][f"{NAME}:forget"] for name in ("forget", "mean_loss", "shares")}]
    edit(own, monkeypatch)
    run_command(store, capsys, *measures)
    losses = [row["mean_loss"] for row in read_rows(store)]
    assert len(losses) == len(set(losses)) == 2


def test_an_algorithm_that_fails_on_every_original_is_one_line_and_no_tables(store, capsys):
    words = [store, "--algorithm", f"{NAME}:fail", "--forget", "random", "--size", "5", "--seeds", "2"]
    assert trial.main([*words, "--pool", "serial"]) == 1
    [line] = [line for line in capsys.readouterr().out.splitlines() if line]
    assert line.startswith(
        f"{NAME}:fail on originals 0, 1 failed: algorithm {NAME}:fail fails in line 11 of {NAME}.py: "
    )
    assert "no_such_layer" in line
    assert "UserAlgorithmError" not in line


def read_rows(store):
    opened = Store.open(store)
    rows = [read_trial(opened, key) for key in list_trials(opened)]
    return [row for row in rows if row["algorithm"] == f"{NAME}:forget"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bad", "best must be one of oracle, max, min, none, got 'upwards'"),
        ("accuracy", "accuracy is a column of held-out-accuracy; give the function another name"),
        ("absent", "own_of_trials has no absent"),
    ],
)
def test_what_is_no_measure_is_refused_before_a_trial(name, message):
    with pytest.raises(ValueError, match=message):
        get_measure(f"{NAME}:{name}")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken", r"measure own_of_trials:broken fails in line 26 of own_of_trials\.py: AttributeError"),
        ("ends", r"measure own_of_trials:ends fails in line 28 of own_of_trials\.py: SystemExit: 4"),
        ("text", "must return numbers, got str for text"),
    ],
)
def test_a_measure_that_fails_says_where(name, message):
    with pytest.raises(ValueError, match=message):
        get_measure(f"{NAME}:{name}").fn(make_inputs())


def test_a_number_is_a_column_and_a_dict_several():
    assert get_measure(f"{NAME}:shares").fn(make_inputs()).keys() == {"shares_right", "shares_wrong"}
    value = get_measure(f"{NAME}:mean_loss").fn(make_inputs())
    assert value.keys() == {"mean_loss"}
    assert np.isfinite(value["mean_loss"])


def make_own_sweep(store):
    options = {"algorithms": (f"{NAME}:forget",), "variants": ("rum",), "scores": (SCORE,), "parts": 2, "set": ()}
    return make_config(store, budget=1, seeds=1, **options)


def test_an_edited_algorithm_is_another_sweep(own, monkeypatch):
    config = make_own_sweep("s")
    before = config.folder_name
    edit(own, monkeypatch)
    assert config.folder_name != before
    assert "sources" not in make_config("s").identity


@pytest.mark.slow
def test_a_sweep_refines_with_an_own_algorithm(store):
    _, result = run_sweep(make_own_sweep(store))
    assert not result.failed
    assert {row["plan"] for row in result.judged_rows if row["contender"] == f"{NAME}:forget"} == {
        f"{NAME}:forget>{NAME}:forget"
    }


@pytest.mark.ray
@pytest.mark.slow
def test_workers_of_ray_import_it_from_the_working_directory(store, own, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, out, err = run_command(store, capsys, "--pool", "ray", "--workers", "1", "--seed", "7")
    assert code == 0, out + err
