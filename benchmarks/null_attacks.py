"""Claim: without a leak every attack's AUC is one half, in every design and at every number of models.

    python -m benchmarks.null_attacks [--banks 24] [--models 4 8 16 64 128 256]

Made-up confidences: each example has a level of its own, and a share `neighbours` of the variance around it comes from
the memberships of the other examples of its cluster; its own membership does nothing. Every attack of the product runs
on whole banks as in a run, every model in turn as the target. Mean AUC and success over banks with 95 % t intervals, of
which one in twenty does not hold one half by chance; means beyond 4 standard errors are listed. Attack success at keep
.75 is not one half without a leak, so only that at keep .5 is measured.
"""

from collections.abc import Iterator

import numpy as np
import tyro
from scipy import stats

from benchmarks.results_file import save
from memscore.estimators.attack_success import attack_success
from memscore.estimators.shadow_models import ShadowModels, find_blocks_of_shadows
from memscore.pipeline.attacks import ATTACKS, AttackContext
from memscore.statistics.roc import compute_target_means
from memscore.store.block_reader import Block
from memscore.subsets.designs import Arm, draw_membership, get_max_cluster_size

POPULATION = 200


def list_arms(models: int) -> Iterator[Arm]:
    """Arms of each design and keep fraction with this many models, orthogonal ones of one block and of several."""
    for keep in (0.5, 0.75):
        yield Arm(design="iid", keep=keep)
        yield Arm(design="exact", keep=keep, block=min(models, 64))
        levels = round(1 / (1 - keep))
        # a block is a power of the number of levels, and one of their square has clusters of several examples
        for block in {min(models, 64), max(models // 4, 1)}:
            power = round(np.log(block) / np.log(levels))
            if levels**power == block and power >= 2:
                yield Arm(keep=keep, block=block)


def make_bank(arm: Arm, models: int, n: int, neighbours: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make member [M, n], confidence [M, n] and the population's confidence [M, Z]."""
    rng = np.random.default_rng(seed)
    size = min(get_max_cluster_size(arm) if arm.design == "orthogonal" else 20, 20)
    clusters = np.arange(n) // size
    member = draw_membership(arm, range(models), n, clusters, seed=seed)
    # each example weighs the memberships of its cluster mates, in units of their standard deviation
    weights = rng.normal(size=(n, n)) * (clusters[:, None] == clusters)
    np.fill_diagonal(weights, 0)
    weights /= np.maximum(np.sqrt((weights**2).sum(1, keepdims=True)), 1e-9)
    z = (member - arm.keep) / np.sqrt(arm.keep * (1 - arm.keep))
    noise = rng.normal(size=(models, n))
    confidence = rng.normal(0, 2, n) + np.sqrt(neighbours) * z @ weights.T + np.sqrt(1 - neighbours) * noise
    return member, confidence, rng.normal(1, 2, (models, POPULATION))


def measure(
    name: str, arm: Arm, member: np.ndarray, confidence: np.ndarray, population: np.ndarray
) -> dict[str, float]:
    """Measure the AUC of each score of an attack over targets, and its mean success."""
    attack, models = ATTACKS[name], len(member)
    blocks = find_blocks_of_shadows(range(models), arm.models_per_block) if arm.design == "orthogonal" else None
    context = AttackContext(
        signals=(attack.signal,), keep=arm.keep, shadows=ShadowModels.from_sample(confidence, arm.keep, blocks)
    )
    block = Block(rows=slice(0, member.shape[1]), columns={"member": member, attack.signal: confidence})
    others = Block(rows=slice(0, POPULATION), columns={attack.signal: population})
    first = [attack.accumulate(others if attack.population else block, context)] if attack.accumulate else []
    scores = attack.score(block, attack.finalize(first, context), context)
    found = {
        score: compute_target_means(values.astype(np.float32), member)["auc"].value
        for score, values in zip(attack.scores, scores, strict=True)
    }
    if attack.success and np.isclose(arm.keep, 0.5):
        success = attack_success(scores[0], member)["value"]
        found[attack.success] = float(np.nanmean(success)) if not np.isnan(success).all() else float("nan")
    return found


def simulate(arm: Arm, models: int, neighbours: float, banks: int, n: int = 400) -> dict[str, list[float]]:
    """Simulate banks without a leak: score -> mean over banks, the ends of its 95 % interval, and standard error."""
    rows = []
    for seed in range(banks):
        arrays = make_bank(arm, models, n, neighbours, seed)
        rows.append({key: value for name in ATTACKS for key, value in measure(name, arm, *arrays).items()})
    found = {}
    for score in rows[0]:
        values = np.array([row[score] for row in rows])
        error = values.std(ddof=1) / np.sqrt(banks)
        width = stats.t.ppf(0.975, banks - 1) * error
        mean = float(values.mean())
        found[score] = [mean, mean - float(width), mean + float(width), float(error)]
    return found


def main(banks: int = 24, models: tuple[int, ...] = (4, 8, 16, 64, 128, 256)) -> None:
    """Measure.

    Args:
        banks: of each kind; a quarter of them from 64 models on, where each has many targets.
        models: of a bank.
    """
    cells: dict[str, dict[str, list[float]]] = {}
    for count in models:
        for arm in list_arms(count):
            for neighbours in (0.0, 0.3, 0.6):
                cell = f"{arm.name}, {count} models, neighbours {neighbours:g}"
                cells[cell] = simulate(arm, count, neighbours, banks if count < 64 else max(banks // 4, 6))
                print(cell, {key: np.round(v, 4).tolist() for key, v in find_far(cells[cell]).items()}, flush=True)
    defined = [v for cell in cells.values() for v in cell.values() if not np.isnan(v[0])]
    save(
        "null_attacks",
        {
            "what": "AUC and attack success of banks without a leak: mean and standard error over banks",
            "intervals_with_one_half": float(np.mean([low <= 0.5 <= high for _, low, high, _ in defined])),
            "means_beyond_4_standard_errors": {cell: [*far] for cell in cells if (far := find_far(cells[cell]))},
            "cells": {
                cell: {score: [round(v[0], 4), round(v[3], 4)] for score, v in found.items()}
                for cell, found in cells.items()
            },
        },
    )


def find_far(found: dict[str, list[float]]) -> dict[str, list[float]]:
    """Find the scores whose mean is more than 4 standard errors from one half."""
    return {score: v for score, v in found.items() if abs(v[0] - 0.5) > 4 * v[3]}


if __name__ == "__main__":
    tyro.cli(main)
