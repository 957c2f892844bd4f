"""Repeat an attack on halves of a bank's models, and on the bank without information, in the passes over the bank.

Halves. How reliable attack success is, two disjoint halves of the models tell. Each half is a bank of its own: its
models are the targets, and only its models are their shadows. With all other models as shadows two halves would share
the errors of the shadows' estimates, which are most of the error, and would agree too well. So the halves' agreement,
stepped up to all models, is that of two banks of this size, as far as half of the shadows make the same errors, only
larger. It is somewhat too high: by up to .07 in simulations, .02 to .08 between parts of banks (docs/benchmarks.md).

No information. The confidences of each example are permuted over the models, each example by a permutation of its own,
while memberships stay as they are. So a confidence says nothing of membership, and what remains is the design, the
fraction, the number of models and how the confidences are distributed. What an attack without information scores
depends on all of them: at keep 0.75 attack success is .61 with 8 models and .52 with 64.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from memscore.estimators.attack_success import attack_success
from memscore.estimators.soft_attack_success import soft_attack_success
from memscore.pipeline.attacks import Attack, AttackContext
from memscore.pipeline.map_reduce import DiskBuffer
from memscore.seeds import generator
from memscore.statistics.reliability import Reliability, compute_reliability, draw_arm_halves, draw_random_halves
from memscore.store.block_reader import Block
from memscore.store.store import Store
from memscore.subsets.designs import parse_arm_record

Columns = dict[str, np.ndarray]

PAIRS_CELLS, MAX_PAIRS = 2**22, 2
"""Models x examples of all pairs of halves together, but one pair at least; and the most pairs."""
PERMUTED_CELLS, MIN_PERMUTED, MAX_COPIES = 2**17, 256, 16
"""Models x examples without information: an error of the mean of some .002, in a small bank .004; the least number of
examples; and how often each example of a small bank is permuted."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AttackRepeats:
    """The further banks that an attack is repeated on, a function of the bank alone.

    Attributes:
        seed: the bank's root seed.
        arm: name of the arm.
        halves: positions of models, two halves of a pair in succession; none with fewer than four models.
        are_whole_blocks: the halves keep the design's blocks whole; one block is cut in two, which its examples'
            intervals need, but that is no reliability of the design.
        stride: every how many examples are permuted.
        copies: how often each of them is, by another permutation.
    """

    seed: int
    arm: str
    halves: tuple[np.ndarray, ...]
    are_whole_blocks: bool
    stride: int
    copies: int

    def take_halves(self, block: Block) -> Iterator[Block]:
        """Yield the block as each half of the models has it."""
        for models in self.halves:
            yield Block(rows=block.rows, columns={name: values[models] for name, values in block.columns.items()})

    def take_permuted(self, block: Block) -> Block | None:
        """Permute the signals of every so many examples over the models; None without such an example."""
        rows = [row for row in range(block.rows.start, block.rows.stop) if row % self.stride == 0]
        if not rows:
            return None
        # by the example's row, so that neither blocks nor workers change what is drawn; one order for all queries
        models, order = len(block.columns["member"]), []
        for row in rows:
            rng = generator(self.seed, "halves", f"{self.arm}, permuted", row)
            order += [rng.permutation(models) for _ in range(self.copies)]
        positions = np.repeat(np.subtract(rows, block.rows.start), self.copies)
        chosen = {name: values[:, positions] for name, values in block.columns.items()}
        columns = {
            name: values if name == "member" else np.take_along_axis(values, np.stack(order, axis=1), axis=0)
            for name, values in chosen.items()
        }
        return Block(rows=slice(0, len(order)), columns=columns)


def plan_repeats(store: Store, arm: str, indices: list[int]) -> AttackRepeats:
    """Draw halves, whole blocks where there are two or more, and choose which examples are permuted."""
    n, models, seed = store.manifest.split_sizes[0], len(indices), store.manifest.seed
    pairs = int(np.clip(PAIRS_CELLS // (models * n), 1, MAX_PAIRS))
    blocks = np.asarray(indices) // parse_arm_record(store.arms()[arm]).models_per_block
    halves = draw_arm_halves(seed, arm, blocks)[:pairs]
    are_whole_blocks = bool(halves)
    if not halves and models >= 4:
        halves = draw_random_halves(np.arange(models), generator(seed, "halves", arm), pairs)
    return AttackRepeats(
        seed=seed,
        arm=arm,
        halves=tuple(half for pair in halves for half in pair),
        are_whole_blocks=are_whole_blocks,
        stride=max(n // max(PERMUTED_CELLS // models, MIN_PERMUTED), 1),
        copies=int(np.clip(PERMUTED_CELLS // (4 * models * n), 1, MAX_COPIES)),
    )


@dataclass(frozen=True, kw_only=True)
class SuccessSummary:
    """Attack success, hard or soft, over the examples on which it is defined.

    Attributes:
        mean: over the examples.
        no_information: the same of the attack without information, for this design and number of models.
        reliability: from halves of the models, each with shadow models of its own; None without whole blocks in both.
    """

    mean: float
    no_information: float
    reliability: Reliability | None


def score_success(block: Block, attack: Attack, state: Any, context: AttackContext) -> dict[str, Columns]:
    """Score a block by an attack, and compute its attack success, hard and soft."""
    scores = score_targets(block, attack, state, context)
    return compute_success(attack.compute_log_odds(scores), block.columns["member"], attack, context)


def score_targets(block: Block, attack: Attack, state: Any, context: AttackContext) -> dict[str, np.ndarray]:
    """Score a block by an attack, by name [M, n]; NaN for outlying models, whose scores say nothing of an example."""
    scores = dict(zip(attack.scores, attack.score(block, state, context), strict=True))
    if context.shadows.outlying.any():
        scores = {name: np.where(context.shadows.outlying[:, None], np.nan, values) for name, values in scores.items()}
    return scores


def compute_success(
    log_odds: np.ndarray, member: np.ndarray, attack: Attack, context: AttackContext
) -> dict[str, Columns]:
    """Compute attack success, hard and soft, from the log-odds for every target, [M, n]."""
    return {
        attack.success: attack_success(log_odds, member),
        attack.soft_success: soft_attack_success(log_odds, member, context.keep),
    }


def compute_rms_difference(buffer: DiskBuffer, name: str, n: int) -> np.ndarray:
    """Compute the root mean square difference [n] of the two values of each pair of halves; NaN without a pair."""
    total, pairs = np.zeros(n), 0
    for first, second in buffer.read_pairs(name, 1) if name in buffer.names else ():
        total, pairs = total + (first - second) ** 2, pairs + 1
    return np.sqrt(total / pairs) if pairs else np.full(n, np.nan)


def summarize_success(
    tables: dict[str, Columns], buffer: DiskBuffer, permuted: dict[str, list[np.ndarray]], *, are_reliable: bool
) -> dict[str, SuccessSummary]:
    """Summarize each attack success: its mean, that without information, and how far halves of the models agree."""
    return {
        name: SuccessSummary(
            mean=average_defined(tables[name]["value"]),
            no_information=average_defined(np.concatenate(values)),
            reliability=compute_reliability(buffer.read_pairs(name, 1)) if are_reliable else None,
        )
        for name, values in permuted.items()
    }


def average_defined(values: np.ndarray) -> float:
    """Compute the mean of the values that are not NaN; NaN without any."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")
