"""Claim: RMIA finds more members at low FPR by its ratio than by its share, and soft attack success needs fewer models.

    python -m benchmarks.rmia_ties --stores DIR ... [--names NAME ...]

Each store is a bank of iid subsets, keep 0.5, of 512 models or more. Disjoint parts of it are banks of their own, and
the replicates: every model of a part is the target in turn, the others of the part are its shadow models.

- TPR of RMIA, mean over the targets of a part, by share and by ratio, and the mean of the paired differences with its
  95 % t interval over parts.
- Agreement of two parts of 128 models on attack success, hard and soft: Spearman and the overlap of the 100 highest;
  beside what the halves of one part predicted for it.
"""

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from scipy.special import stdtrit

from benchmarks.results_file import save
from memscore.estimators.rmia import RmiaConfig, count_exceeded, rmia_population, rmia_ratio
from memscore.pipeline.attack_runs import run_attack
from memscore.pipeline.attacks import ATTACKS
from memscore.statistics.correlation import spearman, top_overlap
from memscore.statistics.roc import compute_tprs
from memscore.store.store import Store

SIZES = {4: 32, 8: 32, 16: 16, 64: 8}
"""Models of a part -> number of parts."""
FPRS = np.array([0.01, 0.001])
PART, ATTACKED, TOP = 128, ("lira", "rmia"), 100


def main(stores: tuple[Path, ...], names: tuple[str, ...] = ()) -> None:
    """Measure every bank.

    Args:
        stores: the banks.
        names: what to call them (default: their folders).
    """
    measured = {
        name: measure(Store.open(str(store)))
        for name, store in zip(names or tuple(store.name for store in stores), stores, strict=True)
    }
    what = "parts of banks of iid subsets, keep 0.5, every model of a part as target; mean, low and high end over parts"
    save("rmia_ties", {"what": what, "banks": measured})


def measure(store: Store) -> dict[str, Any]:
    """Measure one bank."""
    [arm] = store.arms()
    train, validation, _ = store.manifest.split_sizes
    indices = sorted(store.find_valid_shards(arm))
    whole = {"max_bytes": 2**40}
    inside = next(store.read_blocks(arm, indices, ["logit_confidence", "member"], slice(0, train), **whole)).columns
    rows = slice(train, train + validation)
    population = next(store.read_blocks(arm, indices, ["logit_confidence"], rows, **whole)).columns["logit_confidence"]
    rates: dict[str, Any] = {}
    for kind in ("online", "offline"):
        for size, parts in SIZES.items():
            of_parts = [
                measure_rates(inside, population, slice(start, start + size), RmiaConfig(kind=kind))
                for start in range(0, min(parts * size, len(indices)), size)
            ]
            # from parts x (share and ratio) x FPRs
            share, ratio = np.array(of_parts).transpose(1, 0, 2)
            rates[f"{kind}, {size} models"] = {
                f"tpr_at_{fpr:g}": {
                    "share": interval(share[:, number]),
                    "ratio": interval(ratio[:, number]),
                    "ratio minus share": interval(ratio[:, number] - share[:, number]),
                    "parts": len(of_parts),
                }
                for number, fpr in enumerate(FPRS)
            }
    return {"split_sizes": [train, validation], "rates": rates, "agreement": measure_agreement(store, arm, indices)}


def measure_rates(
    inside: dict[str, np.ndarray], population: np.ndarray, part: slice, config: RmiaConfig
) -> list[np.ndarray]:
    """Mean TPR over targets by share and by ratio, at each FPR; examples without a score are left out."""
    member = inside["member"][part]
    ratio = rmia_ratio(inside["logit_confidence"][part], member, 0.5, config)
    share = count_exceeded(ratio, rmia_population(population[part], config), config)
    return [
        np.mean(
            [
                compute_tprs(row[~np.isnan(row)], held[~np.isnan(row)], FPRS)
                for row, held in zip(scores, member, strict=True)
            ],
            axis=0,
        )
        for scores in (share, np.log(ratio))
    ]


def measure_agreement(store: Store, arm: str, indices: list[int]) -> dict[str, Any]:
    """Agreement of each pair of parts on attack success, and what the halves of a part predict for it."""
    found: dict[str, Any] = {}
    for name in ATTACKED:
        attack = ATTACKS[name]
        starts = range(0, len(indices) - PART + 1, PART)
        results = [run_attack(store, arm, indices[start : start + PART], attack) for start in starts]
        for stem in (attack.success, attack.soft_success):
            pairs = [
                (a.tables[stem]["value"], b.tables[stem]["value"]) for a, b in combinations(results, 2)
            ]  # fmt: skip
            said = [result.success[stem].reliability for result in results]
            found[stem] = {
                "spearman": interval(np.array([spearman(*pair) for pair in pairs])),
                "top_100": interval(np.array([top_overlap(*pair, TOP / len(pair[0])) for pair in pairs])),
                "spearman_said_by_halves": interval(np.array([each.spearman_full for each in said if each])),
                "parts": len(results),
                "mean": float(np.mean([result.success[stem].mean for result in results])),
                "no_information": float(np.mean([result.success[stem].no_information for result in results])),
            }
        # how well either predicts the other part's hard one, which is what decides who is exposed
        for stem in (attack.success, attack.soft_success):
            found[stem]["predicts_attack_success"] = interval(
                np.array([
                    spearman(a.tables[stem]["value"], b.tables[attack.success]["value"])
                    for a, b in combinations(results, 2)
                ])
            )
    return found


def interval(values: np.ndarray) -> list[float]:
    """Mean and its 95 % t interval; pairs of parts are taken for independent, which they are not quite."""
    reach = stdtrit(len(values) - 1, 0.975) * values.std(ddof=1) / np.sqrt(len(values))
    return [float(values.mean()), float(values.mean() - reach), float(values.mean() + reach)]


if __name__ == "__main__":
    tyro.cli(main)
