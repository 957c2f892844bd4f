"""Costs from the receipts: one slow run moves no median, and a part that was not timed does not count as zero."""

import io
import shutil

import numpy as np
import pytest
from rich.console import Console

from cluster.pool import SerialPool
from memscore.pipeline.jobs import OriginalJob, run_job
from memscore.pipeline.originals import (
    compute_event_seconds,
    compute_proxy_seconds,
    compute_training_seconds,
    sum_model_seconds,
)
from memscore.pipeline.runner import estimate
from memscore.proxies.storage import InversionOptions
from memscore.store.shards import format_model_name
from memscore.store.store import Store
from memscore.tables import bank_tables
from memscore.training.learning_events import LearningEvents
from memscore.units import format_duration
from tests.fixtures.banks import ARM, bank, receipt
from tests.fixtures.command import SERIAL, SMALL, here
from tests.fixtures.proxied import open_small_bank

KEYS = [digit * 64 for digit in "012"]


@pytest.fixture
def store(tmp_path):
    store = bank(tmp_path / "bank")
    for index, seconds in enumerate((9.0, 100.0, 10.0)):
        name = f"original-{index:05d}"
        store.write_receipt(name, receipt(name, seconds, key=KEYS[index]))
        store.write_receipt(f"{KEYS[index]}-aum", {"key": KEYS[index], "ending": "aum", "seconds": seconds / 10})
    return store


def test_one_slow_original_moves_neither_the_training_nor_its_proxies(store):
    assert compute_training_seconds(store) == 10
    assert compute_proxy_seconds(store, {}) == {"aum": 1.0}


def test_an_inversion_with_other_settings_is_left_out(store):
    options = InversionOptions(candidates=5, iterations=3, total_variation=0.1)
    for part in options.list_files(40):
        store.write_receipt(f"{KEYS[0]}-{part}", {"key": KEYS[0], "ending": part, "seconds": 7.0})
    assert compute_proxy_seconds(store, {}) == {"aum": 1.0}
    assert compute_proxy_seconds(store, {"inversion": options}) == {"aum": 1.0, "inversion": 7.0}


def test_a_run_reads_each_receipt_once_at_its_end(small, tmp_path, monkeypatch, capsys):
    """On an object store each is a request, and a large bank has thousands."""
    shutil.copytree(small, tmp_path / "bank")
    calls, receipts = [], Store.receipts
    monkeypatch.setattr(Store, "receipts", lambda store: calls.append(store) or receipts(store))
    assert here(f"{SMALL} {SERIAL} --store {tmp_path / 'bank'}", capsys)[0] == 0
    assert len(calls) == 1


def test_a_bank_costs_what_its_models_took_together(store):
    for index, seconds in enumerate((2.0, None, 3.0)):  # an imported model has no time
        name = format_model_name(ARM["name"], index)
        store.write_receipt(name, receipt(name, seconds))
    assert sum_model_seconds(store, ARM["name"], [0, 1, 2, 3]) == 5
    assert sum_model_seconds(store, ARM["name"], [0]) == 2


def test_without_originals_nothing_is_known_of_their_training(tmp_path):
    assert np.isnan(compute_training_seconds(bank(tmp_path / "other")))


def test_an_original_s_receipt_has_the_seconds_of_its_learning_events(tmp_path, monkeypatch):
    """A clock that moves only while visits are counted, 2 s each time: neither the training nor an evaluation pass."""
    clock, calls, add = [0.0], [], LearningEvents.add

    def count_slowly(events, *visits):
        clock[0] += 2
        calls.append(events)
        add(events, *visits)

    monkeypatch.setattr(LearningEvents, "add", count_slowly)
    bank, shared = open_small_bank(tmp_path)
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    [receipt] = run_job(OriginalJob(store=bank.store.url, index=0, evaluate=True), shared)
    of_training = sum(events is calls[0] for events in calls)
    assert receipt["events_s"] == 2 * of_training > 0
    assert receipt["evaluation_events_s"] == 2 * (len(calls) - of_training) == 2 * 3  # three epochs
    assert receipt["seconds"] == 2 * len(calls)


def test_the_cost_table_has_learning_events_and_a_dash_where_a_receipt_is_from_before_they_were_timed(tmp_path):
    bank, _ = open_small_bank(tmp_path, proxies=(), evaluation_events=True)

    def read_rows():
        outcome = estimate(bank, SerialPool(), lambda done, total, line: None)
        console = Console(width=160, record=True, file=io.StringIO())
        bank_tables.print_result(console, outcome, "store")
        lines = console.export_text().splitlines()
        return outcome, {line.split("(")[0].strip(): line.split()[-3:] for line in lines if "(within training)" in line}

    outcome, rows = read_rows()
    assert set(rows) == set(outcome.event_s) == {"learning events", "events of evaluation passes"}
    seconds, share = outcome.event_s["learning events"], outcome.event_s["learning events"] / outcome.training_s
    assert 0 < share < 1
    assert rows["learning events"] == [*format_duration(seconds).split(), f"{100 * share:.1f}"]
    for name in ("original-00000", "original-00001"):
        stored = bank.store.read_receipt(name)
        bank.store.write_receipt(name, {key: value for key, value in stored.items() if key != "events_s"})
    outcome, rows = read_rows()
    assert np.isnan(outcome.event_s["learning events"])
    assert rows["learning events"][-2:] == ["-", "-"]
    assert float(rows["events of evaluation passes"][-1]) > 0


def test_originals_without_learning_events_have_no_row(store):
    assert compute_event_seconds(store) == {}
