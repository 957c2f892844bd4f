"""Claim: of the pairs that one half of a bank's models finds, this is what the other half sees, before and after.

    python -m benchmarks.influence_replication STORE... [--targets test]

Pairs are those of train examples with memorization .25 or more in the same half of the models. "before" takes every
pair of influence .15 or more; "after" takes the least influence from which a tenth of the pairs are expected to be
false by permuted memberships (memscore/estimators/influence_null.py). Where a pair has no influence, its mean in the
other half is 0, so one minus the ratio of means is what regression to the mean and false pairs took. `others` is the
share of pairs whose influence in the other half is above two thirds of a standard error, which noise alone exceeds in a
quarter of the cases. Each store is halved several times; nothing is trained.
"""

from pathlib import Path

import numpy as np
import tyro

from benchmarks.results_file import save, spread
from memscore.analysis.arms import check_arm, select_arm
from memscore.analysis.influence_pairs import MAX_CHOSEN, MAX_FALSE_SHARE, MAX_PERMUTATIONS
from memscore.estimators.influence import influence, pack_targets
from memscore.estimators.influence_null import count_pairs
from memscore.estimators.memorization import memorization
from memscore.store.store import Store

BEFORE, MEMORIZED, ABOVE = 0.15, 0.25, 0.67


def main(
    stores: tyro.conf.Positional[tuple[Path, ...]], halvings: int = 6, models: tuple[int, ...] = (128, 256)
) -> None:
    """Measure.

    Args:
        stores: banks.
        halvings: of the models, each in another way.
        models: in each half.
    """
    found = {}
    for path in stores:
        member, correct, target = read_bank(Store.open(str(path)))
        for size in models:
            if 2 * size <= len(member):
                runs = [replicate(member, correct, target, size, seed) for seed in range(halvings)]
                found[f"{path.name}, {size} models"] = {
                    when: {key: spread([run[when][key] for run in runs]) for key in runs[0][when]} for when in runs[0]
                }
                print(path.name, size, {w: {k: round(v["median"], 3) for k, v in each.items()}
                      for w, each in found[f"{path.name}, {size} models"].items()}, flush=True)  # fmt: skip
    save("influence_replication", {"what": "pairs of one half of the models in the other half", **found}, quiet=True)


def read_bank(store: Store) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read memberships and correctness on train examples, and correctness on test examples, of all models."""
    arm = select_arm(store, None)
    n_train, _, n_test = store.manifest.split_sizes
    parts = {
        rows.start: list(store.read_blocks(arm, sorted(check_arm(store, arm).valid), ["member", "correct"], rows))
        for rows in (slice(0, n_train), slice(store.manifest.n_rows - n_test, store.manifest.n_rows))
    }
    member, correct, target = (
        np.concatenate([block.columns[key] for block in blocks], axis=1)
        for key, blocks in (
            ("member", parts[0]),
            ("correct", parts[0]),
            ("correct", parts[store.manifest.n_rows - n_test]),
        )
    )
    return member, correct, target


def replicate(
    member: np.ndarray, correct: np.ndarray, target: np.ndarray, size: int, seed: int
) -> dict[str, dict[str, float]]:
    """Find pairs in one half of the models and look at them in the other."""
    order = np.random.default_rng(seed).permutation(len(member))
    half, other = order[:size], order[size : 2 * size]
    rows = np.flatnonzero(memorization(correct[half], member[half]) >= MEMORIZED)
    here, there = (influence(member[part][:, rows], target[part]) for part in (half, other))
    rngs = [np.random.default_rng((seed, k)) for k in range(MAX_PERMUTATIONS)]
    bits = np.packbits(member[half][:, rows], axis=0)
    counts = count_pairs(bits, pack_targets([(target[half], None)]), np.full(size, -1), rngs)
    least = {"before": BEFORE, "after": counts.choose_least(MAX_FALSE_SHARE, MAX_CHOSEN)}
    return {
        when: describe(here, there, value, counts.expect_by_chance(value)[0], size) for when, value in least.items()
    }


def describe(here: np.ndarray, there: np.ndarray, least: float, by_chance: float, size: int) -> dict[str, float]:
    """Describe the pairs that reach an influence in one half."""
    pairs = here >= least
    n = int(pairs.sum())
    return {
        "least": least if np.isfinite(least) else 1.0,
        "pairs": float(n),
        "expected_false_share": min(1.0, by_chance / max(n, 1)),
        "influence": float(here[pairs].mean()) if n else 0.0,
        "influence_in_other_half": float(there[pairs].mean()) if n else 0.0,
        "others_above": float(np.mean(there[pairs] > ABOVE / np.sqrt(size))) if n else 0.0,
    }


if __name__ == "__main__":
    tyro.cli(main)
