"""The membership attacks that a bank turns on its own models, by name: every model in turn is the target.

An attack is three functions: what each block of examples adds to what it must know of the bank as a whole, what that
comes to, and what it then says of each block. So it goes over the bank once or twice, here or on many workers. What
each attack is, with its equation and source, stands in memscore/estimators.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from memscore.choices import validate_choice
from memscore.estimators.lira import PriorSums, combine_prior_sums, compute_prior_sums, lira_scores
from memscore.estimators.lira_variants import (
    LiraVariant,
    combine_std_sums,
    compute_std_sums,
    get_lira_variant,
    lira_variant_scores,
)
from memscore.estimators.rmia import RmiaConfig, rmia, rmia_population
from memscore.store.block_reader import Block, split_blocks
from memscore.store.store import Store
from memscore.subsets.designs import parse_arm_record


@dataclass(frozen=True, kw_only=True)
class AttackContext:
    """What an attack is told of the arm.

    Attributes:
        signals: the columns of the attack's signal, one for each query.
        keep: the arm's share of examples a model.
    """

    signals: tuple[str, ...]
    keep: float


@dataclass(frozen=True, kw_only=True)
class Attack:
    """One attack.

    Attributes:
        signal: the shard column that it reads.
        scores: the names of what it gives, without the fraction that ends them.
        success: name of the attack success that its first score gives at threshold 0; None if 0 is no threshold of it.
        add: (block, terms) -> what a block adds, little as all of it is held at once; None if each example is judged by
            itself.
        finalize: (what the blocks added, in order; terms) -> what it must know.
        score: (block, what it knows, terms) -> float64 [M, n] for each of scores.
        population: whether it compares with validation examples: `add` is then given them, and not training examples.
    """

    signal: str
    scores: tuple[str, ...]
    success: str | None
    add: Callable[[Block, AttackContext], Any] | None
    finalize: Callable[[Iterable[Any], AttackContext], Any]
    score: Callable[[Block, Any, AttackContext], list[np.ndarray]]
    population: bool = False


def build_attack_context(store: Store, arm: str, attack: Attack) -> AttackContext:
    """What an attack is told of an arm; of RMIA's several queries the plain one."""
    record = store.arms()[arm]
    queries = 1 if attack.population else record.get("queries", 1)
    signals = (attack.signal, *(f"{attack.signal}_q{number}" for number in range(1, queries)))
    return AttackContext(signals=signals, keep=parse_arm_record(record).keep)


def student_sums(block: Block, terms: AttackContext) -> list[PriorSums]:
    """LiRA with Student-t predictives: what a block adds to the pool of each query."""
    return [compute_prior_sums(block.columns[signal], block.columns["member"]) for signal in terms.signals]


def student_pools(parts: Iterable[list[PriorSums]], terms: AttackContext) -> list[Any]:
    """Its pool of each query."""
    return [combine_prior_sums(own) for own in zip(*parts, strict=True)]


def student(block: Block, pools: list[Any], terms: AttackContext) -> list[np.ndarray]:
    """LiRA with Student-t predictives, online and offline; with several queries the mean over them."""
    said, member = [block.columns[signal] for signal in terms.signals], block.columns["member"]
    each = [lira_scores(phi, member, pool) for phi, pool in zip(said, pools, strict=True)]
    return list(each[0] if len(each) == 1 else np.mean(each, axis=0))


def classic_sums(block: Block, terms: AttackContext, *, form: LiraVariant) -> np.ndarray:
    """LiRA in a form with a shared variance: what a block adds to it, a few examples at a time."""
    parts = [compute_std_sums(stacked(p, terms), p.columns["member"], terms.keep, form) for p in split_blocks([block])]
    together: np.ndarray = np.sum(parts, axis=0)
    return together


def classic_spread(parts: Iterable[np.ndarray], terms: AttackContext) -> Any:
    """Its shared variances; without parts NaN."""
    return combine_std_sums(parts, terms.keep)


def classic(block: Block, spread: Any, terms: AttackContext, *, form: LiraVariant) -> list[np.ndarray]:
    """LiRA in a form that papers and their code use; with several queries the mean over them."""
    return list(lira_variant_scores(stacked(block, terms), block.columns["member"], form, spread))


def stacked(block: Block, terms: AttackContext) -> np.ndarray:
    """The signal under every query, [Q, M, n]."""
    return np.stack([block.columns[signal] for signal in terms.signals])


def confidences(block: Block, terms: AttackContext) -> np.ndarray:
    """RMIA: the population as it was read."""
    return block.columns[terms.signals[0]]


def sorted_population(parts: Iterable[np.ndarray], terms: AttackContext, *, config: RmiaConfig) -> np.ndarray:
    """RMIA: the population, ready to be searched; all of it is kept."""
    return rmia_population(np.concatenate(list(parts), axis=1), config)


def relative(block: Block, population: np.ndarray, terms: AttackContext, *, config: RmiaConfig) -> list[np.ndarray]:
    """RMIA against the validation examples, which no model of the bank has held."""
    return [rmia(block.columns[terms.signals[0]], block.columns["member"], population, terms.keep, config)]


def lira_of(signal: str, ending: str) -> Attack:
    """The default LiRA on one signal."""
    return Attack(
        signal=signal,
        scores=(f"lira{ending}", f"lira{ending}_offline"),
        success=f"attack_success{ending}",
        add=student_sums,
        finalize=student_pools,
        score=student,
    )


def classic_of(name: str, ending: str) -> Attack:
    """A classic LiRA on logit confidence."""
    form = get_lira_variant(name)
    return Attack(
        signal="logit_confidence",
        scores=(f"lira{ending}", f"lira{ending}_offline"),
        success=f"attack_success{ending}",
        add=None if form.variance == "per-example" else partial(classic_sums, form=form),
        finalize=classic_spread,
        score=partial(classic, form=form),
    )


def rmia_of(kind: str, name: str) -> Attack:
    """RMIA; its score is a share of the population, which has no threshold of its own."""
    config = RmiaConfig(kind=kind)
    return Attack(
        signal="logit_confidence",
        scores=(name,),
        success=None,
        add=confidences,
        finalize=partial(sorted_population, config=config),
        score=partial(relative, config=config),
        population=True,
    )


ATTACKS: dict[str, Attack] = {
    "lira": lira_of("logit_confidence", ""),
    "lira-gap": lira_of("gap", "_gap"),
    "lira-top-gap": lira_of("top_gap", "_top_gap"),
    "lira-paper": classic_of("paper", "_paper"),
    "lira-released": classic_of("released", "_released"),
    "lira-released-fixed": classic_of("released-fixed", "_released_fixed"),
    "lira-advanced-mia-fixed": classic_of("advanced-mia-fixed", "_advanced_mia_fixed"),
    "rmia": rmia_of("online", "rmia"),
    "rmia-offline": rmia_of("offline", "rmia_offline"),
}
"""By the name that --attacks takes; lira-top-gap is RSU's label-agnostic statistic. The form advanced-mia without its
shared variance is lira-released."""


def check_attacks(names: Iterable[str], columns: Collection[str], validation: int) -> None:
    """Stop before anything is trained or written if an attack cannot be made.

    Args:
        names: attacks asked for.
        columns: of the bank's shards.
        validation: how many validation examples the bank has.

    Raises:
        ValueError: an attack that is unknown, reads a number that the bank does not keep, or compares with validation
            examples where there are none.
    """
    for name in names:
        attack = ATTACKS[validate_choice("attack", name, ATTACKS)]
        if attack.signal not in columns:
            able = [other for other, a in ATTACKS.items() if a.signal in columns and (validation or not a.population)]
            kept = f"it keeps what {', '.join(able)} read" if able else "it keeps no logits, so nothing can be attacked"
            raise ValueError(f"the attack {name} reads {attack.signal}, which this bank does not keep; {kept}")
        if attack.population and not validation:
            raise ValueError(
                f"--attacks {name} compares with validation examples, and this bank has none; leave it out, or begin a "
                "bank with `python -m memscore.estimate --validation 0.1`"
            )
