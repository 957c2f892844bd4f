"""Costs from the receipts: one slow run moves no median, and a part that was not timed does not count as zero."""

import shutil

import numpy as np
import pytest

from memscore.pipeline.originals import compute_proxy_seconds, compute_training_seconds, sum_model_seconds
from memscore.proxies.storage import InversionOptions
from memscore.store.shards import format_model_name
from memscore.store.store import Store
from tests.fixtures.banks import ARM, bank
from tests.fixtures.command import SERIAL, SMALL, here


@pytest.fixture
def store(tmp_path):
    store = bank(tmp_path / "bank")
    for index, seconds in enumerate((9.0, 100.0, 10.0)):
        store.write_receipt(f"original-{index:05d}", {"seconds": seconds})
        store.write_receipt(f"key{index}-aum", {"key": f"key{index}", "ending": "aum", "seconds": seconds / 10})
    return store


def test_one_slow_original_moves_neither_the_training_nor_its_proxies(store):
    assert compute_training_seconds(store) == 10
    assert compute_proxy_seconds(store, None) == {"aum": 1.0}


def test_an_inversion_with_other_settings_is_left_out(store):
    options = InversionOptions(candidates=5, iterations=3, total_variation=0.1)
    for part in options.list_files(40):
        store.write_receipt(f"key0-{part}", {"key": "key0", "ending": part, "seconds": 7.0})
    assert compute_proxy_seconds(store, None) == {"aum": 1.0}
    assert compute_proxy_seconds(store, options) == {"aum": 1.0, "inversion": 7.0}


def test_a_run_reads_each_receipt_once_at_its_end(small, tmp_path, monkeypatch, capsys):
    """On an object store each is a request, and a large bank has thousands."""
    shutil.copytree(small, tmp_path / "bank")
    calls, receipts = [], Store.receipts
    monkeypatch.setattr(Store, "receipts", lambda store: calls.append(store) or receipts(store))
    assert here(f"{SMALL} {SERIAL} --store {tmp_path / 'bank'}", capsys)[0] == 0
    assert len(calls) == 1


def test_a_bank_costs_what_its_models_took_together(store):
    for index, seconds in enumerate((2.0, None, 3.0)):  # an imported model has no time
        store.write_receipt(format_model_name(ARM["name"], index), {"seconds": seconds})
    assert sum_model_seconds(store, ARM["name"], [0, 1, 2, 3]) == 5
    assert sum_model_seconds(store, ARM["name"], [0]) == 2


def test_without_originals_nothing_is_known_of_their_training(tmp_path):
    assert np.isnan(compute_training_seconds(bank(tmp_path / "other")))
