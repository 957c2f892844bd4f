"""Input that cannot be: each is one line, exit code not 0, and what is on file stays as it was."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest

from tests.fixtures.command import ROOT, SERIAL, SMALL, contents, ended, here, refused, start

pytestmark = pytest.mark.usefixtures("home")

HOLD = """
import sys, time
from memscore.store.store import Store

with Store.open(sys.argv[1]).lock():
    print(flush=True)
    time.sleep(600)
"""

BAD = {
    "data": ("--data cifar11", r"unknown data set 'cifar11'; did you mean 'cifar10'\?"),
    "model": ("--arch resnet19", r"unknown architecture 'resnet19'; did you mean 'resnet18'\?"),
    "preset": ("--preset fats", r"unknown preset 'fats'; did you mean 'fast'\?"),
    "recipe": ("--recipe digts", r"unknown recipe 'digts'; did you mean 'digits'\?"),
    "design": ("--design exat", r"unknown design 'exat'; did you mean 'exact'\?"),
    "empty folder": ("--data {tmp}/empty", r"empty must hold one folder of images for each of 2 or more classes"),
    "no folder": ("--data {tmp}/none", "there is no folder or file"),
    "one class": ("--data {tmp}/one.npz", r"must have at least 2 classes, got 1"),
    "no label": ("--data {tmp}/minus.npz", r"minus: all label -1 of all/00000 is negative"),
    "test label": ("--data {tmp}/beyond.npz", r"label"),
    "blocks": ("--models 100", r"whole blocks of 64 models, got 100; use 64 or 128"),
    "no models": ("--models 0", r"--models must be at least one block, got 0"),
    "originals": ("--originals -1", r"--originals must be 0 or more, got -1"),
    "batch": (f"{SMALL} --batch 101", r"a batch of 101 is larger than a subset, about 100 of 200 examples"),
    "batch of one": (f"{SMALL} --batch 100", r"a batch of 100 is larger than the smallest subset, \d+ of 200"),
    "identity": (f"{SMALL} --lr 0.05 --store {{small}}", r"recipe\.lr is 0\.1, requested 0\.05; give another store"),
    "another seed": (f"{SMALL} --seed 5 --store {{small}}", r"is another one: seed is 0, requested 5; fingerprint is"),
    "diverged": (f"{SMALL} --lr 1e30", r"no model .* every model diverged; try a smaller --lr"),
    "seed": ("--seed -1", r"--seed must lie between 0 and 2\^64 - 1, got -1"),
    "large seed": (f"--seed {2**64}", r"--seed must lie between 0 and 2\^64 - 1, got 18446744073709551616"),
    "memory": (
        "--arch cnn-9999999999 --recipe digits",
        r"--arch cnn-9999999999 does not fit into the memory of this machine: one of its tensors alone takes \d+ GB",
    ),
    "overflow": ("--arch mlp-99999999-99999999999", r"--arch mlp-99999999-99999999999 does not fit into the memory"),
    "a file": (f"{SMALL} --store {{tmp}}/one.npz", r"a store is a folder, and /\S+one\.npz is a file"),
    "below a file": (f"{SMALL} --store {{tmp}}/one.npz/x", r"a store is a folder, and /\S+one\.npz is a file"),
    "no name": (f"{SMALL} --store=", r"--store is empty; give folder or URL of the bank .* or leave it out"),
    "keep": ("--keep 1.5", r"keep must lie between 0 and 1, got 1\.5"),
    "shared": ("--gpus-per-worker 0.5", r"--gpus-per-worker 0.5 is of the workers of a Ray cluster"),
    "workers": ("--workers 2", r"--pool serial is this process alone; leave out --workers"),
    "no workers": ("--pool ray --workers 0", r"--workers must be 1 or more, got 0"),
    "scheme": (f"{SMALL} --store nowhere://x", r"cannot open nowhere://x"),
    "proxy": (f"{SMALL} --proxies agreement", r"unknown proxy 'agreement'"),
    "proxies": (f"{SMALL} --proxies holdout --validation 0", r"validation"),
    "attack": (f"{SMALL} --attacks lirra", r"unknown attack 'lirra'; did you mean 'lira'\?"),
    "precision": (f"{SMALL} --precision tf32 --device cpu", r"tf32"),
    "batch of clusters": (
        "--train-limit 300 --models 64 --originals 0 --epochs 1 --arch mlp-8 --batch 149",
        r"a batch of 149 is larger than the smallest subset, \d+ of 300",
    ),
    "module": (
        f"{SMALL} --arch no_such_module:network",
        "there is no module no_such_module; run the comm",
    ),
}


@pytest.mark.parametrize(("flags", "line"), BAD.values(), ids=BAD)
def test_bad_input_is_one_line(flags, line, small, tmp_path, capsys):
    pixels = np.zeros((40, 8, 8), np.uint8)
    (tmp_path / "empty").mkdir()
    np.savez(tmp_path / "one.npz", images=pixels, labels=np.zeros(40, int))
    np.savez(tmp_path / "minus.npz", images=pixels, labels=np.arange(40) % 4 - 1)
    names = ("train_images", "train_labels", "test_images", "test_labels")
    arrays = (pixels, np.arange(40) % 4, pixels, np.arange(40) % 5)
    np.savez(tmp_path / "beyond.npz", **dict(zip(names, arrays, strict=True)))
    before = contents(small)
    store = "" if "--store" in flags else f"--store {tmp_path / 'store'}"
    output = refused(
        *here(f"{'' if '--pool' in flags else SERIAL} {store} {flags.format(tmp=tmp_path, small=small)}", capsys)
    )
    assert re.search(line, output), output
    assert contents(small) == before
    # a model that failed is a result
    assert (tmp_path / "store").exists() == ("1e30" in flags)


@pytest.mark.parametrize("pool", [SERIAL, "--pool ray"])
def test_a_gpu_that_is_not_there_is_refused_before_anything_is_begun(pool, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    code, output = here(f"{SMALL} {pool} --device cuda --store {tmp_path / 'store'}", capsys)
    assert (code, output) == (2, "error: --device cuda, but torch sees no GPU here; use --device cpu, or auto\n")
    assert not (tmp_path / "store").exists()


def test_an_address_where_nothing_answers_is_the_only_line(tmp_path):
    """Workers are looked for before the heading, which says what is about to be done."""
    code, output = ended(start(tmp_path, f"{SMALL} --address 127.0.0.1:1 --store {tmp_path / 'store'}"))
    assert code == 2
    [line] = [line for line in output.splitlines() if "error" in line or "data " in line]
    assert line.startswith("error: no Ray cluster answers at 127.0.0.1:1")


def test_the_batch_that_is_offered_for_a_small_data_set_works(tmp_path, capsys):
    """The default recipe is made for large ones; with orthogonal subsets the smallest has 85 examples, not 108."""
    images = np.random.default_rng(0).integers(0, 255, (300, 8, 8)).astype(np.uint8)
    np.savez(tmp_path / "few.npz", images=images, labels=np.arange(300) % 3)
    flags = f"{SERIAL} --data {tmp_path}/few.npz --arch mlp-8 --models 64 --originals 0 --store {tmp_path}/store"
    line = refused(*here(f"{flags} --batch 128", capsys))
    assert line == (
        "error: a batch of 128 is larger than a subset, about 108 of 216 examples; use --batch 32, or a larger --keep"
    )
    code, output = here(f"{flags} --epochs 1", capsys)
    assert code == 0
    assert "note   batch 32, as small-mlp's 128 is larger than a subset; --batch sets it" in output


def test_a_second_driver_is_refused_with_the_first_one_s_pid(small, capsys):
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(small)], stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    try:
        first.stdout.readline()
        line = refused(*here(f"{SMALL} {SERIAL} --store {small}", capsys))
        assert f"in use by pid {first.pid} on host {os.uname().nodename}" in line
    finally:
        first.kill()
        first.communicate()
    assert here(f"{SMALL} {SERIAL} --store {small}", capsys)[0] == 0


def test_a_submitted_job_refuses_a_store_that_would_be_lost_with_its_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    line = refused(*here(f"{SMALL} {SERIAL} --store bank", capsys))
    assert "the store bank is a relative path" in line
    assert "an absolute path that every node shares" in line
    monkeypatch.setenv("MEMSCORE_HOME", "banks")
    assert "the store banks/digits-mlp-" in refused(*here(f"{SMALL} {SERIAL}", capsys))
    assert os.listdir(tmp_path) == []
    assert here(f"{SMALL} {SERIAL} --store {tmp_path}/bank", capsys)[0] == 0


def test_a_refused_command_leaves_an_empty_folder_of_the_user_s_as_it_was(tmp_path, monkeypatch, capsys):
    """Also where what refuses it comes after the store was created."""

    def refuse(*arguments):
        raise ValueError("something is found late")

    monkeypatch.setattr("memscore.pipeline.runner.count_queries", refuse)
    (tmp_path / "mine").mkdir()
    for name in ("mine", "new"):
        line = refused(*here(f"{SMALL} {SERIAL} --store {tmp_path / name}", capsys))
        assert line == "error: something is found late"
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]


def test_a_refused_command_leaves_a_store_with_results_and_what_is_not_its_own(small, tmp_path, monkeypatch, capsys):
    before = {path for path in small.rglob("*") if path.is_file()}
    monkeypatch.setattr("memscore.pipeline.runner.count_queries", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        here(f"{SMALL} {SERIAL} --store {small}", capsys)
    assert {path for path in small.rglob("*") if path.is_file()} == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(ZeroDivisionError):
        here(f"{SMALL} {SERIAL} --store {tmp_path / 'mine'}", capsys)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"
