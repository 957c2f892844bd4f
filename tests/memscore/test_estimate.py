"""The whole command, from flags to files: equal bytes on every pool, after every death; bad input is one line."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from memscore import jobs
from memscore.estimate import main
from memscore.estimation import estimate, open_bank
from memscore.files import Folder
from memscore.filling import Filled, tombstones
from memscore.plan import Plan
from memscore.report import tables
from memscore.store import Store

ROOT = Path(__file__).parents[2]
SMALL = "--train-limit 200 --epochs 2 --design exact --block 8 --models 16 --originals 1"
SLOW = f"{SMALL} --arch cnn-4-8 --recipe digits --epochs 40"  # a job a model, long enough to be hit
SERIAL = "--pool serial"
RAY = "--pool ray --workers 2"
MODELS = 16

USERS = """
import numpy as np
from torch import nn

def data():
    rng = np.random.default_rng(0)
    labels = np.arange(150) % 3
    images = rng.integers(0, 80, (150, 8, 8)) + 80 * labels[:, None, None]
    return images[:120].astype(np.uint8), labels[:120], images[120:].astype(np.uint8), labels[120:]

def network(shape, n_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), 8), nn.Tanh(), nn.Linear(8, n_classes))
"""

HOLD = """
import sys, time
from memscore.store import Store

with Store.open(sys.argv[1]).lock():
    print(flush=True)
    time.sleep(600)
"""

FRAGILE = """
import numpy as np, torch
from torch import nn

def network(shape, n_classes):
    layer = nn.Linear(int(np.prod(shape)), n_classes)
    if torch.rand(()) < 0.3:
        nn.init.constant_(layer.bias, float("nan"))
    return nn.Sequential(nn.Flatten(), layer)
"""


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """No token and no store in the developer's home, no cluster but a new one."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("MEMSCORE_HOME", "RAY_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def start(folder, flags):
    """The command in a process of its own, which a Ctrl-C reaches wherever the tests run."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.Popen(
        [sys.executable, "-m", "memscore.estimate", *flags.split()],
        env=plain | {"PYTHONPATH": str(ROOT), "HOME": str(folder)},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def ended(process, limit_s=240):
    """Exit code and everything said."""
    out, err = process.communicate(timeout=limit_s)
    return process.returncode, out + err


def here(flags, capsys):
    """The same in this process."""
    capsys.readouterr()
    code = main(flags.split())
    said = capsys.readouterr()
    return code, said.out + said.err


def contents(store, kinds=("shards", "scores.parquet")):
    files = [path for kind in kinds for path in ([store / kind] if "." in kind else (store / kind).iterdir())]
    return {path.name: path.read_bytes() for path in files}


def shards(store):
    return sorted(path.name for path in (store / "shards").glob("[!.]*.parquet"))


def receipts(store):
    return {path.name: path.read_bytes() for path in (store / "receipts").glob("[!.]*.json")}


def wait_for_shards(process, store, count, limit_s=120):
    """Until so many models are on file; gives those that are."""
    end = time.monotonic() + limit_s
    while len(found := shards(store)) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, f"{len(found)} shards within {limit_s} s"
        time.sleep(0.02)
    return found


def wait_until_gone(pids, limit_s=60):
    end = time.monotonic() + limit_s
    while left := [pid for pid in pids if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < end, f"{left} still run"
        time.sleep(0.05)


def refused(code, said):
    """One line that begins with error:, no traceback, exit code not 0; gives the line."""
    assert code not in {0, None}
    assert "Traceback" not in said
    lines = [line for line in said.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    return lines[0]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A finished bank of stacked models; read only."""
    store = tmp_path_factory.mktemp("small") / "store"
    assert main(f"{SMALL} {SERIAL} --store {store}".split()) == 0
    return store


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """The slow bank, uninterrupted; read only."""
    store = tmp_path_factory.mktemp("calm") / "store"
    assert main(f"{SLOW} {SERIAL} --store {store}".split()) == 0
    return contents(store)


@pytest.mark.ray
def test_a_ray_pool_writes_the_same_bytes_as_this_process(small, tmp_path):
    code, said = ended(start(tmp_path, f"{SMALL} {RAY} --store ray"))
    assert code == 0, said
    assert contents(tmp_path / "ray") == contents(small)
    assert len(shards(small)) == MODELS


def test_the_same_command_again_trains_nothing(small, capsys):
    before, receipts_before = contents(small), receipts(small)
    times = {path: path.stat().st_mtime_ns for path in (small / "shards").iterdir()}
    code, said = here(f"{SMALL} {SERIAL} --store {small}", capsys)
    assert code == 0
    assert f"models {MODELS}/{MODELS}" not in said
    assert (contents(small), receipts(small)) == (before, receipts_before)
    assert {path: path.stat().st_mtime_ns for path in (small / "shards").iterdir()} == times


@pytest.mark.ray
def test_a_killed_worker_costs_no_model_and_changes_no_byte(calm, tmp_path):
    store = tmp_path / "store"
    process = start(tmp_path, f"{SLOW} {RAY} --store {store}")
    wait_for_shards(process, store, 2)
    worker = json.loads(max((store / "receipts").glob("[!.]*.json"), key=os.path.getmtime).read_bytes())["worker"]
    os.kill(int(worker.rpartition(":")[2]), signal.SIGKILL)
    at_kill = shards(store)
    code, said = ended(process)
    assert code == 0, said
    assert len(at_kill) < MODELS - 1  # it was hit in the middle of its work
    assert contents(store) == calm


@pytest.mark.ray
def test_a_killed_driver_goes_on_where_it_was(calm, tmp_path):
    store = tmp_path / "store"
    process = start(tmp_path, f"{SLOW} {RAY} --store {store}")
    wait_for_shards(process, store, 3)
    process.kill()
    process.communicate()
    workers = {json.loads(text)["worker"] for text in receipts(store).values()}
    wait_until_gone([int(worker.rpartition(":")[2]) for worker in workers])
    kept, told = shards(store), receipts(store)
    assert 3 <= len(kept) < MODELS
    assert {name.removesuffix(".parquet") for name in kept} <= {name.removesuffix(".json") for name in told}
    code, said = ended(start(tmp_path, f"{SLOW} {RAY} --store {store}"))
    assert code == 0, said
    assert contents(store) == calm
    again = {name for name, text in receipts(store).items() if name in told and text != told[name]}
    assert len(again) <= 2  # at most those in flight
    assert not {f"{name.removesuffix('.parquet')}.json" for name in kept} & again
    assert pq.read_table(store / "models.parquet").num_rows == MODELS + 1


def test_ctrl_c_says_how_to_go_on_and_the_same_command_does(calm, tmp_path, capsys):
    store = tmp_path / "store"
    process = start(tmp_path, f"{SLOW} {SERIAL} --store {store}")
    wait_for_shards(process, store, 2)
    process.send_signal(signal.SIGINT)
    code, said = ended(process)
    assert code == 130
    assert "interrupted" in said
    assert "the same command goes on" in said
    assert "Traceback" not in said
    assert 2 <= len(shards(store)) < MODELS
    assert here(f"{SLOW} {SERIAL} --store {store}", capsys)[0] == 0
    assert contents(store) == calm


def test_a_shard_never_lacks_its_receipt(tmp_path, monkeypatch, capsys):
    write, written = Store.write_shard, []

    def stopped_at_the_third(self, *arguments):
        written.append(arguments[0])
        if len(written) == 3:
            raise KeyboardInterrupt
        return write(self, *arguments)

    flags = f"{SMALL} {SERIAL} --store {tmp_path / 'store'}"
    with monkeypatch.context() as patch:
        patch.setattr(Store, "write_shard", stopped_at_the_third)
        assert here(flags, capsys)[0] == 130
    assert len(shards(tmp_path / "store")) == 2
    assert here(flags, capsys)[0] == 0
    assert pq.read_table(tmp_path / "store" / "models.parquet").num_rows == MODELS + 1


def test_a_second_driver_is_refused_and_told_who_is_in(small, capsys):
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


BAD = {
    "data": ("--data cifar11", r"unknown data set 'cifar11'; did you mean 'cifar10'\?"),
    "model": ("--arch resnet19", r"unknown architecture 'resnet19'; did you mean 'resnet18'\?"),
    "preset": ("--preset fats", r"unknown preset 'fats'; did you mean 'fast'\?"),
    "recipe": ("--recipe digts", r"unknown recipe 'digts'; did you mean 'digits'\?"),
    "design": ("--design exat", r"unknown design 'exat'; did you mean 'exact'\?"),
    "empty folder": ("--data {tmp}/empty", r"empty must hold one folder of images for each of 2 or more classes"),
    "no folder": ("--data {tmp}/none", r"there is no folder or \.npz file"),
    "one class": ("--data {tmp}/one.npz", r"must have at least 2 classes, got 1"),
    "gap in labels": ("--data {tmp}/gap.npz", r"training labels of gap must be 0\.\.K-1 without gaps"),
    "test label": ("--data {tmp}/beyond.npz", r"label"),
    "blocks": ("--models 100", r"whole blocks of 64 models, got 100; use 64 or 128"),
    "no models": ("--models 0", r"--models must be at least one block, got 0"),
    "originals": ("--originals -1", r"--originals must be 0 or more, got -1"),
    "batch": (f"{SMALL} --batch 101", r"a batch of 101 is larger than a subset, about 100 of 200 examples"),
    "batch of one": (f"{SMALL} --batch 100", r"a batch of 100 is larger than the smallest subset, \d+ of 200"),
    "identity": (f"{SMALL} --lr 0.05 --store {{small}}", r"recipe\.lr is 0\.1, asked for 0\.05; give another --store"),
    "diverged": (f"{SMALL} --lr 1e30", r"no model .* every model diverged; try a smaller --lr"),
    "seed": ("--seed -1", r"seed must be 0 or more, got -1"),
    "keep": ("--keep 1.5", r"keep must lie between 0 and 1, got 1\.5"),
    "workers": ("--workers 2", r"--pool serial is this process alone; leave out --workers"),
    "scheme": (f"{SMALL} --store nowhere://x", r"cannot open nowhere://x"),
    "module": (f"{SMALL} --arch no_such_module:network", r"No module named 'no_such_module'"),
}


@pytest.mark.parametrize(("flags", "line"), BAD.values(), ids=BAD)
def test_bad_input_is_one_line(flags, line, small, tmp_path, capsys):
    pixels = np.zeros((40, 8, 8), np.uint8)
    (tmp_path / "empty").mkdir()
    np.savez(tmp_path / "one.npz", images=pixels, labels=np.zeros(40, int))
    np.savez(tmp_path / "gap.npz", images=pixels, labels=np.arange(40) % 4 * 2)
    names = ("train_images", "train_labels", "test_images", "test_labels")
    arrays = (pixels, np.arange(40) % 4, pixels, np.arange(40) % 5)
    np.savez(tmp_path / "beyond.npz", **dict(zip(names, arrays, strict=True)))
    before = contents(small)
    store = "" if "--store" in flags else f"--store {tmp_path / 'store'}"
    said = refused(*here(f"{SERIAL} {store} {flags.format(tmp=tmp_path, small=small)}", capsys))
    assert re.search(line, said), said
    assert contents(small) == before


def test_models_that_diverge_are_left_out_of_the_scores_and_named(tmp_path, monkeypatch, capsys):
    (tmp_path / "fragile_net.py").write_text(FRAGILE)
    monkeypatch.syspath_prepend(tmp_path)
    flags = f"{SMALL} {SERIAL} --originals 0 --arch fragile_net:network --recipe digits --store {tmp_path / 'store'}"
    code, said = here(flags, capsys)
    assert code == 1
    left = len(shards(tmp_path / "store"))
    assert 0 < left < MODELS
    assert f"diverged {MODELS - left} models (exact-k0.500-b8-" in said
    scores = pq.read_table(tmp_path / "store" / "scores.parquet")
    counts = scores["memorization_k0.500_n_in"].to_numpy() + scores["memorization_k0.500_n_out"].to_numpy()
    assert (counts == left).all()
    before = contents(tmp_path / "store")
    assert here(flags, capsys)[0] == 1
    assert contents(tmp_path / "store") == before


def mounted(*arguments):
    return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode == 0


@pytest.fixture
def disk(tmp_path, monkeypatch):
    """(folder, set_disk): a disk that can be made full, read-only or roomy; a stand-in where nothing may be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    real = mounted("-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place))
    state = {"error": None, "room": np.inf}
    opened = Path.open

    def open_or_fail(path, mode="r", *arguments, **options):
        if "x" in mode and place in path.parents and state["error"]:
            state["room"] -= 1
            if state["room"] < 0:
                raise OSError(state["error"], os.strerror(state["error"]))
        return opened(path, mode, *arguments, **options)

    def set_disk(kind):
        if real:
            options = {"full": "size=160k", "read-only": "ro", "roomy": "rw,size=64m"}[kind]
            assert mounted("-o", f"remount,{options}", str(place))
            return
        errors = {"full": (28, 12), "read-only": (30, 0), "roomy": (None, np.inf)}  # ENOSPC, EROFS
        state["error"], state["room"] = errors[kind]

    if not real:
        monkeypatch.setattr(Path, "open", open_or_fail)
    yield place, set_disk
    if real:
        subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_keeps_finished_models_and_the_same_command_goes_on(disk, small, monkeypatch, capsys):
    place, set_disk = disk
    for write in (Folder.publish, Folder.replace):
        monkeypatch.setattr(write, "__defaults__", (0.3,))  # seconds of patience
    flags = f"{SMALL} {SERIAL} --store {place / 'store'}"
    set_disk("full")
    line = refused(*here(flags, capsys))
    assert "No space left on device" in line
    assert "finished models are kept" in line
    kept = contents(place / "store", ["shards"])
    assert 0 < len(kept) < MODELS
    set_disk("roomy")
    assert here(flags, capsys)[0] == 0
    assert contents(place / "store") == contents(small)
    assert kept.items() <= contents(place / "store").items()


def test_a_read_only_store_is_refused(disk, capsys):
    place, set_disk = disk
    flags = f"{SMALL} {SERIAL} --store {place / 'store'}"
    assert here(flags, capsys)[0] == 0
    before = contents(place / "store")
    set_disk("read-only")
    more = flags.replace("--models 16", "--models 24")
    assert "Read-only file system" in refused(*here(more, capsys))
    set_disk("roomy")
    assert contents(place / "store") == before


@pytest.mark.ray
def test_a_module_in_the_current_folder_brings_data_and_model_on_both_pools(tmp_path):
    (tmp_path / "mine.py").write_text(USERS)
    own = "--data mine:data --arch mine:network --recipe small-mlp --epochs 2 --batch 16"
    flags = f"{own} --design exact --block 8 --models 8 --originals 1"
    for pool, store in ((SERIAL, "serial"), (RAY, "ray")):
        code, said = ended(start(tmp_path, f"{flags} {pool} --store {store}"))
        assert code == 0, said
    assert len(shards(tmp_path / "ray")) == 8
    assert contents(tmp_path / "ray") == contents(tmp_path / "serial")


def test_several_arms_and_every_kind_of_event_stand_side_by_side(tmp_path, capsys):
    flags = f"{SERIAL} --train-limit 200 --epochs 2 --originals 1 --store {tmp_path / 'store'}"
    events = "--bank-events --evaluation-events"
    assert here(f"{flags} {events} --design exact --block 8 --models 8", capsys)[0] == 0
    assert here(f"{flags} {events} --design iid --keep 0.7 --models 8", capsys)[0] == 0
    scores = pq.read_table(tmp_path / "store" / "scores.parquet")
    stems = ("memorization", "cscore", "lira", "lira_offline", "attack_success")
    both = {f"{stem}_{suffix}" for stem in stems for suffix in ("k0.500", "k0.700")}
    kinds = ("confidence", "max_confidence", "entropy", "accuracy", "forgetting")
    told = ("events", "events_evaluation", "events_bank_k0.500", "events_bank_k0.700")
    assert both | {f"{prefix}_{kind}" for prefix in told for kind in kinds} | {"cscore"} <= set(scores.column_names)
    assert scores.num_rows == 200
    assert (scores["memorization_k0.500_n_in"].to_numpy() == 4).all()


def test_a_relative_store_is_where_the_command_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, said = here(f"{SMALL} {SERIAL} --store bank[x]", capsys)
    assert code == 0
    assert f"store  {tmp_path}/bank[x]" in said
    assert len(shards(tmp_path / "bank[x]")) == MODELS


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


def test_only_what_diverged_counts_as_diverged_and_only_in_its_own_arm(tmp_path):
    store = open_bank(Plan(train_limit=200, store=str(tmp_path / "store"))).store
    for model in ("exact-k0.500-00001", "exact-k0.500-b8-00002", "original-00000"):
        store.write_failure(model, jobs.DIVERGED)
    store.write_failure("original-00001", {"kind": "worker", "error": "its worker process died"})
    assert tombstones(store, "exact-k0.500") == ["exact-k0.500-00001"]
    assert tombstones(store, "original") == ["original-00000"]


def test_what_went_wrong_is_shown_as_it_was_said(capsys):
    why = "OSError: [/tmp/a] and [b] and [2, 1]"
    tables.problems(Console(width=200), Filled(failed={"iid-k0.700-00003": why}, damaged={"shards/x": why}))
    assert capsys.readouterr().out.count(why) == 2


class Forgetful:
    """A pool whose jobs find that another worker has done them already."""

    def run(self, fn, jobs, shared=None):
        for job in jobs:
            fn(job, shared)
            yield job, []


def test_progress_reaches_its_end_whoever_trained_the_models(tmp_path):
    plan = Plan(train_limit=200, epochs=2, design="exact", block=8, models=16, originals=0)
    bank = open_bank(replace(plan, store=str(tmp_path / "store")))
    seen = []
    estimate(bank, Forgetful(), lambda done, total, line: seen.append((done, total)))
    assert seen[-1] == (16, 16)


def test_a_dry_run_says_what_it_would_take_and_writes_nothing(home, capsys):
    assert main([*SMALL.split(), "--dry-run", "--store", str(home / "never")]) == 0
    said = capsys.readouterr().out
    assert re.search(r"to do +16 of 16 models, about [0-9.]+ s each", said)
    assert re.search(r"disk +about [0-9.]+ MB", said)
    assert not (home / "never").exists()


def test_a_dry_run_counts_what_the_store_holds(home, capsys):
    flags = [*SMALL.split(), "--store", str(home / "bank")]
    assert main([*flags, *SERIAL.split()]) == 0
    assert main([*SMALL.replace("16", "24").split(), "--store", str(home / "bank"), "--dry-run"]) == 0
    assert "8 of 24 models" in capsys.readouterr().out


def test_models_that_do_not_fit_their_data_are_warned_of(home, capsys):
    flags = [*SMALL.replace("--epochs 2", "--epochs 1").split(), "--lr", "0.001", *SERIAL.split()]
    assert main([*flags, "--store", str(home / "bank")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert re.search(r"accuracy \(median model\): members 0\.\d+, left out 0\.\d+, test 0\.\d+", said)
    assert "memorization means little below 0.95" in said
    assert re.search(r"16 models in [0-9.]+ s, \d+ an hour", said)
