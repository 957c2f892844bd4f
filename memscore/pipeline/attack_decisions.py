"""What an auditor asks of an attack on a bank: thresholds with their rates, repeated decisions, leakage by group.

All of it is computed from the scores of the targets that are in memory for the ROC curves, and costs no pass.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from memscore.statistics.calibrated_threshold import (
    RATES,
    CalibratedThreshold,
    DecisionRates,
    RepeatedDecisions,
    calibrate_threshold,
    compute_rates,
    count_decisions,
    count_flagged,
    summarize_decisions,
)
from memscore.statistics.group_leak import GroupLeak, compute_group_leaks
from memscore.store.parquet import to_table
from memscore.store.store import Store

DECISION_SCORE = "decision_agreement"


@dataclass(frozen=True, kw_only=True, eq=False)
class AttackDecisions:
    """Decisions by one score of an attack.

    Attributes:
        thresholds: for each of RATES, over targets.
        given: rates at a threshold that was given; None without one.
        decided_at: the threshold of `repeats` and `groups`: the first of `thresholds` that is defined, else 0.
        repeats: whether decisions hold from one target to another.
        groups: kind of group -> leakage of each of its groups.
    """

    thresholds: list[CalibratedThreshold]
    given: DecisionRates | None
    decided_at: float
    repeats: RepeatedDecisions
    groups: dict[str, list[GroupLeak]]


def compute_decisions(
    scores: np.ndarray, member: np.ndarray, groups: dict[str, np.ndarray], given: float | None = None
) -> tuple[AttackDecisions, dict[str, np.ndarray]]:
    """Set thresholds on the targets, decide by them, and compare groups; scores and member are [T, n].

    It returns the decisions, and columns [n] of the score that says in what share of the targets the decision on an
    example is right.
    """
    thresholds = [calibrate_threshold(scores, member, fpr) for fpr in RATES]
    decided_at = next((each.threshold for each in thresholds if not np.isnan(each.threshold)), 0.0)
    table = count_decisions(scores, member, decided_at)
    decisions = AttackDecisions(
        thresholds=thresholds,
        given=None if given is None else compute_rates(count_flagged(scores, member, given)),
        decided_at=decided_at,
        repeats=summarize_decisions(table),
        groups={kind: compute_group_leaks(scores, member, numbers, decided_at) for kind, numbers in groups.items()},
    )
    return decisions, table


def name_decision_score(score: str) -> str:
    """Name the score of an attack's decisions by the attack's first score.

    >>> name_decision_score("lira"), name_decision_score("lira_paper"), name_decision_score("rmia")
    ('decision_agreement', 'decision_agreement_paper', 'decision_agreement_rmia')
    """
    ending = score.removeprefix("lira").removeprefix("_")
    return f"{DECISION_SCORE}_{ending}" if ending else DECISION_SCORE


def read_groups(store: Store) -> dict[str, np.ndarray]:
    """Read class and cluster of each training example, int [n], -1 without one; kinds with one group are left out."""
    examples, clusters = store.examples().slice(0, store.manifest.split_sizes[0]), store.clusters()
    groups = {}
    if "label" in examples.column_names:
        # labels of an imported bank may be unknown
        groups["class"] = np.asarray(examples["label"].fill_null(-1).to_numpy(), np.int64)
    if clusters is not None:
        groups["cluster"] = clusters.astype(np.int64)
    return {kind: numbers for kind, numbers in groups.items() if len(np.unique(numbers[numbers >= 0])) > 1}


def summarize_rates(rates: DecisionRates) -> dict[str, Any]:
    """Build the record of the rates of decisions; an interval is value, lower and upper end."""
    return {
        "targets": rates.targets,
        "negatives": rates.negatives,
        "false_positives": rates.false_positives,
        "expected_fpr": list(asdict(rates.fpr).values()),
        "fpr_sd_over_targets": rates.fpr_sd,
        "tpr": list(asdict(rates.tpr).values()),
        "precision_at_prior": {
            f"{prior:g}": list(asdict(interval).values()) for prior, interval in rates.precision.items()
        },
    }


def summarize(decisions: AttackDecisions) -> dict[str, Any]:
    """Build the numbers for summary.json; undefined is NaN. Groups stand in a table of their own."""
    return {
        "thresholds": [
            {"fpr": each.fpr, "threshold": each.threshold, **summarize_rates(each.rates)}
            for each in decisions.thresholds
        ],
        "decided_at": decisions.decided_at,
        "decisions": asdict(decisions.repeats),
    }


def build_group_table(attacks: Sequence[tuple[str, AttackDecisions]]) -> pa.Table | None:
    """Build one row per attack, kind of group and group, the largest area first; None without groups."""
    rows = [
        (attack, kind, leak)
        for attack, decisions in attacks
        for kind, leaks in decisions.groups.items()
        for leak in leaks
    ]
    if not rows:
        return None
    columns: dict[str, np.ndarray] = {
        "attack": np.array([attack for attack, _, _ in rows], dtype=np.str_),
        "kind": np.array([kind for _, kind, _ in rows], dtype=np.str_),
    }
    for name in ("group", "examples", "targets", "members", "mean_score"):
        columns[name] = np.array([getattr(leak, name) for _, _, leak in rows])
    for name in ("auc", "tpr", "fpr"):
        intervals = [getattr(leak, name) for _, _, leak in rows]
        for ending, key in (("", "value"), ("_lo", "lo"), ("_hi", "hi")):
            columns[name + ending] = np.array([getattr(interval, key) for interval in intervals])
    return to_table(columns, {})
