"""Metrics of a run for Prometheus: names, descriptions, and values from a heartbeat."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from memscore.monitoring.heartbeat import Heartbeat
from memscore.store.manifest import Manifest
from memscore.visible_text import escape_controls

PREFIX = "memscore"
MetricTable = Mapping[str, tuple[str, str | None]]

COUNTERS: MetricTable = {
    "models_trained_total": ("models of arms that this run stored", None),
    "models_failed_total": ("models, originals and proxies of this run without a result", None),
    "models_diverged_total": ("models of this run whose numbers were not finite", None),
    "retries_total": (
        "jobs that a worker, a node, a GPU, memory, a deadline or an exception ended, and that ran again",
        "kind",
    ),
    "bytes_written_total": ("bytes of the shards that this run stored", None),
}
"""Counters: name -> description, and the tag that distinguishes the series, if there is one."""

GAUGES: MetricTable = {
    "models": ("stored models of an arm", "arm"),
    "models_planned": ("models of an arm that were requested", "arm"),
    "models_to_do": ("models that this run has not done yet", None),
    "memorization_rmse": (
        "root mean square error of memorization (the blend, where defined) with the models of an arm",
        "arm",
    ),
    "workers": ("jobs that can run at once", None),
    "workers_busy": ("jobs that run", None),
    "models_per_hour": ("models of arms, over the last rounds", None),
    "eta_seconds": ("until all models of arms are done, at that rate", None),
}
"""Gauges, in the same form."""

MetricValues = Mapping[str, float | Mapping[str, float]]


class Publisher(Protocol):
    """Publishes the values; cluster/metrics.py conforms to it."""

    def publish(self, totals: MetricValues, levels: MetricValues) -> None:
        """Set the metrics to these values."""


def describe_metrics(manifest: Manifest) -> tuple[str, str, MetricTable, MetricTable]:
    """Describe the metrics of a bank's run: the prefix of every name, the run's name, counters and gauges."""
    # data, architecture and 8 digits of the bank's identity
    parts = (Path(manifest.data).name or "data", manifest.architecture, manifest.digest[:8])
    return PREFIX, "-".join(re.sub(r"[^A-Za-z0-9._]+", "-", part) for part in parts), COUNTERS, GAUGES


def compute_counters(heartbeat: Heartbeat) -> MetricValues:
    """Compute the counters of a heartbeat; one with a tag is a mapping from the tag's values."""
    return {
        "models_trained_total": heartbeat.trained,
        "models_failed_total": heartbeat.failed,
        "models_diverged_total": heartbeat.diverged,
        "retries_total": heartbeat.retried,
        "bytes_written_total": heartbeat.bytes,
    }


def compute_gauges(heartbeat: Heartbeat) -> MetricValues:
    """Compute the gauges of a heartbeat; unknown values are left out, since a metric has no null."""
    # totals and rates are of the models; in the phases after them no model is left to do
    totals: dict[str, float | None] = {
        "models_to_do": heartbeat.total - heartbeat.done if heartbeat.phase == "models" else 0,
        "workers": heartbeat.workers,
        "workers_busy": heartbeat.busy,
        "models_per_hour": None if heartbeat.rate_per_s is None else 3600 * heartbeat.rate_per_s,
        "eta_seconds": heartbeat.eta_s if heartbeat.phase == "models" else 0,
    }
    by_arm = {"models": heartbeat.models, "models_planned": heartbeat.planned, "memorization_rmse": heartbeat.rmse}
    return {name: value for name, value in totals.items() if value is not None} | {
        name: {escape_controls(arm): float(value) for arm, value in values.items() if value is not None}
        for name, values in by_arm.items()
    }
