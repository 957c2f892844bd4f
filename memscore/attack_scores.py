"""What each membership attack says of one arm: scores of every example, and ROC curves over targets."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from memscore.attacks import ATTACKS, Attack, Terms, terms_of
from memscore.estimators.attack_success import attack_success
from memscore.estimators.lira import lira_means
from memscore.reducing import Gathered, Pool, reduced
from memscore.statistics.roc import Band, TargetMean, band, over_targets
from memscore.store.block_reader import Block, narrow
from memscore.store.store import Store

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
class Curve:
    """How well one score of an attack tells members from others, over targets.

    Attributes:
        measures: "auc", "tpr_at_0.001", "tpr_at_0.01".
        band: the curve.
        targets: how many it is over.
    """

    measures: dict[str, TargetMean]
    band: Band
    targets: int


def attacks_on_file(store: Store, suffix: str) -> list[str]:
    """Attacks that a bank's arm was scored with before, which a new run renews."""
    known = {name.removesuffix(".parquet") for name in store.folder.names("scores")}
    return [name for name, attack in ATTACKS.items() if f"{attack.scores[0]}_{suffix}" in known]


def run_attack(
    store: Store, arm: str, indices: list[int], attack: Attack, pool: Pool | None = None
) -> tuple[dict[str, Columns], dict[str, Curve]]:
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
    terms = terms_of(store, arm, attack)
    made = partial(said_of, attack=attack, known=known_of(store, arm, indices, attack, pool), terms=terms, kept=targets)
    tables = Gathered(n)
    for rows, said in reduced(store, arm, indices, ["member", *terms.signals], made, pool=pool):
        member[:, rows] = said.member
        for name, scores in said.scores.items():
            kept[name][:, rows] = scores
        tables.add(rows, said.tables)
    curves = {
        name: Curve(measures=over_targets(scores, member), band=band(scores, member), targets=targets)
        for name, scores in kept.items()
    }
    return tables.columns, curves


def known_of(store: Store, arm: str, indices: list[int], attack: Attack, pool: Pool | None) -> Any:
    """What an attack must know of the bank as a whole: a first pass, unless it judges each example by itself."""
    terms, parts = terms_of(store, arm, attack), []
    if attack.add is not None:
        train, validation, _ = store.manifest.split_sizes
        rows, member = (slice(train, train + validation), []) if attack.population else (None, ["member"])
        added = partial(added_by, attack=attack, terms=terms)
        columns = [*member, *terms.signals]
        parts = [part for _, part in reduced(store, arm, indices, columns, added, rows=rows, pool=pool)]
    return attack.settle(parts, terms)


def added_by(block: Block, attack: Attack, terms: Terms) -> Any:
    """What a block adds to what an attack must know: one part, for those of all blocks are held at once."""
    assert attack.add is not None  # for mypy: known_of has asked
    return attack.add(block, terms)


def said_of(block: Block, attack: Attack, known: Any, terms: Terms, kept: int) -> Said:
    """What an attack says of a block: scores of the first targets, and over all of them one value an example."""
    models, n = block.columns["member"].shape
    scores = {name: np.empty((min(kept, models), n), np.float32) for name in attack.scores}
    tables = Gathered(n)
    for part in narrow([block]):
        inside = part.columns["member"]
        here = slice(part.rows.start - block.rows.start, part.rows.stop - block.rows.start)
        said = dict(zip(attack.scores, attack.say(part, known, terms), strict=True))
        found: dict[str, Columns] = {}
        for name, values in said.items():
            scores[name][:, here] = values[:kept]
            means = lira_means(values, inside)
            found[name] = {"value": means["mean_in"], "out": means["mean_out"]}
        if attack.success:
            found[attack.success] = attack_success(said[attack.scores[0]], inside)
        tables.add(here, found)
    return Said(member=block.columns["member"][:kept].copy(), scores=scores, tables=tables.columns)
