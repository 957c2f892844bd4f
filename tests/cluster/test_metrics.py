"""Metrics of a driver: counters grow by what is new, gauges are what was said last, names and tags are announced."""

import pytest

from cluster import metrics
from cluster.metrics import Telemetry

TOTALS = {"failed_total": ("what failed", None), "retries_total": ("what came again", "kind")}
LEVELS = {"workers": ("how many", None), "error": ("how large", "arm")}


class Recorded:
    """A metric that keeps what it is told."""

    told = None

    def __init__(self, name, description, tag_keys):
        self.name, self.keys = name, tag_keys

    def set_default_tags(self, tags):
        assert set(tags) <= set(self.keys)

    def inc(self, value, tags):
        assert value > 0  # Ray refuses 0
        self.told.append((self.name, value, tags))

    set = inc


@pytest.fixture
def told(monkeypatch):
    monkeypatch.setattr(Recorded, "told", [])
    monkeypatch.setattr(metrics, "Counter", Recorded)
    monkeypatch.setattr(metrics, "Gauge", Recorded)
    return Recorded.told


def test_a_counter_grows_by_what_is_new(told):
    metrics = Telemetry("memscore", "run", TOTALS, LEVELS)
    for failed, retried in ((0, {}), (2, {"node": 1}), (2, {"node": 1, "worker": 4}), (5, {"node": 2, "worker": 4})):
        metrics.publish({"failed_total": failed, "retries_total": retried}, {})
    assert told == [
        ("memscore_failed_total", 2, None),
        ("memscore_retries_total", 1, {"kind": "node"}),
        ("memscore_retries_total", 4, {"kind": "worker"}),
        ("memscore_failed_total", 3, None),
        ("memscore_retries_total", 1, {"kind": "node"}),
    ]


def test_a_gauge_is_what_was_said_last_and_never_what_is_undefined(told):
    metrics = Telemetry("memscore", "run", TOTALS, LEVELS)
    metrics.publish({}, {"workers": 8, "error": {"a": 0.5, "b": float("nan")}})
    metrics.publish({}, {"workers": 4})
    assert told == [("memscore_workers", 8, None), ("memscore_error", 0.5, {"arm": "a"}), ("memscore_workers", 4, None)]


@pytest.mark.parametrize(
    ("totals", "levels", "line"),
    [
        ({"failed": 1}, {}, "no metric 'failed' was announced"),
        ({"retries_total": 1}, {}, "wants one number for each kind"),
        ({}, {"workers": {"a": 1}}, "wants one number, got"),
    ],
)
def test_what_was_not_announced_is_refused(told, totals, levels, line):
    with pytest.raises(ValueError, match=line):
        Telemetry("memscore", "run", TOTALS, LEVELS).publish(totals, levels)
