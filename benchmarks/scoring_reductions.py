"""One reduction of a bank in a process of its own, for benchmarks/scoring_speed.py: CPU seconds and peak memory.

python -m benchmarks.scoring_reductions '{"url": ..., "name": "counts", "models": 512, "repeats": 3}'
"""

import json
import sys
import time
from collections.abc import Callable
from functools import partial

from benchmarks.memory import memory_mb
from memscore.estimators.attack_success import attack_success
from memscore.estimators.registry import STATISTICS
from memscore.estimators.statistic import compute_table
from memscore.pipeline.attack_runs import run_attack
from memscore.pipeline.attacks import ATTACKS
from memscore.pipeline.map_reduce import map_blocks
from memscore.pipeline.scoring import score_arm
from memscore.store.block_reader import Block, split_blocks
from memscore.store.store import Store

ARM = "exact-k0.500"

Reduction = Callable[[Store, list[int]], object]


def over_blocks(store: Store, models: list[int], columns: tuple[str, ...], made: Callable[..., object]) -> None:
    """One statistic of everything, as scoring makes it: few examples at a time."""

    def each(block: Block) -> None:
        for part in split_blocks([block]):
            made(*(part.columns[column] for column in columns))

    for _ in map_blocks(store, ARM, models, columns, each):
        pass


def attacked(store: Store, models: list[int], name: str) -> None:
    """One attack with its means, attack success and curves."""
    run_attack(store, ARM, models, ATTACKS[name])


def influenced(store: Store, models: list[int]) -> None:
    """The pairs that matter of all training and all test examples."""
    from memscore.analysis.influence_pairs import (
        find_influence_pairs,  # brings torch, whose memory no other reduction needs
    )

    find_influence_pairs(store, ARM, dict.fromkeys(models, ""))


def scored(store: Store, models: list[int]) -> None:
    """Everything that estimate makes of an arm, written."""
    score_arm(store, ARM, dict.fromkeys(models, ""))


def statistic(made: Callable[..., object], *columns: str) -> Reduction:
    """A reduction over these columns."""
    return partial(over_blocks, columns=columns, made=made)


REDUCTIONS: dict[str, Reduction] = {
    "reading": statistic(lambda *columns: None, "correct", "member", "logit_confidence", "gap"),
    **{
        label: statistic(partial(compute_table, STATISTICS[name]), STATISTICS[name].signal, "member")
        for label, name in (
            ("counts", "memorization"),
            ("cscore", "cscore"),
            ("probability", "memorization_probability"),
            ("probit", "memorization_probit"),
        )
    },
    "attack_success": statistic(attack_success, "logit_confidence", "member"),
    **{
        name: partial(attacked, name=name)
        for name in ("lira", "lira-paper", "lira-released", "lira-released-fixed", "rmia", "rmia-offline")
    },
    "influence": influenced,
    "every score": scored,
}


def reduce(url: str, name: str, models: int, repeats: int) -> None:
    """Run one reduction and print what it took; the first time, which fills caches, is only counted in memory."""
    before, store, seconds = memory_mb()["peak_mb"], Store.open(url), []
    for _ in range(repeats + 1):
        started = time.process_time()  # of all threads: other work on the machine is not counted
        REDUCTIONS[name](store, list(range(models)))
        seconds.append(time.process_time() - started)
    print(json.dumps({"seconds": seconds[1:], "imports_mb": before, "peak_mb": memory_mb()["peak_mb"]}))


if __name__ == "__main__":
    reduce(**json.loads(sys.argv[1]))
