"""From a trained bank to one row per example: every score in a file of its own.

Everything here is a reduction over blocks of examples, all models in order; a large bank's blocks are reduced on the
workers of a pool (map_reduce.py), with the same bits. Membership attacks also give ROC curves over targets.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from cluster.pool import Pool
from memscore.estimators.cscore import CSCORE, average_fractions
from memscore.estimators.memorization import compute_bank_rmse, sum_variances
from memscore.estimators.memorization_blend import (
    BLEND,
    BLENDED,
    COVARIANCE,
    BlendFit,
    BlendSums,
    blend,
    compute_blend_table,
    compute_blend_variance,
    fit_blend,
    sum_for_blend,
)
from memscore.estimators.memorization_stacked import STACKED, StackedFit
from memscore.estimators.registry import STATISTICS, select_statistics
from memscore.estimators.shadow_models import find_blocks_of_shadows
from memscore.estimators.statistic import (
    compute_between_block_covariance,
    compute_between_block_se,
    compute_tables,
    compute_weighted_values,
)
from memscore.pipeline.attack_decisions import AttackDecisions
from memscore.pipeline.attack_repeats import (
    SuccessSummary,
)
from memscore.pipeline.attack_runs import AttackCurve, find_stored_attacks, run_attack
from memscore.pipeline.attacks import (
    ATTACKS,
    check_attacks,
)
from memscore.pipeline.map_reduce import ColumnBuffer, DiskBuffer, map_blocks
from memscore.pipeline.model_sets import ModelSets, draw_model_sets, find_whole_blocks
from memscore.pipeline.outlying_models import name_outlying_models
from memscore.pipeline.precision import MeasuredPrecision
from memscore.pipeline.stacked_scores import compute_stacked, is_stacked_stored
from memscore.score_registry import SCORES, build_field_metadata
from memscore.statistics.outlying_models import MAX_EXAMPLES, SIGNALS, Deviation, sum_model_outputs
from memscore.statistics.reliability import Reliability, compute_reliability
from memscore.store.block_reader import Block, split_blocks
from memscore.store.shards import SHARD_COLUMNS, format_model_name, hash_shards
from memscore.store.store import Store
from memscore.subsets.designs import Arm, parse_arm_record

Columns = dict[str, np.ndarray]
BLOCK_COVARIANCE = "covariance_block"
"""Name of the covariance of the estimates that are blended between blocks, which is stored nowhere."""


@dataclass(frozen=True, kw_only=True, eq=False)
class BlockStatistics:
    """Per-example statistics of one block of examples.

    Attributes:
        tables: by the stem of each score its columns [n].
        variances: sums for the precision of memorization.
        halves: by stem the estimates from each half of the models, [halves, n].
        blend: sums for the blend of counts and probit; empty for a bank without gaps.
        outputs: sums for finding models far from the others.
    """

    tables: dict[str, Columns]
    variances: list[tuple[float, int]]
    halves: dict[str, np.ndarray]
    blend: list[BlendSums]
    outputs: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class BankStatistics:
    """Per-example statistics of all training examples, and what they say of the bank.

    Attributes:
        tables: by the stem of each score its columns [N].
        variances: sums for the precision of memorization.
        reliabilities: by stem how far halves of the models agree.
        blend: weight of the counts in the blend and its precision; None for a bank without gaps.
        outlying: names of models far from the others -> in which measures.
    """

    tables: dict[str, Columns]
    variances: list[tuple[float, int]]
    reliabilities: dict[str, Reliability]
    blend: BlendFit | None
    outlying: dict[str, tuple[Deviation, ...]]


@dataclass(frozen=True, kw_only=True)
class ArmScores:
    """Scores of one arm of a bank.

    Attributes:
        arm: the design.
        suffix: ends the names of its scores, e.g. k0.500.
        models: number of models read.
        queries: augmentations of an image, itself included, on which each was evaluated.
        names: scores written.
        rmse: sqrt of the mean of p (1 - p) / (n - 1) over both sides: the precision of memorization in this bank.
        rmse_block: the same measured between blocks, which includes the gain of an orthogonal design; NaN for other
            designs and with fewer than three whole blocks.
        unfinished: models in incomplete blocks.
        undefined: examples without a memorization estimate.
        reliability: of the scores on which halves of the models can be compared, by name without the suffix.
        attacks: of each score of an attack the curve over targets, by name without the suffix.
        outlying: names of models far from the others, the farthest first -> in which measures.
        success: of each attack success, hard and soft, by name without the suffix.
        left_out: names of models that are no targets of an attack, since their confidences are far from the others'.
        has_other_blocks: two blocks or more have enough models for the shadows of targets of other blocks.
        blend: weight of the counts in the blend of counts and probit, and its RMSE; None for a bank without gaps.
        stacked: precision of memorization by regression; None where it was not requested or is not possible.
    """

    arm: Arm
    suffix: str
    models: int
    queries: int = 1
    names: list[str]
    rmse: float
    rmse_block: float
    unfinished: int
    undefined: int
    reliability: dict[str, Reliability]
    attacks: dict[str, AttackCurve]
    outlying: dict[str, tuple[Deviation, ...]] = field(default_factory=dict)
    success: dict[str, SuccessSummary] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    has_other_blocks: bool = False
    blend: BlendFit | None = None
    stacked: StackedFit | None = None

    @property
    def precision(self) -> MeasuredPrecision:
        """The precision of memorization by which a number of models is chosen."""
        return MeasuredPrecision(models=self.models, counts_rmse=self.rmse, blend=self.blend)

    def list_decisions(self) -> list[tuple[str, AttackDecisions]]:
        """List the attacks with decisions by thresholds, by the name of their first score without the suffix."""
        return [(name, curve.decisions) for name, curve in self.attacks.items() if curve.decisions]


def score_arm(
    store: Store,
    name: str,
    shards: dict[int, str],
    attacks: Sequence[str] = ("lira",),
    pool: Pool | None = None,
    *,
    stacked: bool = False,
) -> ArmScores:
    """Write every score of one arm, from its valid models: index -> hash of the shard's contents.

    Attacks that the arm was scored with before are computed again too, and so is memorization by regression (stacked).
    The scores have the same bits with and without a pool. ValueError if an attack needs a column or
    examples that the bank does not have.
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

    statistics = compute_statistics(store, name, indices, arm, pool)
    memorization = statistics.tables["memorization"]
    rmse_block, undefined = compute_rmse_between_blocks(memorization), int(np.isnan(memorization["value"]).sum())
    write(statistics.tables)
    # for a million examples tables are large, and so are the scores of an attack
    statistics.tables.clear()
    del memorization
    stacked_result = compute_stacked(store, arm, indices, pool) if stacked or is_stacked_stored(store, suffix) else None
    if stacked_result:
        write({STACKED: stacked_result[0]})
    curves: dict[str, AttackCurve] = {}
    success, reliabilities, left_out = dict[str, SuccessSummary](), statistics.reliabilities, set[int]()
    for attack in dict.fromkeys([*attacks, *find_stored_attacks(store, suffix)]):
        result = run_attack(store, name, indices, ATTACKS[attack], pool)
        write(result.tables)
        curves, success = curves | result.curves, success | result.success
        left_out |= set(result.left_out)
        reliabilities |= {stem: each.reliability for stem, each in result.success.items() if each.reliability}
    return ArmScores(
        arm=arm,
        suffix=suffix,
        models=len(indices),
        queries=record.get("queries", 1),
        names=written,
        rmse=compute_bank_rmse(statistics.variances),
        rmse_block=rmse_block,
        unfinished=len(indices) - arm.models_per_block * len(find_whole_blocks(indices, arm.models_per_block)),
        undefined=undefined,
        reliability=reliabilities,
        attacks=curves,
        outlying=statistics.outlying,
        success=success,
        left_out=tuple(format_model_name(name, index) for index in sorted(left_out)),
        has_other_blocks=find_blocks_of_shadows(indices, arm.models_per_block) is not None,
        blend=statistics.blend,
        stacked=stacked_result[1] if stacked_result else None,
    )


def compute_statistics(
    store: Store, name: str, indices: Sequence[int], arm: Arm, pool: Pool | None = None
) -> BankStatistics:
    """Compute all statistics whose columns the bank has, in one pass."""
    columns = select_columns(store, name, indices)
    sets = draw_model_sets(store.manifest.seed, name, indices, arm)
    n = store.manifest.split_sizes[0]
    compute_block = partial(
        compute_block_statistics,
        sets=sets,
        step=-(-n // MAX_EXAMPLES),
    )
    tables, variances, outputs, sums = ColumnBuffer(n), [], [], list[BlendSums]()
    # reliabilities rank all examples, so the halves' estimates are kept on disk until the last block
    with DiskBuffer(n) as buffer:
        for rows, statistics in map_blocks(store, name, indices, columns, compute_block, pool=pool):
            tables.write(rows, statistics.tables)
            variances += statistics.variances
            outputs.append(statistics.outputs)
            sums += statistics.blend
            for stem, values in statistics.halves.items():
                buffer.write(stem, rows, values)
        reliabilities = {
            stem: compute_reliability(buffer.read_pairs(stem, STATISTICS[stem].info.direction)) for stem in buffer.names
        }
        fit = fit_blend(sums, sets.block_share) if sums else None
        if fit:
            reliabilities[BLEND] = compute_reliability(blend_halves(buffer, fit.weight))
    if fit:
        complete_blend(tables.columns, fit)
    return BankStatistics(
        tables=tables.columns,
        variances=variances,
        reliabilities=reliabilities,
        blend=fit,
        outlying=name_outlying_models(name, indices, np.sum(outputs, axis=0)),
    )


def compute_block_statistics(block: Block, sets: ModelSets, step: int) -> BlockStatistics:
    """Compute the statistics of one block, a few examples at a time.

    Outputs of every `step`-th example are compared between models.
    """
    n = block.rows.stop - block.rows.start
    statistics = select_statistics(block.columns)
    is_blended = statistics.keys() >= BLENDED.keys()
    if is_blended:
        statistics |= BLENDED
    tables, estimates, variances, outputs = ColumnBuffer(n), ColumnBuffer(n), [], []
    sums: list[BlendSums] = []
    for part in split_blocks([block]):
        columns = part.columns
        columns_slice = slice(part.rows.start - block.rows.start, part.rows.stop - block.rows.start)
        part_tables = compute_tables(statistics, columns)
        weighted = compute_weighted_values(statistics, sets.weights, columns)
        for stem, values in weighted.items():
            estimates.write(
                columns_slice, {stem: {str(half): half_values for half, half_values in enumerate(values[sets.halves])}}
            )
            if sets.blocks:
                part_tables[stem]["se_block"] = compute_between_block_se(values[sets.blocks])
        if is_blended:
            counts, probit = BLENDED
            sums.append(sum_for_blend(part_tables, {stem: weighted[stem][sets.fit] for stem in BLENDED}, columns))
            if sets.blocks:
                part_tables[probit][BLOCK_COVARIANCE] = compute_between_block_covariance(
                    weighted[counts][sets.blocks], weighted[probit][sets.blocks]
                )
        tables.write(columns_slice, part_tables)
        variances.append(sum_variances(columns["correct"], columns["member"]))
        outputs.append(sum_model_outputs(columns, step))
    return BlockStatistics(
        tables=tables.columns,
        variances=variances,
        halves={stem: np.array(list(rows.values())) for stem, rows in estimates.columns.items()},
        blend=sums,
        outputs=np.sum(outputs, axis=0),
    )


def blend_halves(buffer: DiskBuffer, weight: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Blend the halves' estimates by counts and by probit with one weight, pair by pair."""
    pairs = (buffer.read_pairs(stem, STATISTICS[stem].info.direction) for stem in BLENDED)
    for counts, probit in zip(*pairs, strict=True):
        yield blend(counts[0], probit[0], weight), blend(counts[1], probit[1], weight)


def complete_blend(tables: dict[str, Columns], fit: BlendFit) -> None:
    """Add the blend to the tables, and take away what only the blend needs."""
    counts, probit = (tables[stem] for stem in BLENDED)
    table = compute_blend_table(counts, probit, fit)
    if BLOCK_COVARIANCE in probit:
        variance = compute_blend_variance(
            counts["se_block"] ** 2, probit["se_block"] ** 2, probit.pop(BLOCK_COVARIANCE), fit.weight
        )
        table["se_block"] = np.sqrt(variance)
    del probit[COVARIANCE]
    tables[BLEND] = table


def compute_rmse_between_blocks(table: Columns) -> float:
    """Compute the root mean square of the errors between blocks, over examples that have one."""
    errors = table.get("se_block", np.empty(0))
    defined = errors[~np.isnan(errors)]
    return float(np.sqrt(np.mean(defined**2))) if len(defined) else float("nan")


def select_columns(store: Store, name: str, indices: Sequence[int]) -> list[str]:
    """Select the columns for the statistics; an imported bank may not have all of them."""
    stored = store.read_shard_columns(name, indices[0])
    outputs = [name for name in SIGNALS if name in stored][:1]
    signals = {"member", "correct", *outputs} | {statistic.signal for statistic in STATISTICS.values()}
    return [column for column in SHARD_COLUMNS if column in stored and column in signals]


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
