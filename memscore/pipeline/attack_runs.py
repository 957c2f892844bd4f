"""Run one membership attack on a bank: scores of every example, ROC curves over targets, attack success.

Every model is the target in turn, and the others are its shadow models. The bank is read once or twice, block by block,
and in the same passes the attack is repeated on halves of the models and without information (attack_repeats.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from cluster.pool import Pool
from memscore.estimators.lira import average_by_membership
from memscore.estimators.soft_attack_success import widen_by_halves
from memscore.pipeline.attack_decisions import AttackDecisions, compute_decisions, name_decision_score, read_groups
from memscore.pipeline.attack_repeats import (
    AttackRepeats,
    SuccessSummary,
    compute_rms_difference,
    compute_success,
    plan_repeats,
    score_success,
    score_targets,
    summarize_success,
)
from memscore.pipeline.attacks import (
    ATTACKS,
    Attack,
    AttackContext,
    build_attack_contexts,
)
from memscore.pipeline.map_reduce import ColumnBuffer, DiskBuffer, map_blocks
from memscore.statistics.roc import RocBand, TargetMean, summarize_targets
from memscore.store.block_reader import Block, split_blocks
from memscore.store.store import Store

Columns = dict[str, np.ndarray]

CURVE_BYTES = 32 * 2**20  # memory for the scores of whole targets of one attack, for its curves


@dataclass(frozen=True, kw_only=True, eq=False)
class BlockScores:
    """Scores of an attack on one block.

    Attributes:
        member: bool [T, n], of the first targets, whose ROC curves are computed.
        scores: by name of the curve float32 [T, n], of these targets.
        tables: by name the columns [n], means over all targets.
        halves: by name of attack success, hard and soft, its values from each half of the models, [halves, n].
        permuted: by name of attack success its values without information, of some of the examples.
    """

    member: np.ndarray
    scores: dict[str, np.ndarray]
    tables: dict[str, Columns]
    halves: dict[str, np.ndarray]
    permuted: dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True, eq=False)
class AttackCurve:
    """How well one score of an attack separates members from non-members, over targets.

    Attributes:
        measures: "auc", "tpr_at_0.001", "tpr_at_0.01".
        band: the curve.
        targets: number of targets.
        decisions: by thresholds that are set on the targets; of the attack's first score only.
    """

    measures: dict[str, TargetMean]
    band: RocBand
    targets: int
    decisions: AttackDecisions | None = None


class AttackResult(NamedTuple):
    """What one attack says of a bank.

    Attributes:
        tables: by score the columns [N] (value: the mean over targets trained on the example; out: over the other
            targets), with attack success, hard and soft.
        curves: by score, except attack success and scores that only break the ties of another, the curve.
        success: by name of attack success.
        left_out: indices of outlying models, which are no targets.
    """

    tables: dict[str, Columns]
    curves: dict[str, AttackCurve]
    success: dict[str, SuccessSummary]
    left_out: list[int]


def find_stored_attacks(store: Store, suffix: str) -> list[str]:
    """Find the attacks that a bank's arm was scored with before, which a new run computes again."""
    stored_scores = {name.removesuffix(".parquet") for name in store.folder.names("scores")}
    return [name for name, attack in ATTACKS.items() if f"{attack.scores[0]}_{suffix}" in stored_scores]


def run_attack(store: Store, arm: str, indices: list[int], attack: Attack, pool: Pool | None = None) -> AttackResult:
    """Run one attack on every training example, with every model of the arm in turn as target."""
    n = store.manifest.split_sizes[0]
    # curves need whole targets, [T, N] in memory: as many as fit, but 8 where the bank has them
    targets = int(np.clip(CURVE_BYTES // (4 * n * len(attack.curves)), min(8, len(indices)), len(indices)))
    target_scores = {name: np.empty((targets, n), np.float32) for name in attack.curves}
    member = np.empty((targets, n), bool)
    repeats = plan_repeats(store, arm, indices)
    contexts = build_attack_contexts(store, arm, attack, indices, [np.arange(len(indices)), *repeats.halves])
    # without information it is the same bank
    contexts.append(contexts[0])
    score_fn = partial(
        score_block,
        attack=attack,
        states=fit_attack(store, arm, indices, attack, contexts, pool),
        contexts=contexts,
        n_targets=targets,
        repeats=repeats,
    )
    # the second pass: means over all targets, and the first targets' scores example by example
    tables, permuted = ColumnBuffer(n), {name: list[np.ndarray]() for name in (attack.success, attack.soft_success)}
    # halves are compared over all examples, so their values are kept on disk until the last block
    with DiskBuffer(n) as buffer:
        columns = ["member", *contexts[0].signals]
        for rows, block_scores in map_blocks(store, arm, indices, columns, score_fn, pool=pool):
            member[:, rows] = block_scores.member
            for name, scores in block_scores.scores.items():
                target_scores[name][:, rows] = scores
            tables.write(rows, block_scores.tables)
            for name, values in block_scores.halves.items():
                buffer.write(name, rows, values)
            for name, values in block_scores.permuted.items():
                permuted[name].append(values)
        summaries = summarize_success(tables.columns, buffer, permuted, are_reliable=repeats.are_whole_blocks)
        difference = compute_rms_difference(buffer, attack.soft_success, n)
    tables.columns[attack.soft_success] = widen_by_halves(tables.columns[attack.soft_success], difference)
    # an outlying model is no target: it would decide the thresholds and hide what the others leak
    outlying = contexts[0].shadows.outlying
    member = member[~outlying[:targets]]
    target_scores = {name: scores[~outlying[:targets]] for name, scores in target_scores.items()}
    curves = {}
    for name, scores in target_scores.items():
        measures, band = summarize_targets(scores, member)
        curves[name] = AttackCurve(measures=measures, band=band, targets=len(member))
    first = attack.scores[0]
    decisions, agreement = compute_decisions(target_scores[first], member, read_groups(store))
    curves[first] = replace(curves[first], decisions=decisions)
    left_out = [indices[position] for position in np.flatnonzero(outlying)]
    return AttackResult({**tables.columns, name_decision_score(first): agreement}, curves, summaries, left_out)


def fit_attack(
    store: Store,
    arm: str,
    indices: list[int],
    attack: Attack,
    contexts: Sequence[AttackContext],
    pool: Pool | None,
) -> list[Any]:
    """Compute the states of an attack on the bank, on each half and without information, in a first pass if needed."""
    repeats = plan_repeats(store, arm, indices)
    summaries: list[list[Any]] = [[] for _ in contexts]
    if attack.accumulate is not None:
        # a population is the validation examples, which no model was trained on: they have no membership to read
        train, validation, _ = store.manifest.split_sizes
        rows, member = (slice(train, train + validation), []) if attack.population else (None, ["member"])
        summarize = partial(accumulate_block, attack=attack, contexts=contexts, repeats=repeats)
        columns = [*member, *contexts[0].signals]
        for _, parts in map_blocks(store, arm, indices, columns, summarize, rows=rows, pool=pool):
            for number, part in parts.items():
                held = summaries[number]
                # a large bank has many blocks, and the sums of one are as large as those of all
                held[:] = [attack.combine(held[0], part)] if attack.combine and held else [*held, part]
    return [
        None if attack.population and number else attack.finalize(summaries[number], each)
        for number, each in enumerate(contexts)
    ]


def accumulate_block(
    block: Block, attack: Attack, contexts: Sequence[AttackContext], repeats: AttackRepeats
) -> dict[int, Any]:
    """Summarize a block for an attack, by number of the context."""
    assert attack.accumulate is not None  # for mypy: fit_attack has checked
    summaries = {0: attack.accumulate(block, contexts[0])}
    if not attack.population:
        for number, half in enumerate(repeats.take_halves(block), start=1):
            summaries[number] = attack.accumulate(half, contexts[number])
        if permuted := repeats.take_permuted(block):
            summaries[len(contexts) - 1] = attack.accumulate(permuted, contexts[-1])
    return summaries


def score_block(
    block: Block,
    attack: Attack,
    states: Sequence[Any],
    contexts: Sequence[AttackContext],
    n_targets: int,
    repeats: AttackRepeats,
) -> BlockScores:
    """Score a block by an attack: scores of the first targets, means over all, and attack success of the repeats."""
    context, (models, n) = contexts[0], block.columns["member"].shape
    scores = {name: np.empty((min(n_targets, models), n), np.float32) for name in attack.curves}
    tables, halves = ColumnBuffer(n), ColumnBuffer(n)
    # a few examples at a time, so that the [M, n] arrays of an attack stay in the cache
    for part in split_blocks([block]):
        is_member = part.columns["member"]
        columns_slice = slice(part.rows.start - block.rows.start, part.rows.stop - block.rows.start)
        part_scores = score_targets(part, attack, states[0], context)
        log_odds = attack.compute_log_odds(part_scores)
        # in float32 ratios near 1 would tie, and their logarithms near 0 do not
        for name, ordering in attack.curves.items():
            values = log_odds if ordering == attack.evidence else part_scores[ordering]
            scores[name][:, columns_slice] = values[:n_targets]
        columns: dict[str, Columns] = {}
        for name, values in part_scores.items():
            means = average_by_membership(values, is_member)
            columns[name] = {"value": means["mean_in"], "out": means["mean_out"]}
        tables.write(columns_slice, columns | compute_success(log_odds, is_member, attack, context))
        for number, half in enumerate(repeats.take_halves(part), start=1):
            for name, table in score_success(half, attack, states[number], contexts[number]).items():
                halves.write(columns_slice, {name: {str(number): table["value"]}})
    permuted = repeats.take_permuted(block)
    parts = [] if permuted is None else list(split_blocks([permuted]))
    without_information = [score_success(part, attack, states[-1], contexts[-1]) for part in parts]
    # a view would keep the members of all models in memory while the next block is read
    return BlockScores(
        member=block.columns["member"][:n_targets].copy(),
        scores=scores,
        tables=tables.columns,
        halves={name: np.array(list(columns.values())) for name, columns in halves.columns.items()},
        permuted={
            name: np.concatenate([success[name]["value"] for success in without_information])
            for name in (attack.success, attack.soft_success)
            if without_information
        },
    )
