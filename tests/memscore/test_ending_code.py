"""A user's code that ends the process, or raises what is no Exception: a failure or one line, and the rest is done."""

import importlib
import json
import re
import sys
from pathlib import Path

import pytest

from memscore.cli.app import run_command
from memscore.cli.command_line import call_command
from tests.fixtures.command import MODELS, RAY, SERIAL, SMALL, here, refused, shards

pytestmark = pytest.mark.usefixtures("home")

NAME = "ending_code"
OWN = '''"""A user's own."""
import os, sys, torch
from torch import nn

class Other(BaseException):
    pass

class Half(nn.Module):
    """Ends the process in training where its first weight is positive."""
    def __init__(self, input_shape, num_classes):
        super().__init__()
        self.linear = nn.Linear(64, num_classes)
    def forward(self, x):
        if self.training and (self.always or self.linear.weight[0, 0] > 0):
            sys.exit(7)
        return self.linear(x.flatten(1))
    always = False

class Always(Half):
    always = True

class Killed(Half):
    def forward(self, x):
        return os._exit(3) if self.training else super().forward(x)

def network(input_shape, num_classes): sys.exit("no network")
def recipe(): raise Other("no recipe")
def optimizer(parameters, lr, recipe): sys.exit(3)
def schedule(progress): raise GeneratorExit
def images(): sys.exit()
'''


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    (tmp_path / f"{NAME}.py").write_text(OWN)
    (tmp_path / "ending_import.py").write_text("import sys\nsys.exit(2)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[2]}")
    for name in (NAME, "ending_import"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    importlib.invalidate_caches()


def read_failures(store):
    return {path.stem: json.loads(path.read_text()) for path in (store / "failures").iterdir()}


FAILS = r"ending_code:\w+ fails in line \d+ of ending_code\.py: "
IMPORT_FAILS = r"ending_import:\w+ fails in line 2 of ending_import\.py: SystemExit: 2"
BEFORE = {
    f"--arch {NAME}:network": rf"architecture {FAILS}SystemExit: no network \(called as",
    f"--recipe {NAME}:recipe": rf"recipe {FAILS}Other: no recipe$",
    f"--optimizer {NAME}:optimizer --lr 0.1": rf"optimizer {FAILS}SystemExit: 3$",
    f"--schedule {NAME}:schedule": rf"schedule {FAILS}GeneratorExit$",
    f"--data {NAME}:images": rf"data set {FAILS}SystemExit$",
    "--arch ending_import:network": rf"architecture {IMPORT_FAILS}",
    "--recipe ending_import:recipe": rf"recipe {IMPORT_FAILS}",
}


@pytest.mark.parametrize("flags", BEFORE)
def test_what_ends_before_anything_is_trained_is_one_line_and_leaves_nothing(flags, tmp_path, capsys):
    line = refused(*here(f"{SMALL} {SERIAL} {flags} --store {tmp_path}/store", capsys))
    assert re.match(f"error: {BEFORE[flags]}", line), line
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("pool", [SERIAL, pytest.param(RAY, marks=[pytest.mark.ray, pytest.mark.slow])])
def test_models_whose_network_ends_the_process_are_failures_and_the_others_are_trained(pool, tmp_path, capsys, request):
    if pool == RAY:
        request.getfixturevalue("ray_cluster")
    code, output = here(f"{SMALL} {pool} --arch {NAME}:Half --recipe digits --store {tmp_path}/store", capsys)
    failures = read_failures(tmp_path / "store")
    assert code == 1, output
    failed = {name for name in failures if not name.startswith("original")}
    assert 0 < len(failed) < MODELS
    assert len(shards(tmp_path / "store")) + len(failed) == MODELS
    assert {(f["kind"], f["error"]) for f in failures.values()} == {("exception", "SystemExit: 7")}
    assert all("sys.exit(7)" in f["traceback"] for f in failures.values())


def test_a_run_whose_models_all_fail_stops_after_eight_and_keeps_going_if_told(tmp_path, capsys):
    flags = f"{SMALL} {SERIAL} --arch {NAME}:Always --recipe digits --store {tmp_path}/store"
    code, output = here(flags, capsys)
    assert code == 1
    [line] = [line for line in output.splitlines() if line.startswith("error:")]
    assert line == (
        "error: the first 8 jobs all failed in the same way, and the others were not tried: SystemExit: 7; correct the "
        "cause and run the same command again, or add --keep-going to try them"
    )
    assert len(read_failures(tmp_path / "store")) == 8
    line = refused(*here(f"{flags} --keep-going", capsys))
    assert "could be trained, so there is nothing to score: SystemExit: 7" in line
    assert len(read_failures(tmp_path / "store")) == MODELS + 1


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_whose_workers_all_die_stops_soon(ray_cluster, tmp_path, capsys):
    code, output = here(f"{SMALL} {RAY} --arch {NAME}:Killed --recipe digits --store {tmp_path}/store", capsys)
    assert code == 1, output
    assert "the first 3 jobs (9 attempts) all failed in the same way" in output
    assert {f["kind"] for f in read_failures(tmp_path / "store").values()} == {"worker"}


def test_sys_exit_anywhere_else_is_one_line_too(capsys):
    def command() -> int:
        """Run."""
        sys.exit(5)

    assert run_command(lambda: call_command(command, "it", [], "")) == 2
    assert capsys.readouterr().err.startswith("error: sys.exit(5) was called in line ")
