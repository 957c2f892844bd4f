"""The membership attacks that a bank turns on its own models, by name: every model in turn is the target.

An attack is a generator over blocks of training examples; it makes as many passes over the bank as it needs. What each
is, with its equation and source, stands in memscore/estimators.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from memscore.estimators.lira import lira_pool, lira_scores
from memscore.estimators.lira_modes import classic_scores, form_named, shared_spread
from memscore.estimators.rmia import RmiaConfig, rmia, rmia_population
from memscore.matrix import narrow
from memscore.names import pick
from memscore.store import Block, Store
from memscore.subsets import arm_from

BYTES = 44 * 2**20  # of two blocks as read: one row group of two columns of 2,000 models

Scored = tuple[Block, dict[str, np.ndarray]]
"""A block with its memberships, and by the name of each score what the attack says, float64 [M, n]."""


@dataclass(frozen=True, kw_only=True)
class Attack:
    """One attack.

    Attributes:
        signal: the shard column that it reads.
        scores: the names of what it gives, without the fraction that ends them.
        success: name of the attack success that its first score gives at threshold 0; None if 0 is no threshold of it.
        run: (store, arm, models, signal, names of its scores) -> blocks.
        population: whether it compares with validation examples.
    """

    signal: str
    scores: tuple[str, ...]
    success: str | None
    run: Callable[[Store, str, Sequence[int], str, tuple[str, ...]], Iterator[Scored]]
    population: bool = False


def student(store: Store, arm: str, indices: Sequence[int], signal: str, names: tuple[str, ...]) -> Iterator[Scored]:
    """LiRA with Student-t predictives, online and offline; with several queries the mean over them."""
    signals = queried(store, arm, signal)
    pools = [lira_pool((b.columns[q], b.columns["member"]) for b in read(store, arm, indices, q)) for q in signals]
    for block in read(store, arm, indices, *signals):
        said = block.columns
        each = [lira_scores(said[q], said["member"], pool) for q, pool in zip(signals, pools, strict=True)]
        yield block, dict(zip(names, each[0] if len(each) == 1 else np.mean(each, axis=0), strict=True))


def classic(
    store: Store, arm: str, indices: Sequence[int], signal: str, names: tuple[str, ...], *, form: str
) -> Iterator[Scored]:
    """LiRA in a form that papers and their code use; with several queries the mean over them."""
    chosen, keep = form_named(form), arm_from(store.arms()[arm]).keep
    signals = queried(store, arm, signal)
    pieces = (
        (np.stack([b.columns[q] for q in signals]), b.columns["member"]) for b in read(store, arm, indices, *signals)
    )
    spread = shared_spread(pieces, keep, chosen)
    for block in read(store, arm, indices, *signals):
        said = np.stack([block.columns[q] for q in signals])
        yield block, dict(zip(names, classic_scores(said, block.columns["member"], chosen, spread), strict=True))


def queried(store: Store, arm: str, signal: str) -> list[str]:
    """The columns of one signal under every query of an arm."""
    return [signal, *(f"{signal}_q{number}" for number in range(1, store.arms()[arm].get("queries", 1)))]


def relative(
    store: Store, arm: str, indices: Sequence[int], signal: str, names: tuple[str, ...], *, kind: str
) -> Iterator[Scored]:
    """RMIA against the validation examples, which no model of the bank has held; of several queries the plain one."""
    config, keep = RmiaConfig(kind=kind), arm_from(store.arms()[arm]).keep
    train, validation, _ = store.manifest.split_sizes
    rows = slice(train, train + validation)
    parts = [b.columns[signal] for b in store.blocks(arm, indices, [signal], rows=rows, max_bytes=BYTES)]
    population = rmia_population(np.concatenate(parts, axis=1), config)
    for block in read(store, arm, indices, signal):
        found = rmia(block.columns[signal], block.columns["member"], population, keep, config)
        yield block, {names[0]: found}


def read(store: Store, arm: str, indices: Sequence[int], *signals: str) -> Iterator[Block]:
    """Memberships and some signals of every training example, few examples at a time."""
    return narrow(store.blocks(arm, indices, ["member", *signals], max_bytes=BYTES))


def lira_of(signal: str, ending: str) -> Attack:
    """The default LiRA on one signal."""
    scores = (f"lira{ending}", f"lira{ending}_offline")
    return Attack(signal=signal, scores=scores, success=f"attack_success{ending}", run=student)


def classic_of(form: str, ending: str) -> Attack:
    """A classic LiRA on logit confidence."""
    scores = (f"lira{ending}", f"lira{ending}_offline")
    run = partial(classic, form=form)
    return Attack(signal="logit_confidence", scores=scores, success=f"attack_success{ending}", run=run)


def rmia_of(kind: str, name: str) -> Attack:
    """RMIA; its score is a share of the population, which has no threshold of its own."""
    run = partial(relative, kind=kind)
    return Attack(signal="logit_confidence", scores=(name,), success=None, run=run, population=True)


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


def refuse_attacks(names: Iterable[str], columns: Collection[str], validation: int) -> None:
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
        attack = ATTACKS[pick("attack", name, ATTACKS)]
        if attack.signal not in columns:
            able = [other for other, a in ATTACKS.items() if a.signal in columns and (validation or not a.population)]
            kept = f"it keeps what {', '.join(able)} read" if able else "it keeps no logits, so nothing can be attacked"
            raise ValueError(f"the attack {name} reads {attack.signal}, which this bank does not keep; {kept}")
        if attack.population and not validation:
            raise ValueError(
                f"--attacks {name} compares with validation examples, and this bank has none; leave it out, or begin a "
                "bank with `python -m memscore.estimate --validation 0.1`"
            )
