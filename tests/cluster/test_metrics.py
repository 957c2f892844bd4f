"""Metrics of a driver: counters grow by what is new, gauges have their last value, names and tags are declared."""

import pytest

from cluster import metrics
from cluster.metrics import Telemetry

COUNTERS = {"failed_total": ("what failed", None), "retries_total": ("what was tried again", "kind")}
GAUGES = {"workers": ("how many", None), "error": ("how large", "arm")}


class Recorded:
    """A metric that records its updates."""

    published = None

    def __init__(self, name, description, tag_keys):
        self.name, self.keys = name, tag_keys

    def set_default_tags(self, tags):
        assert set(tags) <= set(self.keys)

    def inc(self, value, tags):
        assert value > 0  # Ray refuses 0
        self.published.append((self.name, value, tags))

    set = inc


@pytest.fixture
def published(monkeypatch):
    monkeypatch.setattr(Recorded, "published", [])
    monkeypatch.setattr(metrics, "Counter", Recorded)
    monkeypatch.setattr(metrics, "Gauge", Recorded)
    return Recorded.published


def test_a_counter_grows_by_what_is_new(published):
    metrics = Telemetry("memscore", "run", COUNTERS, GAUGES)
    for failed, retried in ((0, {}), (2, {"node": 1}), (2, {"node": 1, "worker": 4}), (5, {"node": 2, "worker": 4})):
        metrics.publish({"failed_total": failed, "retries_total": retried}, {})
    assert published == [
        ("memscore_failed_total", 2, None),
        ("memscore_retries_total", 1, {"kind": "node"}),
        ("memscore_retries_total", 4, {"kind": "worker"}),
        ("memscore_failed_total", 3, None),
        ("memscore_retries_total", 1, {"kind": "node"}),
    ]


def test_a_gauge_has_its_last_finite_value(published):
    metrics = Telemetry("memscore", "run", COUNTERS, GAUGES)
    metrics.publish({}, {"workers": 8, "error": {"a": 0.5, "b": float("nan")}})
    metrics.publish({}, {"workers": 4})
    assert published == [
        ("memscore_workers", 8, None),
        ("memscore_error", 0.5, {"arm": "a"}),
        ("memscore_workers", 4, None),
    ]


@pytest.mark.parametrize(
    ("counters", "gauges", "line"),
    [
        ({"failed": 1}, {}, "no metric 'failed' was declared"),
        ({"retries_total": 1}, {}, "needs one number for each kind"),
        ({}, {"workers": {"a": 1}}, "needs one number, got"),
    ],
)
def test_what_was_not_declared_is_refused(published, counters, gauges, line):
    with pytest.raises(ValueError, match=line):
        Telemetry("memscore", "run", COUNTERS, GAUGES).publish(counters, gauges)
