"""What an audited model is compared with: the bank's own models, each audited with the others as shadow models."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from memscore.pipeline.attacks import ATTACKS, build_attack_context
from memscore.statistics.roc import auc, delong_variance
from memscore.store.block_reader import split_blocks
from memscore.store.store import Store

BLOCK_BYTES = 64 * 2**20  # of two consecutive blocks of the bank
TARGET_BYTES = 64 * 2**20  # of the scores of all targets
TARGETS = 64
"""Models of the bank that are attacked, at most, evenly spread."""
HELD_OUT_ROWS = 2000
"""Validation or test examples on which confidences are compared, at most, evenly spread."""
SIGNAL = "logit_confidence"


@dataclass(frozen=True, kw_only=True, eq=False)
class ShadowTargets:
    """The bank's own models as targets of the audit's main attack, LiRA online.

    Attributes:
        aucs: of each target [T], NaN where it has no score.
        auc_se: mean of their standard errors over the examples.
        scores: float32 [T, N], of each training example against each target; NaN where it has none.
        member: bool [T, N].
    """

    aucs: np.ndarray
    auc_se: float
    scores: np.ndarray
    member: np.ndarray

    @property
    def mean_auc(self) -> float:
        """Mean over the targets that have an AUC; NaN if none has."""
        defined = self.aucs[~np.isnan(self.aucs)]
        return float(defined.mean()) if len(defined) else float("nan")


def attack_shadow_models(store: Store, arm: str, indices: Sequence[int]) -> ShadowTargets:
    """Attack models of an arm with all others, on the images alone as an audit does, in two passes over the bank."""
    attack = ATTACKS["lira"]
    assert attack.accumulate is not None  # for mypy: LiRA fits a prior first
    # one query: an audited model is evaluated on the images alone, whatever the bank's own models were
    context = replace(build_attack_context(store, arm, attack, indices), signals=(SIGNAL,))
    columns, n = ["member", SIGNAL], store.manifest.split_sizes[0]
    blocks = store.read_blocks(arm, indices, columns, None, BLOCK_BYTES)
    state = attack.finalize((attack.accumulate(block, context) for block in blocks), context)
    count = int(np.clip(TARGET_BYTES // (4 * n), min(8, len(indices)), min(TARGETS, len(indices))))
    # an outlying model is no target: it would decide what to expect of the audited one
    regular = np.flatnonzero(~context.shadows.outlying)
    targets = np.unique(regular[np.linspace(0, len(regular) - 1, count).astype(np.int64)])
    scores, member = np.empty((len(targets), n), np.float32), np.empty((len(targets), n), bool)
    for part in split_blocks(store.read_blocks(arm, indices, columns, None, BLOCK_BYTES)):
        online, *_ = attack.score(part, state, context)
        scores[:, part.rows], member[:, part.rows] = online[targets], part.columns["member"][targets]
    pairs = [(row[~np.isnan(row)], held[~np.isnan(row)]) for row, held in zip(scores, member, strict=True)]
    errors = np.sqrt([delong_variance(*pair) for pair in pairs])
    return ShadowTargets(
        aucs=np.array([auc(*pair) for pair in pairs]),
        auc_se=float(np.mean(errors[~np.isnan(errors)])) if not np.isnan(errors).all() else float("nan"),
        scores=scores,
        member=member,
    )


def compute_shadow_accuracies(store: Store, arm: str, indices: Sequence[int]) -> dict[str, np.ndarray]:
    """Compute each model's accuracy [M] on its members, on the other training examples, and on the held-out splits.

    Keys are those of an audited model's groups; NaN over no examples.
    """
    hits = {name: np.zeros(len(indices)) for name in ("members", "others", "train", "validation", "test")}
    counts = {name: np.zeros(len(indices)) for name in hits}
    n_train, n_validation, _ = store.manifest.split_sizes
    every_row = slice(0, store.manifest.n_rows)
    for block in store.read_blocks(arm, indices, ["member", "correct"], every_row, BLOCK_BYTES):
        correct, member = block.columns["correct"], block.columns["member"]
        rows = np.arange(block.rows.start, block.rows.stop)
        is_train, is_test = rows < n_train, rows >= n_train + n_validation
        groups = {
            "members": member & is_train,
            "others": ~member & is_train,
            "train": np.broadcast_to(is_train, member.shape),
            "validation": np.broadcast_to(~is_train & ~is_test, member.shape),
            "test": np.broadcast_to(is_test, member.shape),
        }
        for name, group in groups.items():
            hits[name] += (correct & group).sum(1)
            counts[name] += group.sum(1)
    return {
        name: np.divide(hits[name], counts[name], out=np.full(len(indices), np.nan), where=counts[name] > 0)
        for name in hits
    }


def read_held_out(store: Store, arm: str, indices: Sequence[int]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Read the confidences in held-out examples: split -> their rows [n], confidence of every model [M, n]."""
    n_train, n_validation, n_test = store.manifest.split_sizes
    found = {}
    for split, start, size in (("validation", n_train, n_validation), ("test", n_train + n_validation, n_test)):
        if not size:
            continue
        rows = np.unique(np.linspace(start, start + size - 1, min(size, HELD_OUT_ROWS)).astype(np.int64))
        parts = [
            block.columns[SIGNAL][:, rows[(rows >= block.rows.start) & (rows < block.rows.stop)] - block.rows.start]
            for block in store.read_blocks(arm, indices, [SIGNAL], slice(start, start + size), BLOCK_BYTES)
        ]
        found[split] = (rows, np.concatenate(parts, axis=1))
    return found
