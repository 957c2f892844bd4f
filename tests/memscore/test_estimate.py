"""The whole command, from flags to files: equal bytes on every pool, everything on file, everything said."""

import re
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from rich.console import Console

from memscore.estimate import main
from memscore.pipeline import jobs
from memscore.pipeline.config import BankConfig
from memscore.pipeline.runner import estimate
from memscore.pipeline.train_bank import TrainingSummary, list_diverged_models
from memscore.tables import bank_tables
from tests.fixtures.command import MODELS, RAY, SERIAL, SMALL, contents, ended, here, receipts, shards, start
from tests.fixtures.opened import open_bank

pytestmark = pytest.mark.usefixtures("home")

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

FRAGILE = """
import numpy as np, torch
from torch import nn

def network(shape, n_classes):
    layer = nn.Linear(int(np.prod(shape)), n_classes)
    if torch.rand(()) < 0.3:
        nn.init.constant_(layer.bias, float("nan"))
    return nn.Sequential(nn.Flatten(), layer)
"""


@pytest.mark.ray
def test_a_ray_pool_writes_the_same_bytes_as_this_process(small, ray_cluster, tmp_path, capsys):
    code, output = here(f"{SMALL} {RAY} --store {tmp_path / 'ray'}", capsys)
    assert code == 0, output
    assert contents(tmp_path / "ray") == contents(small)
    assert len(shards(small)) == MODELS


def test_the_same_command_again_trains_nothing(small, capsys):
    before, receipts_before = contents(small), receipts(small)
    times = {path: path.stat().st_mtime_ns for path in (small / "shards").iterdir()}
    code, output = here(f"{SMALL} {SERIAL} --store {small}", capsys)
    assert code == 0
    assert f"models {MODELS}/{MODELS}" not in output
    assert (contents(small), receipts(small)) == (before, receipts_before)
    assert {path: path.stat().st_mtime_ns for path in (small / "shards").iterdir()} == times


@pytest.mark.usefixtures("pictured")
def test_a_run_leaves_its_figures_of_the_size_that_they_are_drawn_in(small, capsys):
    """Three of them, with pixels of more than one shade; every other test takes one pixel for each."""
    assert here(f"{SMALL} {SERIAL} --store {small}", capsys)[0] == 0
    sizes = {}
    for name in ("memorization_k0.500", "most_memorized_k0.500", "roc_k0.500"):
        pixels = np.asarray(Image.open(small / "reports" / f"{name}.png"))
        assert len(np.unique(pixels)) > 2
        sizes[name] = pixels.shape[:2]
    assert sizes["roc_k0.500"] == (round(4.6 * 130), round(5.2 * 130))
    assert min(min(size) for size in sizes.values()) > 300


def test_models_that_diverge_are_left_out_of_the_scores_and_named(tmp_path, monkeypatch, capsys):
    (tmp_path / "fragile_net.py").write_text(FRAGILE)
    monkeypatch.syspath_prepend(tmp_path)
    flags = f"{SMALL} {SERIAL} --originals 0 --arch fragile_net:network --recipe digits --store {tmp_path / 'store'}"
    code, output = here(flags, capsys)
    assert code == 1
    left = len(shards(tmp_path / "store"))
    assert 0 < left < MODELS
    assert f"diverged {MODELS - left} models (exact-k0.500-b8-" in output
    scores = pq.read_table(tmp_path / "store" / "scores.parquet")
    counts = scores["memorization_k0.500_n_in"].to_numpy() + scores["memorization_k0.500_n_out"].to_numpy()
    assert (counts == left).all()
    before = contents(tmp_path / "store")
    assert here(flags, capsys)[0] == 1
    assert contents(tmp_path / "store") == before


@pytest.mark.ray
def test_a_module_in_the_current_folder_brings_data_and_model_on_both_pools(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.py").write_text(USERS)
    flags_of_module = "--data mine:data --arch mine:network --recipe small-mlp --epochs 2 --batch 16"
    flags = f"{flags_of_module} --design exact --block 8 --models 8 --originals 1"
    monkeypatch.syspath_prepend(tmp_path)
    assert here(f"{flags} {SERIAL} --store {tmp_path / 'serial'}", capsys)[0] == 0
    code, output = ended(start(tmp_path, f"{flags} {RAY} --store ray"))
    assert code == 0, output
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
    prefixes = ("events", "events_evaluation", "events_bank_k0.500", "events_bank_k0.700")
    assert both | {f"{prefix}_{kind}" for prefix in prefixes for kind in kinds} | {"cscore"} <= set(scores.column_names)
    assert scores.num_rows == 200
    assert (scores["memorization_k0.500_n_in"].to_numpy() == 4).all()


def test_a_relative_store_is_where_the_command_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, output = here(f"{SMALL} {SERIAL} --store bank[x]", capsys)
    assert code == 0
    assert f"store  {tmp_path}/bank[x]" in output
    assert len(shards(tmp_path / "bank[x]")) == MODELS


def test_only_what_diverged_counts_as_diverged_and_only_in_its_own_arm(tmp_path):
    store = open_bank(BankConfig(train_limit=200, store=str(tmp_path / "store"))).store
    for model in ("exact-k0.500-00001", "exact-k0.500-b8-00002", "original-00000"):
        store.write_failure(model, jobs.DIVERGED)
    store.write_failure("original-00001", {"kind": "worker", "error": "its worker process died"})
    assert list_diverged_models(store, "exact-k0.500") == ["exact-k0.500-00001"]
    assert list_diverged_models(store, "original") == ["original-00000"]


def test_an_error_is_shown_with_its_own_message(capsys):
    why = "OSError: [/tmp/a] and [b] and [2, 1]"
    bank_tables.print_problems(
        Console(width=200), TrainingSummary(failed={"iid-k0.700-00003": why}, damaged={"shards/x": why})
    )
    assert capsys.readouterr().out.count(why) == 2


class Forgetful:
    """A pool whose jobs find that another worker has done them already."""

    def run(self, fn, jobs, shared=None):
        for job in jobs:
            fn(job, shared)
            yield job, []


def test_progress_reaches_its_end_whoever_trained_the_models(tmp_path):
    plan = BankConfig(train_limit=200, epochs=2, design="exact", block=8, models=16, originals=0)
    bank = open_bank(replace(plan, store=str(tmp_path / "store")))
    seen = []
    estimate(bank, Forgetful(), lambda done, total, line: seen.append((done, total)))
    assert seen[-1] == (16, 16)


def test_a_dry_run_says_what_it_would_take_and_writes_nothing(home, capsys):
    assert main([*SMALL.split(), "--dry-run", "--store", str(home / "never")]) == 0
    output = capsys.readouterr().out
    assert re.search(r"to do +16 of 16 models, about [0-9.]+ m?s each", output)
    assert re.search(r"disk +about [0-9.]+ [kM]B", output)
    assert not (home / "never").exists()


def test_a_dry_run_counts_what_the_store_holds(home, capsys):
    flags = [*SMALL.split(), "--store", str(home / "bank")]
    assert main([*flags, *SERIAL.split()]) == 0
    assert main([*SMALL.replace("16", "24").split(), "--store", str(home / "bank"), "--dry-run"]) == 0
    assert "8 of 24 models" in capsys.readouterr().out


def test_models_that_do_not_fit_their_data_are_warned_of(home, capsys):
    flags = [*SMALL.replace("--epochs 2", "--epochs 1").split(), "--lr", "0.001", *SERIAL.split()]
    assert main([*flags, "--store", str(home / "bank")]) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert re.search(r"accuracy median model: members 0\.\d+, left out 0\.\d+, test 0\.\d+", output)
    assert "memorization means little below 0.95" in output
    assert re.search(r"16 models and 1 original in [0-9.]+ m?s, [0-9.]+ (a second|an hour)", output)
