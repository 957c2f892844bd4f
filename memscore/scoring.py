"""From a filled bank to one row an example: every score in a file of its own, and one wide table.

Everything here is a reduction over blocks of examples, all models in order, at most 256 MB at a time.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from memscore.estimators.attack_success import attack_success
from memscore.estimators.cscore import cscore, mean_over_fractions
from memscore.estimators.lira import lira_means, lira_offline, lira_online, lira_pool
from memscore.estimators.memorization import bank_rmse, block_se, memorization_table, precision
from memscore.proxies.learning_events import COLUMNS, DIRECTION
from memscore.roc import Proportion, TargetMean, auc_interval, over_targets
from memscore.store import Store, model_name, shards_digest
from memscore.subsets import Arm
from memscore.trainee import arm_of

Columns = dict[str, np.ndarray]
Field = dict[str, Any]

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
    record, arm, indices = store.arms()[name], arm_of(store, name), sorted(shards)
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
        online, offline = lira_online(confidence, inside, pool), lira_offline(confidence, inside, pool)
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


SOURCES: dict[str, tuple[str, str, int]] = {
    "memorization": ("Feldman & Zhang 2020; RUM eq. 1: P[correct | in] - P[correct | out]", "probability", 1),
    "cscore": ("Jiang et al. 2021 (SCALE 2.2): P[correct | out] at one subset fraction", "probability", -1),
    "lira": (
        "Carlini et al. 2022, Student-t predictive: mean log-likelihood ratio over targets that held it",
        "nat",
        1,
    ),
    "lira_offline": ("Carlini et al. 2022, one-sided, eq. 4: mean over targets that held it", "t statistic", 1),
    "attack_success": ("RSU eq. 1: share of targets whose online attack at threshold 0 is right", "probability", 1),
    "confidence": ("SCALE 2.2: mean p_y over training", "probability", DIRECTION["confidence"]),
    "max_confidence": ("SCALE 2.2: mean max p over training", "probability", DIRECTION["max_confidence"]),
    "entropy": ("SCALE 2.2: mean entropy over training", "nat", DIRECTION["entropy"]),
    "accuracy": ("SCALE 2.2: mean correctness over training", "probability", DIRECTION["accuracy"]),
    "forgetting": ("Toneva et al. 2019: right on one visit, wrong on the next", "events", DIRECTION["forgetting"]),
    "final_loss": ("cross-entropy at the end of training, mean over originals (RSU Fig. 5)", "nat", 1),
}


def fields_of(stem: str, columns: Columns) -> dict[str, Field]:
    """Source, unit and direction of a score's columns: only the score itself points anywhere."""
    source, unit, direction = SOURCES[stem]
    first = next(iter(columns))
    return {
        name: {
            "source": source,
            "unit": "count" if "_n_" in name or name.endswith("_n") else unit,
            "direction": direction if name == first else 0,
        }
        for name in columns
    }


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


def score_originals(store: Store, keys: Sequence[str]) -> list[str]:
    """Learning events and final loss of the originals, averaged over them.

    Args:
        store: open.
        keys: of the originals.

    Returns:
        The names of the scores written.
    """
    if not keys:
        return []
    n, written = store.manifest.split_sizes[0], []
    for prefix, ending in (("events", ""), ("events_evaluation", "-evaluation")):
        present = [key + ending for key in keys if store.has_events(key + ending)]
        if len(present) == len(keys):
            tables = [store.read_events(key) for key in present]
            written += write_events(store, prefix, tables, "originals", keys)
    losses = [original_loss(store, key)[:n] for key in keys]
    write_average(store, "final_loss", "final_loss", losses, "originals", keys)
    return [*written, "final_loss"]


def score_bank_events(store: Store, name: str, indices: Sequence[int]) -> list[str]:
    """Learning events of the members of every bank model that has them, averaged over the models' visits.

    Args:
        store: open.
        name: of the arm.
        indices: its valid models.

    Returns:
        The names of the scores written; none if no model kept its events.
    """
    models = [model_name(name, m) for m in indices if store.has_events(model_name(name, m))]
    if not models:
        return []
    tables = [store.read_events(model) for model in models]
    return write_events(store, f"events_bank_{store.arms()[name]['suffix']}", tables, name, models)


def write_events(store: Store, prefix: str, tables: list[Columns], of: str, keys: Sequence[str]) -> list[str]:
    """One score for each kind of learning event."""
    names = []
    for column in COLUMNS:
        name = f"{prefix}_{column}"
        write_average(store, name, column, [table[column] for table in tables], of, keys)
        names.append(name)
    return names


def write_average(store: Store, name: str, stem: str, values: list[np.ndarray], of: str, keys: Sequence[str]) -> None:
    """The mean of a proxy over the models that define it, its standard error, and how many they are."""
    stacked = np.stack([np.asarray(v, np.float64) for v in values])
    count = (~np.isnan(stacked)).sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(count > 0, np.nansum(stacked, 0) / count, np.nan)
        spread = np.nansum((stacked - mean) ** 2, 0) / (count - 1)
        se = np.where(count > 1, np.sqrt(spread / count), np.nan)
    columns = {name: mean, f"{name}_se": se, f"{name}_n": count.astype(np.int32)}
    digest = shards_digest(of, dict(enumerate(keys)))
    store.write_score(name, columns, fields_of(stem, columns), {"models_of": of, "models": str(len(keys))}, digest)


def original_loss(store: Store, key: str) -> np.ndarray:
    """Cross-entropy of one original on every example, float64 [N]."""
    logits, _ = store.read_outputs(key)
    z = logits.astype(np.float64)
    labels = np.asarray(store.examples()["label"].to_numpy())
    top = z.max(1, keepdims=True)
    lse = top[:, 0] + np.log(np.exp(z - top).sum(1))
    return np.asarray(lse - z[np.arange(len(z)), labels])


def write_wide_table(store: Store, names: Sequence[str]) -> pa.Table:
    """scores.parquet: one row for each training example, every score beside its errors and counts.

    Args:
        store: open.
        names: scores, in the order of their columns.

    Returns:
        The table as written.
    """
    table = store.examples().slice(0, store.manifest.split_sizes[0])
    for name in names:
        score = store.read_score(name)
        for column in score.column_names[2:]:
            table = table.append_column(score.schema.field(column), score[column])
    store.write_table("scores.parquet", table)
    return table


def write_models_table(store: Store) -> None:
    """models.parquet: one row for each model ever finished, from the receipts."""
    rows = []
    for name, receipt in sorted(store.receipts().items()):
        accuracy = receipt.get("accuracy", {})
        rows.append({
            "model": name,
            "arm": name.rpartition("-")[0],
            "index": int(name.rpartition("-")[2]),
            "n_members": receipt["n_members"],
            "diverged": receipt["diverged"],
            **{f"accuracy_{group}": accuracy.get(group) for group in ("members", "left_out", "validation", "test")},
            "seconds": receipt["seconds"],
            "worker": receipt["worker"],
            "device": receipt["device"],
        })
    if rows:
        store.write_table("models.parquet", pa.Table.from_pylist(rows))


def noise_detection(store: Store, names: Sequence[str]) -> dict[str, Proportion]:
    """How well each score finds the examples whose label was changed, where the bank is a positive control.

    Args:
        store: open.
        names: scores.

    Returns:
        Score -> AUROC with its 95 % interval, of the oriented score; empty if no training label was changed.
    """
    examples = store.examples().slice(0, store.manifest.split_sizes[0])
    wrong = np.asarray(examples["label"].to_numpy() != examples["label_true"].to_numpy())
    if not wrong.any():
        return {}
    found = {}
    for name in names:
        _, values = store.score(name)
        defined = ~np.isnan(values)
        found[name] = auc_interval(values[defined], wrong[defined])
    return found
