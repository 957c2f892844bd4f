"""Proxies of the originals are stored once, resumed after a stop, and their cost is counted once, on any pool."""

import io
import json
import math
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console
from torch import nn

from cluster.pool import SerialPool
from memscore.models.architectures import Classifier
from memscore.pipeline.jobs import OriginalJob, build_model, load_on_device, read_recipe, run_job
from memscore.pipeline.proxy_jobs import HOLDOUT_CONFIGS, build_proxy_jobs
from memscore.pipeline.runner import estimate
from memscore.pipeline.train_bank import build_shared_data, compute_missing_proxies
from memscore.proxies.epoch_mean import EpochMean
from memscore.proxies.registry import PROXIES
from memscore.proxies.storage import (
    INVERSIONS,
    InversionOptions,
    read_differing_originals,
    read_proxy,
    read_stored_inversions,
    sum_proxy_seconds,
)
from memscore.store.store import Store
from memscore.tables import bank_tables
from memscore.training.evaluation import predict_logits
from tests.fixtures.proxied import (
    CPU,
    ROOT,
    SETTINGS,
    SMALL,
    compute_original_keys,
    copy_bank,
    make_inversion_options,
    open_small_bank,
    read_files,
    read_receipts,
    train_and_score_proxies,
)


def test_fewer_candidates_are_the_first_of_more_and_other_settings_are_other_files():
    few, more = (InversionOptions(**SETTINGS | {"candidates": n}) for n in (40, 90))
    assert (few.rows(0, 200) == more.rows(0, 200)[:40]).all()
    assert len(set(more.rows(0, 200))) == 90
    assert len(set(more.rows(0, 50))) == 50
    assert [part.stop - part.start for part in more.list_files(200).values()] == [64, 26]
    assert [part.stop - part.start for part in more.list_files(50).values()] == [50]
    others = [SETTINGS, *(SETTINGS | {key: 2 * value} for key, value in SETTINGS.items())]
    assert len({InversionOptions(**each).ending for each in others}) == 4


@pytest.mark.parametrize("gone", ["holdout", "centroid-distance", "inversion"])
def test_a_missing_proxy_is_all_that_is_computed_again(made, tmp_path, gone):
    bank, _ = made
    copied = copy_bank(bank, tmp_path)
    before, paid = read_files(copied.store), read_receipts(copied.store)
    lost = next(name for name in copied.store.folder.names("events") if f"-{gone}" in name)
    copied.store.folder.remove(f"events/{lost}")
    train_and_score_proxies(copied)
    assert read_files(copied.store) == before
    changed = {name for name, content in read_receipts(copied.store).items() if content != paid[name]}
    assert changed == {lost.replace(".parquet", ".json")}


def test_one_from_training_trains_its_original_again_to_the_same_bits_and_changes_nothing_else(made, tmp_path):
    bank, _ = made
    copied = copy_bank(bank, tmp_path)
    before, paid = read_files(copied.store, ("events", "scores", "weights", "outputs")), read_receipts(copied.store)
    [key, _] = compute_original_keys(bank)
    copied.store.folder.remove(f"events/{key}-curvature-rademacher.parquet")
    summary, _ = train_and_score_proxies(copied)
    assert read_files(copied.store, ("events", "scores", "weights", "outputs")) == before
    changed = {name for name, content in read_receipts(copied.store).items() if content != paid[name]}
    assert changed == {f"{key}-curvature-rademacher.json", "original-00000.json"}
    assert summary.differing_originals == {}


def test_proxies_requested_later_join_the_stored_ones(tmp_path):
    first, _ = open_small_bank(tmp_path, proxies=("aum", "inversion"))
    train_and_score_proxies(first)
    before = read_files(first.store, ("events", "weights"))
    bank, _ = open_small_bank(tmp_path, proxies=("el2n",), inversion_candidates=5)
    _, scores = train_and_score_proxies(bank)
    after = read_files(bank.store, ("events", "weights"))
    assert {name for name in after if name not in before} == {
        f"events/{key}-el2n.parquet" for key in compute_original_keys(bank)
    }
    assert all(after[name] == content for name, content in before.items())
    assert {"aum", "el2n", "inversion_psnr"} <= set(scores)
    stored = read_stored_inversions(bank.store)
    assert stored == {"inversion": make_inversion_options(first)}  # not of the run that did not request it
    assert make_inversion_options(first) != make_inversion_options(bank)
    assert set(sum_proxy_seconds(bank.store, stored)) == {"aum", "el2n", "inversion"}


def test_what_is_of_another_training_than_the_stored_weights_is_named_everywhere(tmp_path):
    """A bank that was begun on other hardware: other weights lie under the same key."""
    bank, shared = open_small_bank(tmp_path, proxies=("aum",))
    keys = compute_original_keys(bank)
    other = build_model(bank.store, "other", 1, CPU)
    bank.store.write_weights(keys[0], other.state_dict())
    outcome = estimate(bank, SerialPool(), lambda done, total, line: None)
    assert outcome.training.differing_originals == {"original-00000": ["aum", "events"]}
    # the outputs are those of the stored weights, whatever was trained for the proxy
    data, _ = load_on_device(bank.store, shared.images, shared.labels, other, read_recipe(bank.store), CPU)
    logits = predict_logits(other, read_recipe(bank.store), data, len(data)).numpy()
    np.testing.assert_allclose(bank.store.read_logits(keys[0]), logits, rtol=1e-4, atol=1e-4)
    # a later command, which trains nothing, says it too: in the tables, the scores' metadata and the summary
    again, _ = open_small_bank(tmp_path, proxies=("aum", "centroid-distance"))
    outcome = estimate(again, SerialPool(), lambda done, total, line: None)
    assert outcome.training.differing_originals == {"original-00000": ["aum", "events"]}
    console = Console(width=200, record=True, file=io.StringIO())
    bank_tables.print_result(console, outcome, "store")
    output = console.export_text()
    assert output.count("not the same bits 1 original, first original-00000: trained again for aum, events,") == 1
    assert "aum (trained again)" in output
    assert "centroid-distance (trained again)" not in output
    for score, originals in {
        "aum": b"original-00000",
        "events_confidence": b"original-00000",
        "centroid_distance": None,
        "final_loss": None,
    }.items():
        assert bank.store.read_score(score).schema.metadata.get(b"trained_again") == originals
    summary = json.loads(bank.store.folder.read("reports/summary.json"))
    assert summary["originals_trained_again"] == {"original-00000": ["aum", "events"]}
    # a proxy of the stored weights again is no longer named
    for name in (f"events/{keys[0]}-aum.parquet", f"weights/{keys[0]}.safetensors"):
        bank.store.folder.remove(name)
    train_and_score_proxies(again)
    assert read_differing_originals(bank.store) == {"original-00000": ["events"]}


def network_with_dropout(shape, n_classes):
    return Classifier(
        nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), 16), nn.ReLU(), nn.Dropout(0.2)),
        nn.Linear(16, n_classes),
    )


def test_a_network_with_dropout_is_trained_again_to_the_same_bits_for_a_proxy(tmp_path):
    bank, shared = open_small_bank(tmp_path, arch=f"{__name__}:network_with_dropout", recipe="digits", epochs=1)
    job = OriginalJob(store=bank.store.url, index=0)
    run_job(job, shared)
    torch.rand(3)  # whatever the process has drawn since
    [receipt] = run_job(replace(job, proxies=("aum", "el2n")), shared)
    assert not receipt["differs"]
    assert read_differing_originals(bank.store) == {}


class Dies(SerialPool):
    """A driver that is killed after so many jobs."""

    def __init__(self, after):
        super().__init__()
        self.left = after

    def run(self, fn, jobs, shared=None):
        for each in super().run(fn, jobs, shared):
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
            yield each


def test_a_run_that_is_killed_goes_on_to_the_same_bytes_and_counts_no_time_twice(made, tmp_path):
    bank, _ = made
    for after in (1, 3, 4):  # the second original, and twice within the proxies
        fresh, _ = open_small_bank(tmp_path)
        with pytest.raises(KeyboardInterrupt):
            train_and_score_proxies(fresh, Dies(after))
    fresh, _ = open_small_bank(tmp_path)
    train_and_score_proxies(fresh)
    assert read_files(fresh.store, ("events", "weights", "outputs")) == read_files(
        bank.store, ("events", "weights", "outputs")
    )
    scores = read_files(fresh.store, ("scores",))
    assert scores == {name: content for name, content in read_files(bank.store).items() if name in scores}
    seconds = sum_proxy_seconds(fresh.store, dict.fromkeys(INVERSIONS, make_inversion_options(bank)))
    assert {name: set(by_key) for name, by_key in seconds.items()} == {
        name: set(compute_original_keys(bank)) for name in PROXIES
    }
    # an original, eight files, two parts of each inversion, and two models of halves
    assert len(read_receipts(fresh.store)) == 2 * (1 + 8 + 2 * 2 + 2)


def test_fine_tuning_that_diverges_fails_by_name_and_is_tried_again(tmp_path, monkeypatch):
    bank, _ = open_small_bank(tmp_path, proxies=("holdout", "aum"))
    with monkeypatch.context() as at_first:
        at_first.setitem(HOLDOUT_CONFIGS, "holdout", replace(HOLDOUT_CONFIGS["holdout"], lr=1e30))
        summary, scores = train_and_score_proxies(bank)
        assert set(summary.failed) == {"original-00000-holdout", "original-00001-holdout"} == set(bank.store.failures())
        assert "fine-tuning on held-out images diverged at lr 1e+30" in summary.failed["original-00000-holdout"]
        assert set(scores) == {"aum"}
    summary, scores = train_and_score_proxies(bank)
    assert summary.failed == {} == bank.store.failures()
    assert set(scores) == {"holdout", "aum"}


def test_a_proxy_of_a_missing_part_is_missing(made, tmp_path):
    bank = copy_bank(made[0], tmp_path)
    [key, _] = compute_original_keys(bank)
    options = make_inversion_options(bank)
    assert read_proxy(bank.store, key, "inversion", options) is not None
    assert read_proxy(bank.store, key, "inversion", None) is None
    bank.store.folder.remove(f"events/{key}-{options.ending}-000064.parquet")
    assert read_proxy(bank.store, key, "inversion", options) is None


def test_jobs_that_are_done_are_not_run_again(made):
    bank, _ = made
    jobs = build_proxy_jobs(
        bank.store, bank.splits, PROXIES, dict(enumerate(compute_original_keys(bank))), make_inversion_options(bank)
    )
    assert len(jobs) == 2 * (2 + 1 + 2 * 2 + 2)
    assert compute_missing_proxies(bank.store, jobs, build_shared_data(bank.splits, None), Dies(0)) == {}


def test_the_seconds_of_an_inversion_are_the_sum_of_its_parts(made):
    bank, outcome = made
    store = bank.store
    stored = read_stored_inversions(store)
    [key, _] = compute_original_keys(bank)
    parts = [r["seconds"] for r in store.receipts().values() if r.get("proxy") == "inversion" and r["key"] == key]
    assert len(parts) == 2
    assert sum_proxy_seconds(store, stored)["inversion"][key] == pytest.approx(sum(parts))
    assert "inversion" not in sum_proxy_seconds(store, {})
    assert outcome.proxy_s["inversion"] == pytest.approx(
        np.median([*sum_proxy_seconds(store, stored)["inversion"].values()])
    )
    assert all(s > 0 for s in outcome.proxy_s.values())


def test_training_and_proxies_together_take_no_longer_than_the_job(tmp_path, monkeypatch):
    """A clock that moves only while a proxy is taken: 10 s at each of 3 epochs, and none of it is training."""
    clock = [0.0]

    class Slow(EpochMean):
        def __call__(self, epoch):
            super().__call__(epoch)
            clock[0] += 10

    bank, shared = open_small_bank(tmp_path)
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    monkeypatch.setattr("memscore.proxies.collectors.track_area_under_margin", lambda *_: Slow(lambda: np.zeros(200)))
    [receipt] = run_job(OriginalJob(store=bank.store.url, index=0, proxies=("aum",)), shared)
    assert receipt["seconds"] == 0
    assert sum_proxy_seconds(bank.store, {})["aum"] == {receipt["key"]: 30}


@pytest.mark.slow
@pytest.mark.ray
def test_a_ray_pool_stores_the_same_bytes_as_this_process(made, tmp_path):
    bank, _ = made
    flags = f"{SMALL} --proxies all holdout-test --pool ray --workers 2 --store {tmp_path}/ray"
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-m", "memscore.estimate", *flags.split()],
        env=plain | {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert read_files(Store.open(f"{tmp_path}/ray")) == read_files(bank.store)
    there, here = (pq.read_table(f"{place}/scores.parquet") for place in (f"{tmp_path}/ray", bank.store.url))
    assert there.equals(here)
