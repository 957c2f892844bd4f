"""From a filled bank to one row an example: every score in a file of its own, and one wide table.

Everything here is a reduction over blocks of examples, all models in order, at most 256 MB at a time.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from memscore.estimators.attack_success import attack_success
from memscore.estimators.cscore import cscore, mean_over_fractions
from memscore.estimators.lira import lira_means, lira_pool, lira_scores
from memscore.estimators.memorization import bank_rmse, block_se, memorization_table, precision
from memscore.roc import TargetMean, over_targets
from memscore.score_fields import fields_of
from memscore.store import Store, shards_digest
from memscore.subsets import Arm, arm_from

Columns = dict[str, np.ndarray]

BYTES = 64 * 2**20  # of two blocks as read; the attack's float64 scores of a block take some three times as much
CURVE_BYTES = 64 * 2**20  # scores of whole targets, kept for the attack curves


@dataclass(frozen=True, kw_only=True)
class ArmScores:
    """What one arm of a bank says.

    Attributes:
        arm: the design.
        suffix: ends the names of its scores, e.g. k0.500.
        models: how many models were read.
        names: scores written.
        rmse: sqrt of the mean of p (1 - p) / (n - 1) over both sides: the precision of memorization in this bank.
        undefined: examples without a memorization estimate.
        online: attack curve of the online likelihood ratio, every model in turn as target.
        offline: the same of the one-sided offline attack.
        targets: how many targets the curves are over.
    """

    arm: Arm
    suffix: str
    models: int
    names: list[str]
    rmse: float
    undefined: int
    online: dict[str, TargetMean]
    offline: dict[str, TargetMean]
    targets: int


def score_arm(store: Store, name: str, shards: dict[int, str]) -> ArmScores:
    """Write every score of one arm.

    Args:
        store: open.
        name: of the arm.
        shards: index of every valid model -> hash of its contents.

    Returns:
        The names of the scores, and what holds for the arm as a whole.
    """
    record, indices = store.arms()[name], sorted(shards)
    arm = arm_from(record)
    suffix, n = record["suffix"], store.manifest.split_sizes[0]
    digest = shards_digest(name, shards)
    targets = int(np.clip(CURVE_BYTES // (8 * n), min(8, len(indices)), len(indices)))
    curves = {kind: np.empty((targets, n), np.float32) for kind in ("online", "offline")}
    member = np.empty((targets, n), bool)
    tables: dict[str, list[Columns]] = {"memorization": [], "cscore": [], "lira": [], "lira_offline": [], "attack": []}
    pieces, whole = [], in_whole_blocks(indices, arm.models_per_block)
    pool = lira_pool((b.columns["logit_confidence"], b.columns["member"]) for b in blocks(store, name, indices))
    for block in blocks(store, name, indices):
        right, inside, confidence = (block.columns[c] for c in ("correct", "member", "logit_confidence"))
        table = memorization_table(right, inside)
        if arm.design == "orthogonal":
            table["se_block"] = block_se(right[whole], inside[whole], arm.models_per_block)
        pieces.append(precision(right, inside))
        online, offline = lira_scores(confidence, inside, pool)
        tables["memorization"].append(table)
        tables["cscore"].append(cscore(right, inside))
        tables["lira"].append(evidence(online, inside))
        tables["lira_offline"].append(evidence(offline, inside))
        tables["attack"].append(attack_success(online, inside))
        member[:, block.rows] = inside[:targets]
        curves["online"][:, block.rows], curves["offline"][:, block.rows] = online[:targets], offline[:targets]
    written = []
    for kind, stem in (
        ("memorization", "memorization"),
        ("cscore", "cscore"),
        ("lira", "lira"),
        ("lira_offline", "lira_offline"),
        ("attack", "attack_success"),
    ):
        score = f"{stem}_{suffix}"
        columns = {f"{score}_{key}" if key != "value" else score: v for key, v in joined(tables[kind]).items()}
        metadata = {"arm": name, "models": str(len(indices)), "recipe": json.dumps(store.manifest.recipe)}
        store.write_score(score, columns, fields_of(stem, columns), metadata, digest)
        written.append(score)
    defined = joined(tables["memorization"])["value"]
    return ArmScores(
        arm=arm,
        suffix=suffix,
        models=len(indices),
        names=written,
        rmse=bank_rmse(pieces),
        undefined=int(np.isnan(defined).sum()),
        online=over_targets(curves["online"], member),
        offline=over_targets(curves["offline"], member),
        targets=targets,
    )


def in_whole_blocks(indices: Sequence[int], block: int) -> np.ndarray:
    """Bool [M]: models whose block has lost none, neither to a failure nor to divergence."""
    number = np.asarray(indices) // block
    return np.asarray(np.bincount(number)[number] == block)


def blocks(store: Store, name: str, indices: Sequence[int]) -> Iterator[Any]:
    """The matrix of one arm, a block of training examples at a time."""
    return store.blocks(name, indices, ["member", "correct", "logit_confidence"], max_bytes=BYTES)


def evidence(scores: np.ndarray, member: np.ndarray) -> Columns:
    """Mean attack score over the targets that held an example (the score itself) and over those that did not."""
    means = lira_means(scores, member)
    return {"value": means["mean_in"], "out": means["mean_out"]}


def joined(tables: list[Columns]) -> Columns:
    """Blocks of examples one after the other."""
    return {key: np.concatenate([table[key] for table in tables]) for key in tables[0]}


def score_fractions(store: Store, arms: Sequence[ArmScores]) -> list[str]:
    """The C-score over the fractions present: the plain mean of the fractions' means, if there are two or more.

    Args:
        store: open.
        arms: one for each fraction; several arms of one fraction are never pooled, the first one counts.

    Returns:
        ["cscore"], or nothing.
    """
    first = {arm.arm.keep: arm for arm in reversed(arms)}
    if len(first) < 2:
        return []
    chosen = [first[keep] for keep in sorted(first)]
    parts = []
    for arm in chosen:
        table, name = store.read_score(f"cscore_{arm.suffix}"), f"cscore_{arm.suffix}"
        parts.append({
            key: np.asarray(table[c].to_numpy(), float) for key, c in (("value", name), ("se", f"{name}_se"))
        })
    columns = {f"cscore_{key}" if key != "value" else "cscore": v for key, v in mean_over_fractions(parts).items()}
    metadata = {"fractions": " ".join(f"{keep:.3f}" for keep in sorted(first))}
    digest = shards_digest("cscore", dict(enumerate(store.score_digest(f"cscore_{arm.suffix}") for arm in chosen)))
    store.write_score("cscore", columns, fields_of("cscore", columns), metadata, digest)
    return ["cscore"]
