"""How often a sweep reads a store: what does not change is read once, not once a trial."""

import os
from collections import Counter
from pathlib import Path

import pytest

from memscore.store import example_ids
from memscore.store.filesystem import Folder
from tests.fixtures.sweeps import SCORE, make_config, run_sweep

READS = ("read", "open", "entries", "_exists_once")


@pytest.fixture
def counts(monkeypatch):
    """Number of requests by method and by the first part of the path."""
    counts = Counter()

    def count_calls(method):
        function = getattr(Folder, method)

        def count_and_call(folder, relpath="", *arguments, **more):
            counts[method, relpath.split("/")[0]] += 1
            return function(folder, relpath, *arguments, **more)

        monkeypatch.setattr(Folder, method, count_and_call)

    for method in READS:
        count_calls(method)
    return counts


def test_a_sweep_reads_shards_and_examples_once(store, counts, monkeypatch):
    monkeypatch.setattr(example_ids, "_ids", {})
    shards = list((Path(store) / "shards").iterdir())
    for path in shards:  # a folder that changed within the last seconds is read again each time
        os.utime(path, (1e9, 1e9))
    _, result = run_sweep(make_config(store, forget=f"{SCORE}:high"))
    trials = len(result.judged_rows) + len(result.tuning_rows)
    assert trials >= 12
    assert counts["open", "shards"] <= len(shards) + 3  # once, and to tell whose manifest it is
    assert counts["read", "examples.parquet"] <= 3
    # A worker opens the store for each job: that is how it learns that its node does not see it.
    assert counts["read", "manifest.json"] <= 2 * trials
    assert counts["read", "scores"] <= 10
    assert sum(counts.values()) <= 18 * trials
