"""Publish counters and gauges of one run for the Ray dashboard, Prometheus and Grafana, from its driver.

    telemetry = Telemetry("memscore", "digits-mlp", counters={"failed_total": ("jobs without a result", None)}, ...)
    telemetry.publish({"failed_total": 2}, {"workers": 8})

Each series begins with `ray_`, the given prefix and `_`, and has the tag `run`; a metric with a further tag has one
series for each value of that tag. Tags must have few values: never the id of a job. A series ends with the driver's
process.
"""

import math
from collections.abc import Mapping

from ray.util.metrics import Counter, Gauge

MetricTable = Mapping[str, tuple[str, str | None]]
MetricValues = Mapping[str, float | Mapping[str, float]]


class Telemetry:
    """The metrics of one driver: tables of name -> (description, name of a further tag or None)."""

    def __init__(self, prefix: str, run: str, counters: MetricTable, gauges: MetricTable) -> None:
        self._counters = {
            name: (_make_metric(Counter, prefix, name, run, *row), row[1]) for name, row in counters.items()
        }
        self._gauges = {name: (_make_metric(Gauge, prefix, name, run, *row), row[1]) for name, row in gauges.items()}
        # Ray's Counter only adds, and cannot be read: the totals passed on so far, by name and label
        self._published: dict[tuple[str, str], float] = {}

    def publish(self, counters: MetricValues, gauges: MetricValues) -> None:
        """Set counters, given as totals since the run began, and gauges, given as current values.

        A total that did not grow and a gauge that is not finite change nothing; an undeclared name raises ValueError.
        """
        for name, value in counters.items():
            metric, tag = _find_metric(name, self._counters)
            for label, total in _split_by_label(name, value, tag).items():
                increase = total - self._published.get((name, label), 0)
                if increase > 0:
                    metric.inc(increase, {tag: label} if tag else None)
                    self._published[name, label] = total
        # every gauge on every call, changed or not: Ray 2.60 drops a gauge with each scrape until it is set again
        for name, value in gauges.items():
            metric, tag = _find_metric(name, self._gauges)
            for label, level in _split_by_label(name, value, tag).items():
                if math.isfinite(level):
                    metric.set(level, {tag: label} if tag else None)


def _make_metric(kind: type, prefix: str, name: str, run: str, description: str, tag: str | None) -> Counter | Gauge:
    keys = ("run",) if tag is None else ("run", tag)
    metric = kind(f"{prefix}_{name}", description=description, tag_keys=keys)
    metric.set_default_tags({"run": run})
    return metric


def _find_metric(
    name: str, table: Mapping[str, tuple[Counter | Gauge, str | None]]
) -> tuple[Counter | Gauge, str | None]:
    if name not in table:
        raise ValueError(f"no metric {name!r} was declared (known: {', '.join(table)}); add it to the table")
    return table[name]


def _split_by_label(name: str, value: float | Mapping[str, float], tag: str | None) -> Mapping[str, float]:
    """Return the values by label; a single value has the label ""."""
    if isinstance(value, Mapping) != (tag is not None):
        needed = "one number" if tag is None else f"one number for each {tag}"
        raise ValueError(f"the metric {name!r} needs {needed}, got {value!r}")
    return value if isinstance(value, Mapping) else {"": value}
