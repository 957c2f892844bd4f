"""What each membership attack says of one arm: scores of every example, and ROC curves over targets."""

from dataclasses import dataclass

import numpy as np

from memscore.attacks import ATTACKS, Attack
from memscore.estimators.attack_success import attack_success
from memscore.estimators.lira import lira_means
from memscore.roc import Band, TargetMean, band, over_targets
from memscore.store import Store

Columns = dict[str, np.ndarray]

CURVE_BYTES = 32 * 2**20  # scores of whole targets of one attack, kept for its curves


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
    store: Store, arm: str, indices: list[int], attack: Attack
) -> tuple[dict[str, Columns], dict[str, Curve]]:
    """One attack on every training example, every model of the arm in turn as target.

    Args:
        store: open.
        arm: name of the arm.
        indices: its valid models, rising.
        attack: one of ATTACKS.

    Returns:
        By the name of each score its columns [N] (value: the mean over targets that held the example; out: over those
        that did not), the attack success among them; and by the name of each score but that its curve.
    """
    n = store.manifest.split_sizes[0]
    targets = int(np.clip(CURVE_BYTES // (4 * n * len(attack.scores)), min(8, len(indices)), len(indices)))
    kept = {name: np.empty((targets, n), np.float32) for name in attack.scores}
    member = np.empty((targets, n), bool)
    tables: dict[str, list[Columns]] = {name: [] for name in (*attack.scores, attack.success) if name}
    for block, scores in attack.run(store, arm, indices, attack.signal, attack.scores):
        inside = block.columns["member"]
        member[:, block.rows] = inside[:targets]
        for name, said in scores.items():
            means = lira_means(said, inside)
            tables[name].append({"value": means["mean_in"], "out": means["mean_out"]})
            kept[name][:, block.rows] = said[:targets]
        if attack.success:
            tables[attack.success].append(attack_success(scores[attack.scores[0]], inside))
    curves = {
        name: Curve(measures=over_targets(said, member), band=band(said, member), targets=targets)
        for name, said in kept.items()
    }
    return {name: joined(pieces) for name, pieces in tables.items()}, curves


def joined(tables: list[Columns]) -> Columns:
    """Blocks of examples one after the other."""
    return {key: np.concatenate([table[key] for table in tables]) for key in tables[0]}
