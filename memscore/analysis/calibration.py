"""Decisions of an audit: what a threshold does to models of the bank, whose members are known.

The audited model's members are not known, so its false positive rate is not either. Each model of the bank is a target
with the others as shadow models: their rates at a threshold are what to expect of a model of the same recipe. The
audited model is attacked with one or two more shadow models than they are, which makes its scores a little sharper.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from memscore.analysis.shadow_targets import ShadowTargets
from memscore.pipeline.attack_decisions import compute_decisions, read_groups, summarize_rates
from memscore.pipeline.outlying_models import compute_outlying_models
from memscore.statistics.calibrated_threshold import DecisionRates, count_flagged
from memscore.statistics.group_leak import GroupLeak, compute_group_leaks, compute_share
from memscore.statistics.intervals import Interval
from memscore.statistics.outlying_models import Deviation
from memscore.store.json_records import replace_nonfinite
from memscore.store.store import Store


@dataclass(frozen=True, kw_only=True)
class AuditedThreshold:
    """A threshold of LiRA's online ratio, what to expect of it, and what it gives for the audited model.

    Attributes:
        nominal_fpr: false positive rate that it was set for; None for the threshold of the audit itself.
        threshold: examples above it are flagged; NaN where the bank's models have too few non-members for the rate.
        expected: rates over the bank's models as targets.
        flagged: number of examples.
        of: examples with a score.
        realised_fpr: share of the flagged among non-members; None where the members are not known.
        non_members: their number; None where the members are not known.
    """

    nominal_fpr: float | None
    threshold: float
    expected: DecisionRates
    flagged: int
    of: int
    realised_fpr: Interval | None
    non_members: int | None


@dataclass(frozen=True, kw_only=True, eq=False)
class AuditDecisions:
    """Decisions on the audited model.

    Attributes:
        thresholds: that of the audit first, then those set on the bank's models.
        groups: kind of group -> leakage of each of its groups, at the first calibrated threshold; empty where the
            members are not known.
        outlying: names of the bank's models that are far from the others -> in which measures.
    """

    thresholds: list[AuditedThreshold]
    groups: dict[str, list[GroupLeak]]
    outlying: dict[str, tuple[Deviation, ...]]


def assess_decisions(
    store: Store,
    arm: str,
    indices: Sequence[int],
    targets: ShadowTargets,
    scores: np.ndarray,
    threshold: float,
    member: np.ndarray | None,
) -> AuditDecisions:
    """Rate decisions on an audited model; scores are its online LiRA, float [n_train], member the truth if known."""
    decisions, _ = compute_decisions(targets.scores, targets.member, read_groups(store), threshold)
    assert decisions.given is not None  # for mypy: they were rated at the threshold
    thresholds = [assess_threshold(None, threshold, decisions.given, scores, member)]
    thresholds += [assess_threshold(t.fpr, t.threshold, t.rates, scores, member) for t in decisions.thresholds]
    return AuditDecisions(
        thresholds=thresholds,
        groups={}
        if member is None
        else {
            kind: compute_group_leaks(scores[None], member[None], numbers, decisions.decided_at)
            for kind, numbers in read_groups(store).items()
        },
        outlying=compute_outlying_models(store, arm, indices),
    )


def assess_threshold(
    nominal_fpr: float | None, threshold: float, expected: DecisionRates, scores: np.ndarray, member: np.ndarray | None
) -> AuditedThreshold:
    """Count what a threshold flags of the audited model."""
    # without the truth all examples are counted as non-members, and no rate is given
    held = np.zeros(len(scores), bool) if member is None else member
    false_positives, negatives, true_positives, positives = count_flagged(scores[None], held[None], threshold)[
        0
    ].tolist()
    return AuditedThreshold(
        nominal_fpr=nominal_fpr,
        threshold=threshold,
        expected=expected,
        flagged=false_positives + true_positives,
        of=negatives + positives,
        realised_fpr=None if member is None else compute_share(false_positives, negatives),
        non_members=None if member is None else negatives,
    )


def encode_decisions(decisions: AuditDecisions) -> str:
    """Encode the decisions for the metadata of the audit's table; undefined is null."""
    return json.dumps(replace_nonfinite(build_decisions_record(decisions)))


def build_decisions_record(decisions: AuditDecisions) -> dict[str, Any]:
    """Build the record of the decisions; undefined is NaN."""
    return {
        "thresholds": [asdict(each) | {"expected": summarize_rates(each.expected)} for each in decisions.thresholds],
        "groups": {kind: [asdict(leak) for leak in leaks] for kind, leaks in decisions.groups.items()},
        "outlying_models": {
            name: [asdict(deviation) for deviation in deviations] for name, deviations in decisions.outlying.items()
        },
    }
