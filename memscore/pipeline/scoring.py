"""From a filled bank to one row an example: every score in a file of its own.

Everything here is a reduction over blocks of examples, all models in order; a large bank's blocks are reduced on the
workers of a pool (reducing.py), to the same bits.

What each membership attack says of one arm: scores of every example, and ROC curves over targets.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from cluster.pool import Pool
from memscore.estimators.attack_success import attack_success
from memscore.estimators.cscore import average_fractions, cscore
from memscore.estimators.lira import average_by_membership
from memscore.estimators.memorization import (
    compute_bank_rmse,
    memorization_probability,
    memorization_probit,
    memorization_table,
    sum_variances,
)
from memscore.estimators.weighted import compute_between_block_se, compute_weighted_scores, count_set_weights
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

CURVE_BYTES = 32 * 2**20  # scores of whole targets of one attack, kept for its curves


@dataclass(frozen=True, kw_only=True, eq=False)
class Said:
    """What an attack says of one block.

    Attributes:
        member: bool [T, n], of the first targets.
        scores: by name float32 [T, n], of the first targets.
        tables: by name the columns [n] over all targets.
    """

    member: np.ndarray
    scores: dict[str, np.ndarray]
    tables: dict[str, Columns]


@dataclass(frozen=True, kw_only=True, eq=False)
class AttackCurve:
    """How well one score of an attack tells members from others, over targets.

    Attributes:
        measures: "auc", "tpr_at_0.001", "tpr_at_0.01".
        band: the curve.
        targets: how many it is over.
    """

    measures: dict[str, TargetMean]
    band: RocBand
    targets: int


def find_stored_attacks(store: Store, suffix: str) -> list[str]:
    """Attacks that a bank's arm was scored with before, which a new run renews."""
    known = {name.removesuffix(".parquet") for name in store.folder.names("scores")}
    return [name for name, attack in ATTACKS.items() if f"{attack.scores[0]}_{suffix}" in known]


def run_attack(
    store: Store, arm: str, indices: list[int], attack: Attack, pool: Pool | None = None
) -> tuple[dict[str, Columns], dict[str, AttackCurve]]:
    """One attack on every training example, every model of the arm in turn as target.

    Args:
        store: open.
        arm: name of the arm.
        indices: its valid models, rising.
        attack: one of ATTACKS.
        pool: where a large bank is reduced; None for here.

    Returns:
        By the name of each score its columns [N] (value: the mean over targets that held the example; out: over those
        that did not), the attack success among them; and by the name of each score but that its curve.
    """
    n = store.manifest.split_sizes[0]
    targets = int(np.clip(CURVE_BYTES // (4 * n * len(attack.scores)), min(8, len(indices)), len(indices)))
    kept = {name: np.empty((targets, n), np.float32) for name in attack.scores}
    member = np.empty((targets, n), bool)
    terms = build_attack_context(store, arm, attack)
    made = partial(
        score_block, attack=attack, known=fit_attack(store, arm, indices, attack, pool), terms=terms, kept=targets
    )
    tables = ColumnBuffer(n)
    for rows, said in map_blocks(store, arm, indices, ["member", *terms.signals], made, pool=pool):
        member[:, rows] = said.member
        for name, scores in said.scores.items():
            kept[name][:, rows] = scores
        tables.add(rows, said.tables)
    curves = {
        name: AttackCurve(
            measures=compute_target_means(scores, member), band=compute_roc_band(scores, member), targets=targets
        )
        for name, scores in kept.items()
    }
    return tables.columns, curves


def fit_attack(store: Store, arm: str, indices: list[int], attack: Attack, pool: Pool | None) -> Any:
    """What an attack must know of the bank as a whole: a first pass, unless it judges each example by itself."""
    terms, parts = build_attack_context(store, arm, attack), []
    if attack.add is not None:
        train, validation, _ = store.manifest.split_sizes
        rows, member = (slice(train, train + validation), []) if attack.population else (None, ["member"])
        added = partial(added_by, attack=attack, terms=terms)
        columns = [*member, *terms.signals]
        parts = [part for _, part in map_blocks(store, arm, indices, columns, added, rows=rows, pool=pool)]
    return attack.finalize(parts, terms)


def added_by(block: Block, attack: Attack, terms: AttackContext) -> Any:
    """What a block adds to what an attack must know: one part, for those of all blocks are held at once."""
    assert attack.add is not None  # for mypy: fit_attack has asked
    return attack.add(block, terms)


def score_block(block: Block, attack: Attack, known: Any, terms: AttackContext, kept: int) -> Said:
    """What an attack says of a block: scores of the first targets, and over all of them one value an example."""
    models, n = block.columns["member"].shape
    scores = {name: np.empty((min(kept, models), n), np.float32) for name in attack.scores}
    tables = ColumnBuffer(n)
    for part in split_blocks([block]):
        inside = part.columns["member"]
        here = slice(part.rows.start - block.rows.start, part.rows.stop - block.rows.start)
        said = dict(zip(attack.scores, attack.score(part, known, terms), strict=True))
        found: dict[str, Columns] = {}
        for name, values in said.items():
            scores[name][:, here] = values[:kept]
            means = average_by_membership(values, inside)
            found[name] = {"value": means["mean_in"], "out": means["mean_out"]}
        if attack.success:
            found[attack.success] = attack_success(said[attack.scores[0]], inside)
        tables.add(here, found)
    return Said(member=block.columns["member"][:kept].copy(), scores=scores, tables=tables.columns)


@dataclass(frozen=True, kw_only=True, eq=False)
class Statistics:
    """What the statistics say of one block.

    Attributes:
        tables: by the stem of each score its columns [n].
        pieces: of the precision.
        halves: by stem what each half of the models says, [halves, n].
    """

    tables: dict[str, Columns]
    pieces: list[tuple[float, int]]
    halves: dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class ArmScores:
    """What one arm of a bank says.

    Attributes:
        arm: the design.
        suffix: ends the names of its scores, e.g. k0.500.
        models: how many models were read.
        names: scores written.
        rmse: sqrt of the mean of p (1 - p) / (n - 1) over both sides: the precision of memorization in this bank.
        rmse_block: the same seen between blocks, which knows what an orthogonal design gains; NaN for other designs and
            with fewer than three whole blocks.
        unfinished: models in blocks that are not whole.
        undefined: examples without a memorization estimate.
        reliability: of the scores that halves of the models can be compared on, by name without the suffix.
        attacks: of each score of an attack the curve over targets, by name without the suffix.
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


def score_arm(
    store: Store, name: str, shards: dict[int, str], attacks: Sequence[str] = ("lira",), pool: Pool | None = None
) -> ArmScores:
    """Write every score of one arm.

    Args:
        store: open.
        name: of the arm.
        shards: index of every valid model -> hash of its contents.
        attacks: names in ATTACKS; those that the arm was scored with before are renewed besides.
        pool: where a large bank is reduced; None for here. The scores are the same bits.

    Returns:
        The names of the scores, and what holds for the arm as a whole.

    Raises:
        ValueError: an attack that needs what the bank has not.
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
            store.write_score(score, columns, build_field_metadata(stem, columns), metadata, digest)
            written.append(score)

    tables, pieces, reliabilities = statistics_of(store, name, indices, arm, pool)
    memorized = tables["memorization"]
    rmse_block, undefined = rmse_between(memorized), int(np.isnan(memorized["value"]).sum())
    write(tables)
    del tables, memorized  # of a million examples both are large, and so is what an attack says
    curves: dict[str, AttackCurve] = {}
    for attack in dict.fromkeys([*attacks, *find_stored_attacks(store, suffix)]):
        found, curve = run_attack(store, name, indices, ATTACKS[attack], pool)
        write(found)
        curves |= curve
    return ArmScores(
        arm=arm,
        suffix=suffix,
        models=len(indices),
        names=written,
        rmse=compute_bank_rmse(pieces),
        rmse_block=rmse_block,
        unfinished=len(indices) - arm.models_per_block * len(whole_blocks_of(indices, arm.models_per_block)),
        undefined=undefined,
        reliability=reliabilities,
        attacks=curves,
    )


def statistics_of(
    store: Store, name: str, indices: Sequence[int], arm: Arm, pool: Pool | None = None
) -> tuple[dict[str, Columns], list[tuple[float, int]], dict[str, Reliability]]:
    """Memorization in its three statistics, and the C-score, in one pass.

    Args:
        store: open.
        name: of the arm.
        indices: its valid models, rising.
        arm: the design.
        pool: where a large bank is reduced; None for here.

    Returns:
        Columns [N] of each score; pieces of the precision; how far halves of the models agree on each score.
    """
    present = columns_of(store, name, indices)
    halves = draw_arm_halves(store.manifest.seed, name, np.asarray(indices) // arm.models_per_block)
    sets, blocked = [half for pair in halves for half in pair], arm.design == "orthogonal"
    blocks = whole_blocks_of(indices, arm.models_per_block) if blocked else []
    weights = count_set_weights([*sets, *blocks], len(indices))
    made = partial(statistics_in, weights=weights, halves=len(sets), blocked=blocked)
    n = store.manifest.split_sizes[0]
    tables, pieces = ColumnBuffer(n), []
    with DiskBuffer(n) as shelf:
        for rows, found in map_blocks(store, name, indices, present, made, pool=pool):
            tables.add(rows, found.tables)
            pieces += found.pieces
            for stem, values in found.halves.items():
                shelf.put(stem, rows, values)
        agree = {stem: compute_reliability(shelf.pairs(stem, SCORES[stem][2])) for stem in shelf.names}
    return tables.columns, pieces, agree


def statistics_in(block: Block, weights: np.ndarray, halves: int, blocked: bool) -> Statistics:
    """The statistics of one block, a few examples at a time.

    Args:
        block: member and correct, and logit_confidence and gap where the bank has them.
        weights: from count_set_weights, of the halves and then of whole blocks of models.
        halves: how many of them are halves.
        blocked: whether the others are blocks of an orthogonal design.

    Returns:
        What they say.
    """
    n = block.rows.stop - block.rows.start
    tables, estimates, pieces = ColumnBuffer(n), ColumnBuffer(n), []
    for part in split_blocks([block]):
        said = part.columns
        here = slice(part.rows.start - block.rows.start, part.rows.stop - block.rows.start)
        right, inside = said["correct"], said["member"]
        found = {"memorization": memorization_table(right, inside), "cscore": cscore(right, inside)}
        if "logit_confidence" in said:
            found["memorization_probability"] = memorization_probability(said["logit_confidence"], inside)
        if "gap" in said:
            found["memorization_probit"] = memorization_probit(said["gap"], inside)
        for stem, values in compute_weighted_scores(weights, said).items():
            estimates.add(here, {stem: {str(half): said_by for half, said_by in enumerate(values[:halves])}})
            if blocked:
                found[stem]["se_block"] = compute_between_block_se(values[halves:])
        tables.add(here, found)
        pieces.append(sum_variances(right, inside))
    return Statistics(
        tables=tables.columns,
        pieces=pieces,
        halves={stem: np.array(list(rows.values())) for stem, rows in estimates.columns.items()},
    )


def rmse_between(table: Columns) -> float:
    """Root mean square of the errors between blocks, over examples that have one."""
    errors = table.get("se_block", np.empty(0))
    known = errors[~np.isnan(errors)]
    return float(np.sqrt(np.mean(known**2))) if len(known) else float("nan")


def columns_of(store: Store, name: str, indices: Sequence[int]) -> list[str]:
    """What the statistics read: an imported bank may lack what its models' owner did not keep."""
    present = store.read_shard_columns(name, indices[0])
    return [column for column in SHARD_COLUMNS if column in present and column not in {"row", "top_gap"}]


def whole_blocks_of(indices: Sequence[int], block: int) -> list[np.ndarray]:
    """Positions of the models of each block that has all of them; failures, divergence and stops break blocks."""
    number = np.asarray(indices) // block
    return [np.flatnonzero(number == whole) for whole in np.flatnonzero(np.bincount(number) == block)]


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
    columns = {f"cscore_{key}" if key != "value" else "cscore": v for key, v in average_fractions(parts).items()}
    metadata = {"fractions": " ".join(f"{keep:.3f}" for keep in sorted(first))}
    digest = hash_shards("cscore", dict(enumerate(store.read_score_digest(f"cscore_{arm.suffix}") for arm in chosen)))
    store.write_score("cscore", columns, build_field_metadata("cscore", columns), metadata, digest)
    return ["cscore"]
