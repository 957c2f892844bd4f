"""What a run tells a Ray cluster's metrics: names, what they say, and the numbers of a moment."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from memscore.monitoring.heartbeat import Heartbeat
from memscore.store.manifest import Manifest

PREFIX = "memscore"
Table = Mapping[str, tuple[str, str | None]]

COUNTERS: Table = {
    "models_trained_total": ("models of arms that this run put on file", None),
    "models_failed_total": ("models, originals and proxies of this run that have no result", None),
    "models_diverged_total": ("models of this run whose numbers were not finite", None),
    "retries_total": ("jobs that a worker, a node, memory or a deadline ended, and that were tried again", "kind"),
    "bytes_written_total": ("bytes of the shards that this run put on file", None),
}
"""Counters: name -> what is counted, and the tag that tells one series from another, if there is one."""

GAUGES: Table = {
    "models": ("models of an arm on file", "arm"),
    "models_planned": ("models of an arm that were asked for", "arm"),
    "models_to_do": ("models that this run has not done yet", None),
    "memorization_rmse": ("root mean square error of memorization that the models of an arm leave", "arm"),
    "workers": ("jobs that may run at once", None),
    "workers_busy": ("jobs that run", None),
    "models_per_hour": ("models of arms, over the last rounds", None),
    "eta_seconds": ("until all models of arms are done, at that rate", None),
}
"""Gauges, in the same form."""

Values = Mapping[str, float | Mapping[str, float]]


class Publisher(Protocol):
    """What takes the numbers; cluster/metrics.py does."""

    def publish(self, counters: Values, gauges: Values) -> None:
        """Bring the metrics to these values."""


def describe_metrics(manifest: Manifest) -> tuple[str, str, Table, Table]:
    """What the metrics of a bank's run are made with.

    Args:
        manifest: of the bank.

    Returns:
        The prefix of every name; the run: data, architecture and 8 digits of the bank's identity; counters; gauges.
    """
    parts = (Path(manifest.data).name or "data", manifest.architecture, manifest.digest[:8])
    return PREFIX, "-".join(re.sub(r"[^A-Za-z0-9._]+", "-", part) for part in parts), COUNTERS, GAUGES


def compute_counters(beat: Heartbeat) -> Values:
    """The counters at one moment; those with a tag by its values."""
    return {
        "models_trained_total": beat.trained,
        "models_failed_total": beat.failed,
        "models_diverged_total": beat.diverged,
        "retries_total": beat.retried,
        "bytes_written_total": beat.bytes,
    }


def compute_gauges(beat: Heartbeat) -> Values:
    """The gauges at one moment; what is unknown is left out."""
    known: dict[str, float | None] = {
        "models_to_do": beat.total - beat.done if beat.phase == "models" else 0,
        "workers": beat.workers,
        "workers_busy": beat.busy,
        "models_per_hour": None if beat.rate_per_s is None else 3600 * beat.rate_per_s,
        "eta_seconds": beat.eta_s if beat.phase == "models" else 0,
    }
    by_arm = {"models": beat.models, "models_planned": beat.planned, "memorization_rmse": beat.rmse}
    return {name: value for name, value in known.items() if value is not None} | {
        name: {arm: float(value) for arm, value in values.items() if value is not None}
        for name, values in by_arm.items()
    }
