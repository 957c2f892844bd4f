"""Membership attacks of a bank's models on each other: every model is the target in turn.

An attack is three functions: `accumulate` summarizes one block of examples, `finalize` combines the summaries into what
the attack must know of the whole bank, and `score` scores one block. So an attack reads the bank once or twice, in this
process or on many workers. Equations and sources of the attacks are in memscore/estimators.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from memscore.choices import validate_choice
from memscore.estimators.lira import combine_prior_sums, compute_prior_sums, lira_scores
from memscore.estimators.lira_prior import PriorSums, add_sums
from memscore.estimators.lira_variants import (
    LiraVariant,
    combine_std_sums,
    compute_std_sums,
    get_lira_variant,
    lira_variant_scores,
)
from memscore.estimators.rmia import RmiaConfig, count_exceeded, rmia_population, rmia_ratio
from memscore.estimators.shadow_models import ShadowModels, find_blocks_of_shadows
from memscore.store.block_reader import Block, split_blocks
from memscore.store.store import Store
from memscore.subsets.designs import parse_arm_record

SAMPLE_ROWS = 4096
"""Training examples, the first ones, by which models are compared to find outlying ones."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AttackContext:
    """What an attack needs to know about an arm.

    Attributes:
        signals: the columns of the attack's signal, one for each query (test-time augmentation), first the image's.
        keep: the share of the training set on which a model of the arm is trained.
        shadows: the models as shadows of each other, by the first signal.
    """

    signals: tuple[str, ...]
    keep: float
    shadows: ShadowModels


@dataclass(frozen=True, kw_only=True)
class Attack:
    """One membership attack.

    Attributes:
        signal: the shard column that it reads.
        scores: names of its scores, without the suffix for the keep fraction.
        evidence: the one of `scores` that attack success is computed from: a log-likelihood ratio, or RMIA's ratio.
        success: name of its attack success, of the evidence's log-odds at threshold 0; the soft one has "soft_" before.
        accumulate: (block, context) -> summary of the block, small because those of all blocks are held at once; None
            if each example is scored by itself.
        combine: (the summaries so far, the next one) -> their summary; None if all are needed one by one.
        finalize: (the blocks' summaries in order, or one of all, context) -> state, what `score` must know of the bank.
        score: (block, state, context) -> float64 [M, n] for each of scores.
        population: whether it compares with validation examples: `accumulate` then gets them, not training examples,
            and `evidence` is computed without a state (None).
        is_ratio: whether `evidence` is a ratio, whose log-odds are its logarithm.
        ordered_by: name of a score -> another of `scores` by which its ROC curve orders examples: the order is the
            same, with the ties broken. The other has no curve of its own.
    """

    signal: str
    scores: tuple[str, ...]
    evidence: str
    success: str
    accumulate: Callable[[Block, AttackContext], Any] | None
    combine: Callable[[Any, Any], Any] | None
    finalize: Callable[[Iterable[Any], AttackContext], Any]
    score: Callable[[Block, Any, AttackContext], list[np.ndarray]]
    population: bool = False
    is_ratio: bool = False
    ordered_by: Mapping[str, str] = field(default_factory=dict)

    @property
    def soft_success(self) -> str:
        """Name of its soft attack success."""
        return f"soft_{self.success}"

    @property
    def curves(self) -> dict[str, str]:
        """Name of each ROC curve -> the score that orders its examples."""
        refining = set(self.ordered_by.values())
        return {name: self.ordered_by.get(name, name) for name in self.scores if name not in refining}

    def compute_log_odds(self, scores: Mapping[str, np.ndarray]) -> np.ndarray:
        """Compute the log-odds of a member at even prior odds from the attack's scores, [M, n]."""
        evidence = scores[self.evidence]
        return np.log(evidence) if self.is_ratio else evidence


def build_attack_context(store: Store, arm: str, attack: Attack, indices: Sequence[int]) -> AttackContext:
    """Build the context of an attack on these models of an arm; RMIA uses only the original images."""
    [context] = build_attack_contexts(store, arm, attack, indices, [np.arange(len(indices))])
    return context


def build_attack_contexts(
    store: Store, arm: str, attack: Attack, indices: Sequence[int], parts: Iterable[np.ndarray]
) -> list[AttackContext]:
    """Build the contexts of an attack on parts of these models, given as positions: each as of a bank of its own."""
    record = store.arms()[arm]
    design = parse_arm_record(record)
    queries = 1 if attack.population else record.get("queries", 1)
    signals = (attack.signal, *(f"{attack.signal}_q{number}" for number in range(1, queries)))
    # always the same examples, so that neither the workers nor the size of a block matters
    rows, whole = slice(0, min(SAMPLE_ROWS, store.manifest.split_sizes[0])), 2**62
    [sample] = store.read_blocks(arm, list(indices), [attack.signal], rows, max_bytes=whole)
    contexts = []
    for part in parts:
        models, blocks = np.asarray(indices)[part], None
        if design.design == "orthogonal":
            blocks = find_blocks_of_shadows(models, design.models_per_block)
        shadows = ShadowModels.from_sample(sample.columns[attack.signal][part], design.keep, blocks)
        contexts.append(AttackContext(signals=signals, keep=design.keep, shadows=shadows))
    return contexts


# Functions of the module with options bound by partial, no lambdas: a pass on a pool pickles them (MapSpec.map_fn).
def compute_student_sums(block: Block, context: AttackContext) -> list[PriorSums]:
    """Sum what a block's examples say, for the Student-t prior of each query."""
    member = block.columns["member"]
    return [compute_prior_sums(block.columns[signal], member, context.shadows) for signal in context.signals]


def add_student_sums(total: list[PriorSums], part: list[PriorSums]) -> list[PriorSums]:
    """Add the sums of further examples, query by query."""
    return [add_sums(sums) for sums in zip(total, part, strict=True)]


def combine_student_sums(parts: Iterable[list[PriorSums]], context: AttackContext) -> list[Any]:
    """Combine the sums of all blocks into one ShadowPrior per query."""
    # parts are blocks of queries; zip turns them into queries of blocks
    return [combine_prior_sums(sums, context.shadows) for sums in zip(*parts, strict=True)]


def score_student_lira(block: Block, priors: list[Any], context: AttackContext) -> list[np.ndarray]:
    """Score a block by LiRA with Student-t predictives, online and offline, mean over queries."""
    # per query (online, offline); the mean over queries leaves one [M, n] of each
    signals, member = [block.columns[signal] for signal in context.signals], block.columns["member"]
    scores = [lira_scores(phi, member, prior) for phi, prior in zip(signals, priors, strict=True)]
    return list(scores[0] if len(scores) == 1 else np.mean(scores, axis=0))


def compute_variant_sums(block: Block, context: AttackContext, *, variant: LiraVariant) -> np.ndarray:
    """Sum the deviations of a block's shadows, for the shared variance of a LiRA variant."""
    # in parts that stay in the cache: the stack of all queries of a whole block is Q times as large as the block
    sums = [
        compute_std_sums(stack_signals(part, context), part.columns["member"], context.shadows, variant)
        for part in split_blocks([block])
    ]
    total: np.ndarray = np.sum(sums, axis=0)
    return total


def combine_variant_sums(parts: Iterable[np.ndarray], context: AttackContext) -> Any:
    """Combine the sums of all blocks into a SharedStd; NaN for a variant without a shared variance."""
    return combine_std_sums(parts, context.shadows)


def score_variant(block: Block, std: Any, context: AttackContext, *, variant: LiraVariant) -> list[np.ndarray]:
    """Score a block by a LiRA variant of a paper or its code, mean over queries."""
    return list(lira_variant_scores(stack_signals(block, context), block.columns["member"], variant, std))


def stack_signals(block: Block, context: AttackContext) -> np.ndarray:
    """Stack the signal under every query, [Q, M, n]."""
    return np.stack([block.columns[signal] for signal in context.signals])


def read_population(block: Block, context: AttackContext) -> np.ndarray:
    """Return the confidences of the population, for RMIA."""
    return block.columns[context.signals[0]]


def build_population(parts: Iterable[np.ndarray], context: AttackContext, *, config: RmiaConfig) -> np.ndarray:
    """Build RMIA's sorted population ratios from the confidences of all validation examples."""
    return rmia_population(np.concatenate(list(parts), axis=1), config)


def score_rmia(
    block: Block, population: np.ndarray | None, context: AttackContext, *, config: RmiaConfig
) -> list[np.ndarray]:
    """Score a block by RMIA: the share of a population that is exceeded, NaN without one, and the ratio."""
    ratio = rmia_ratio(block.columns[context.signals[0]], block.columns["member"], context.keep, config)
    share = np.full(ratio.shape, np.nan) if population is None else count_exceeded(ratio, population, config)
    return [share, ratio]


def make_lira(signal: str, ending: str) -> Attack:
    """Make the default LiRA attack on one signal."""
    return Attack(
        signal=signal,
        scores=(f"lira{ending}", f"lira{ending}_offline"),
        evidence=f"lira{ending}",
        success=f"attack_success{ending}",
        accumulate=compute_student_sums,
        combine=add_student_sums,
        finalize=combine_student_sums,
        score=score_student_lira,
    )


def make_lira_variant(name: str, ending: str) -> Attack:
    """Make the attack of a LiRA variant on logit confidence."""
    variant = get_lira_variant(name)
    return Attack(
        signal="logit_confidence",
        scores=(f"lira{ending}", f"lira{ending}_offline"),
        evidence=f"lira{ending}",
        success=f"attack_success{ending}",
        accumulate=None if variant.variance == "per-example" else partial(compute_variant_sums, variant=variant),
        combine=np.add,
        finalize=combine_variant_sums,
        score=partial(score_variant, variant=variant),
    )


def make_rmia(kind: str, name: str) -> Attack:
    """Make the RMIA attack: its share of the population, and the ratio, whose threshold is 1."""
    config = RmiaConfig(kind=kind)
    return Attack(
        signal="logit_confidence",
        scores=(name, f"{name}_ratio"),
        evidence=f"{name}_ratio",
        success=f"attack_success_{name}",
        accumulate=read_population,
        combine=None,
        finalize=partial(build_population, config=config),
        score=partial(score_rmia, config=config),
        population=True,
        is_ratio=True,
        ordered_by={name: f"{name}_ratio"},
    )


ATTACKS: dict[str, Attack] = {
    "lira": make_lira("logit_confidence", ""),
    "lira-gap": make_lira("gap", "_gap"),
    "lira-top-gap": make_lira("top_gap", "_top_gap"),
    "lira-paper": make_lira_variant("paper", "_paper"),
    "lira-released": make_lira_variant("released", "_released"),
    "lira-released-fixed": make_lira_variant("released-fixed", "_released_fixed"),
    "lira-advanced-mia-fixed": make_lira_variant("advanced-mia-fixed", "_advanced_mia_fixed"),
    "rmia": make_rmia("online", "rmia"),
    "rmia-offline": make_rmia("offline", "rmia_offline"),
}
"""Attacks by the name that --attacks takes; lira-top-gap is RSU's label-agnostic statistic. The variant advanced-mia
without its shared variance is lira-released."""


def check_attacks(names: Iterable[str], columns: Collection[str], validation: int) -> None:
    """Raise before anything is trained or written if an attack is impossible.

    ValueError for an attack that is unknown, reads none of the shards' `columns`, or compares with validation examples
    where `validation`, their number, is 0.
    """
    for name in names:
        attack = ATTACKS[validate_choice("attack", name, ATTACKS)]
        if attack.signal not in columns:
            # an imported bank may have fewer columns; name the attacks that its columns and examples allow
            possible = [
                other
                for other, other_attack in ATTACKS.items()
                if other_attack.signal in columns and (validation or not other_attack.population)
            ]
            hint = f"use {', '.join(possible)}" if possible else "it stores no logits, so no attack is possible"
            raise ValueError(f"the attack {name} reads {attack.signal}, which this bank does not store; {hint}")
        if attack.population and not validation:
            raise ValueError(
                f"--attacks {name} compares with validation examples, and this bank has none; leave it out, or create "
                "a bank with `python -m memscore.estimate --validation 0.1`"
            )
