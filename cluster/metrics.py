"""Counters and gauges of one run for the Ray dashboard, Prometheus and Grafana, published by its driver.

    telemetry = Telemetry("memscore", "digits-mlp", totals={"failed_total": ("jobs without a result", None)}, ...)
    telemetry.publish({"failed_total": 2}, {"workers": 8})

Each series begins with `ray_`, the prefix given and `_`, and has the tag `run`; a series with a tag of its own has one
value for each of the tag's. Tags must be few: never an id of a job. A series ends with the driver's process.
"""

import math
from collections.abc import Mapping

from ray.util.metrics import Counter, Gauge

MetricTable = Mapping[str, tuple[str, str | None]]
MetricValues = Mapping[str, float | Mapping[str, float]]


class Telemetry:
    """The metrics of one driver.

    Args:
        prefix: of every name.
        run: the value of the tag `run`.
        totals: counters, name -> what is counted, and the name of a further tag or None.
        levels: gauges, in the same form.
    """

    def __init__(self, prefix: str, run: str, totals: MetricTable, levels: MetricTable) -> None:
        self._totals = {name: (_make_metric(Counter, prefix, name, run, *row), row[1]) for name, row in totals.items()}
        self._levels = {name: (_make_metric(Gauge, prefix, name, run, *row), row[1]) for name, row in levels.items()}
        self._told: dict[tuple[str, str], float] = {}  # counters, as they were told last

    def publish(self, counters: MetricValues, gauges: MetricValues) -> None:
        """Bring the metrics to these values.

        Args:
            counters: counters since the run began; what did not grow is left alone.
            gauges: gauges; what is not finite is left as it was.

        Raises:
            ValueError: a name that is not in the table it was made with, or one value where a tag wants several.
        """
        for name, value in counters.items():
            metric, tag = _find_metric(name, self._totals)
            for label, now in _split_by_label(name, value, tag).items():
                grown = now - self._told.get((name, label), 0)
                if grown > 0:
                    metric.inc(grown, {tag: label} if tag else None)
                    self._told[name, label] = now
        for name, value in gauges.items():
            metric, tag = _find_metric(name, self._levels)
            for label, now in _split_by_label(name, value, tag).items():
                if math.isfinite(now):
                    metric.set(now, {tag: label} if tag else None)


def _make_metric(kind: type, prefix: str, name: str, run: str, what: str, tag: str | None) -> Counter | Gauge:
    keys = ("run",) if tag is None else ("run", tag)
    metric = kind(f"{prefix}_{name}", description=what, tag_keys=keys)
    metric.set_default_tags({"run": run})
    return metric


def _find_metric(
    name: str, table: Mapping[str, tuple[Counter | Gauge, str | None]]
) -> tuple[Counter | Gauge, str | None]:
    if name not in table:
        raise ValueError(f"no metric {name!r} was announced (known: {', '.join(table)}); add it to the table")
    return table[name]


def _split_by_label(name: str, value: float | Mapping[str, float], tag: str | None) -> Mapping[str, float]:
    """Values by those of the tag; one without a name where there is no tag."""
    if isinstance(value, Mapping) != (tag is not None):
        wants = "one number" if tag is None else f"one number for each {tag}"
        raise ValueError(f"the metric {name!r} wants {wants}, got {value!r}")
    return value if isinstance(value, Mapping) else {"": value}
