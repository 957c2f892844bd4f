"""From a trained bank to one row per example: every score in a file of its own.

Everything here is a reduction over blocks of examples, all models in order; a large bank's blocks are reduced on the
workers of a pool (map_reduce.py), with the same bits. Membership attacks also give ROC curves over targets.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from cluster.pool import Pool
from memscore.estimators.attack_success import attack_success
from memscore.estimators.cscore import CSCORE, average_fractions
from memscore.estimators.lira import average_by_membership
from memscore.estimators.memorization import compute_bank_rmse, sum_variances
from memscore.estimators.registry import STATISTICS, select_statistics
from memscore.estimators.shadow_models import find_blocks_of_shadows
from memscore.estimators.statistic import (
    compute_between_block_se,
    compute_tables,
    compute_weighted_values,
    count_set_weights,
)
from memscore.pipeline.attacks import ATTACKS, Attack, AttackContext, build_attack_context, check_attacks
from memscore.pipeline.map_reduce import ColumnBuffer, DiskBuffer, map_blocks
from memscore.score_registry import SCORES, build_field_metadata
from memscore.statistics.reliability import Reliability, compute_reliability, draw_arm_halves
from memscore.statistics.roc import RocBand, TargetMean, compute_roc_band, compute_target_means
from memscore.store.block_reader import Block, split_blocks
from memscore.store.shards import SHARD_COLUMNS, hash_shards
from memscore.store.store import Store
from memscore.subsets.designs import Arm, parse_arm_record

Columns = dict[str, np.ndarray]

CURVE_BYTES = 32 * 2**20  # memory for the scores of whole targets of one attack, for its curves


@dataclass(frozen=True, kw_only=True, eq=False)
class BlockScores:
    """Scores of an attack on one block.

    Attributes:
        member: bool [T, n], of the first targets, whose ROC curves are computed.
        scores: by name float32 [T, n], of these targets.
        tables: by name the columns [n], means over all targets.
    """

    member: np.ndarray
    scores: dict[str, np.ndarray]
    tables: dict[str, Columns]


@dataclass(frozen=True, kw_only=True, eq=False)
class AttackCurve:
    """How well one score of an attack separates members from non-members, over targets.

    Attributes:
        measures: "auc", "tpr_at_0.001", "tpr_at_0.01".
        band: the curve.
        targets: number of targets.
    """

    measures: dict[str, TargetMean]
    band: RocBand
    targets: int


def find_stored_attacks(store: Store, suffix: str) -> list[str]:
    """Find the attacks that a bank's arm was scored with before, which a new run computes again."""
    stored_scores = {name.removesuffix(".parquet") for name in store.folder.names("scores")}
    return [name for name, attack in ATTACKS.items() if f"{attack.scores[0]}_{suffix}" in stored_scores]


def run_attack(
    store: Store, arm: str, indices: list[int], attack: Attack, pool: Pool | None = None
) -> tuple[dict[str, Columns], dict[str, AttackCurve]]:
    """Run one attack on every training example, with every model of the arm in turn as target.

    It returns by score the columns [N] (value: the mean over targets trained on the example; out: over the other
    targets), with the attack success; and by score, except that one, the curve.
    """
    n = store.manifest.split_sizes[0]
    # curves need whole targets, [T, N] in memory: as many as fit, but 8 where the bank has them
    targets = int(np.clip(CURVE_BYTES // (4 * n * len(attack.scores)), min(8, len(indices)), len(indices)))
    target_scores = {name: np.empty((targets, n), np.float32) for name in attack.scores}
    member = np.empty((targets, n), bool)
    context = build_attack_context(store, arm, attack, indices)
    score_fn = partial(
        score_block,
        attack=attack,
        state=fit_attack(store, arm, indices, attack, context, pool),
        context=context,
        n_targets=targets,
    )
    # the second pass: means over all targets, and the first targets' scores example by example
    tables = ColumnBuffer(n)
    for rows, block_scores in map_blocks(store, arm, indices, ["member", *context.signals], score_fn, pool=pool):
        member[:, rows] = block_scores.member
        for name, scores in block_scores.scores.items():
            target_scores[name][:, rows] = scores
        tables.write(rows, block_scores.tables)
    curves = {
        name: AttackCurve(
            measures=compute_target_means(scores, member), band=compute_roc_band(scores, member), targets=targets
        )
        for name, scores in target_scores.items()
    }
    return tables.columns, curves


def fit_attack(
    store: Store, arm: str, indices: list[int], attack: Attack, context: AttackContext, pool: Pool | None
) -> Any:
    """Compute the state of an attack from the whole bank, in a first pass if it needs one."""
    if attack.accumulate is None:
        return attack.finalize([], context)
    # a population is the validation examples, which no model was trained on: they have no membership to read
    train, validation, _ = store.manifest.split_sizes
    rows, member = (slice(train, train + validation), []) if attack.population else (None, ["member"])
    summarize = partial(accumulate_block, attack=attack, context=context)
    results = map_blocks(store, arm, indices, [*member, *context.signals], summarize, rows=rows, pool=pool)
    # one by one: a large bank has many blocks
    return attack.finalize((summary for _, summary in results), context)


def accumulate_block(block: Block, attack: Attack, context: AttackContext) -> Any:
    """Summarize a block for an attack."""
    assert attack.accumulate is not None  # for mypy: fit_attack has checked
    return attack.accumulate(block, context)


def score_block(block: Block, attack: Attack, state: Any, context: AttackContext, n_targets: int) -> BlockScores:
    """Score a block by an attack: scores of the first targets, and means over all targets."""
    models, n = block.columns["member"].shape
    scores = {name: np.empty((min(n_targets, models), n), np.float32) for name in attack.scores}
    tables = ColumnBuffer(n)
    # a few examples at a time, so that the [M, n] arrays of an attack stay in the cache
    for part in split_blocks([block]):
        is_member = part.columns["member"]
        columns_slice = slice(part.rows.start - block.rows.start, part.rows.stop - block.rows.start)
        part_scores = dict(zip(attack.scores, attack.score(part, state, context), strict=True))
        columns: dict[str, Columns] = {}
        for name, values in part_scores.items():
            scores[name][:, columns_slice] = values[:n_targets]
            means = average_by_membership(values, is_member)
            columns[name] = {"value": means["mean_in"], "out": means["mean_out"]}
        if attack.success:
            columns[attack.success] = attack_success(part_scores[attack.scores[0]], is_member)
        tables.write(columns_slice, columns)
    # a view would keep the members of all models in memory while the next block is read
    return BlockScores(member=block.columns["member"][:n_targets].copy(), scores=scores, tables=tables.columns)


@dataclass(frozen=True, kw_only=True, eq=False)
class BlockStatistics:
    """Per-example statistics of one block of examples.

    Attributes:
        tables: by the stem of each score its columns [n].
        variances: sums for the precision of memorization.
        halves: by stem the estimates from each half of the models, [halves, n].
    """

    tables: dict[str, Columns]
    variances: list[tuple[float, int]]
    halves: dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class ArmScores:
    """Scores of one arm of a bank.

    Attributes:
        arm: the design.
        suffix: ends the names of its scores, e.g. k0.500.
        models: number of models read.
        names: scores written.
        rmse: sqrt of the mean of p (1 - p) / (n - 1) over both sides: the precision of memorization in this bank.
        rmse_block: the same measured between blocks, which includes the gain of an orthogonal design; NaN for other
            designs and with fewer than three whole blocks.
        unfinished: models in incomplete blocks.
        undefined: examples without a memorization estimate.
        reliability: of the scores on which halves of the models can be compared, by name without the suffix.
        attacks: of each score of an attack the curve over targets, by name without the suffix.
        has_other_blocks: two blocks or more have enough models for the shadows of targets of other blocks.
    """

    arm: Arm
    suffix: str
    models: int
    names: list[str]
    rmse: float
    rmse_block: float
    unfinished: int
    undefined: int
    reliability: dict[str, Reliability]
    attacks: dict[str, AttackCurve]
    has_other_blocks: bool = False


def score_arm(
    store: Store, name: str, shards: dict[int, str], attacks: Sequence[str] = ("lira",), pool: Pool | None = None
) -> ArmScores:
    """Write every score of one arm, from its valid models: index -> hash of the shard's contents.

    Attacks that the arm was scored with before are computed again too. The scores have the same bits with and without
    a pool. ValueError if an attack needs a column or examples that the bank does not have.
    """
    record, indices = store.arms()[name], sorted(shards)
    arm, suffix = parse_arm_record(record), record["suffix"]
    check_attacks(attacks, store.read_shard_columns(name, indices[0]), store.manifest.split_sizes[1])
    digest, written = hash_shards(name, shards), []
    metadata = {"arm": name, "models": str(len(indices)), "recipe": json.dumps(store.manifest.recipe)}

    def write(tables: dict[str, Columns]) -> None:
        for stem, table in tables.items():
            score = f"{stem}_{suffix}"
            columns = {f"{score}_{key}" if key != "value" else score: v for key, v in table.items()}
            info = STATISTICS[stem].info if stem in STATISTICS else SCORES[stem]
            store.write_score(score, columns, build_field_metadata(info, columns), metadata, digest)
            written.append(score)

    tables, variances, reliabilities = compute_statistics(store, name, indices, arm, pool)
    memorization = tables["memorization"]
    rmse_block, undefined = compute_rmse_between_blocks(memorization), int(np.isnan(memorization["value"]).sum())
    write(tables)
    del tables, memorization  # for a million examples both are large, and so are the scores of an attack
    curves: dict[str, AttackCurve] = {}
    for attack in dict.fromkeys([*attacks, *find_stored_attacks(store, suffix)]):
        attack_tables, curve = run_attack(store, name, indices, ATTACKS[attack], pool)
        write(attack_tables)
        curves |= curve
    return ArmScores(
        arm=arm,
        suffix=suffix,
        models=len(indices),
        names=written,
        rmse=compute_bank_rmse(variances),
        rmse_block=rmse_block,
        unfinished=len(indices) - arm.models_per_block * len(find_whole_blocks(indices, arm.models_per_block)),
        undefined=undefined,
        reliability=reliabilities,
        attacks=curves,
        has_other_blocks=find_blocks_of_shadows(indices, arm.models_per_block) is not None,
    )


def compute_statistics(
    store: Store, name: str, indices: Sequence[int], arm: Arm, pool: Pool | None = None
) -> tuple[dict[str, Columns], list[tuple[float, int]], dict[str, Reliability]]:
    """Compute all statistics whose columns the bank has, in one pass.

    It returns the columns [N] of each score, sums for the precision, and how far halves of the models agree.
    """
    columns = select_columns(store, name, indices)
    # halves of whole blocks: the models of a balanced block depend on each other
    halves = draw_arm_halves(store.manifest.seed, name, np.asarray(indices) // arm.models_per_block)
    half_sets, is_orthogonal = [half for pair in halves for half in pair], arm.design == "orthogonal"
    blocks = find_whole_blocks(indices, arm.models_per_block) if is_orthogonal else []
    # one weight matrix [sets, models], halves first, so that the bank is read once for all sets
    weights = count_set_weights([*half_sets, *blocks], len(indices))
    compute_block = partial(
        compute_block_statistics, weights=weights, halves=len(half_sets), is_orthogonal=is_orthogonal
    )
    n = store.manifest.split_sizes[0]
    tables, variances = ColumnBuffer(n), []
    # reliabilities rank all examples, so the halves' estimates are kept on disk until the last block
    with DiskBuffer(n) as buffer:
        for rows, statistics in map_blocks(store, name, indices, columns, compute_block, pool=pool):
            tables.write(rows, statistics.tables)
            variances += statistics.variances
            for stem, values in statistics.halves.items():
                buffer.write(stem, rows, values)
        reliabilities = {
            stem: compute_reliability(buffer.read_pairs(stem, STATISTICS[stem].info.direction)) for stem in buffer.names
        }
    return tables.columns, variances, reliabilities


def compute_block_statistics(block: Block, weights: np.ndarray, halves: int, is_orthogonal: bool) -> BlockStatistics:
    """Compute the statistics of one block, a few examples at a time.

    The first rows of `weights` are the halves; the others, in an orthogonal design, its whole blocks of models.
    """
    n = block.rows.stop - block.rows.start
    statistics = select_statistics(block.columns)
    tables, estimates, variances = ColumnBuffer(n), ColumnBuffer(n), []
    for part in split_blocks([block]):
        columns = part.columns
        columns_slice = slice(part.rows.start - block.rows.start, part.rows.stop - block.rows.start)
        part_tables = compute_tables(statistics, columns)
        for stem, values in compute_weighted_values(statistics, weights, columns).items():
            estimates.write(
                columns_slice, {stem: {str(half): half_values for half, half_values in enumerate(values[:halves])}}
            )
            if is_orthogonal:
                part_tables[stem]["se_block"] = compute_between_block_se(values[halves:])
        tables.write(columns_slice, part_tables)
        variances.append(sum_variances(columns["correct"], columns["member"]))
    return BlockStatistics(
        tables=tables.columns,
        variances=variances,
        halves={stem: np.array(list(rows.values())) for stem, rows in estimates.columns.items()},
    )


def compute_rmse_between_blocks(table: Columns) -> float:
    """Compute the root mean square of the errors between blocks, over examples that have one."""
    errors = table.get("se_block", np.empty(0))
    defined = errors[~np.isnan(errors)]
    return float(np.sqrt(np.mean(defined**2))) if len(defined) else float("nan")


def select_columns(store: Store, name: str, indices: Sequence[int]) -> list[str]:
    """Select the columns for the statistics; an imported bank may not have all of them."""
    stored = store.read_shard_columns(name, indices[0])
    signals = {"member", "correct"} | {statistic.signal for statistic in STATISTICS.values()}
    return [column for column in SHARD_COLUMNS if column in stored and column in signals]


def find_whole_blocks(indices: Sequence[int], block: int) -> list[np.ndarray]:
    """Find the positions of the models of each block that has all of its models."""
    # failures, divergence and stopped runs leave blocks incomplete
    numbers = np.asarray(indices) // block
    return [np.flatnonzero(numbers == number) for number in np.flatnonzero(np.bincount(numbers) == block)]


def score_fractions(store: Store, arms: Sequence[ArmScores]) -> list[str]:
    """Write the C-score over keep fractions, if there are two or more: the mean of their means.

    Several arms of one fraction are never pooled, the first one counts. It returns the names written.
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
    columns = {f"cscore_{key}" if key != "value" else "cscore": v for key, v in average_fractions(parts).items()}
    metadata = {"fractions": " ".join(f"{keep:.3f}" for keep in sorted(first))}
    digest = hash_shards("cscore", dict(enumerate(store.read_score_digest(f"cscore_{arm.suffix}") for arm in chosen)))
    store.write_score("cscore", columns, build_field_metadata(CSCORE.info, columns), metadata, digest)
    return ["cscore"]
