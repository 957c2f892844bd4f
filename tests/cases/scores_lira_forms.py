"""lira-paper offline is equation 4 of Carlini et al. 2022 (cdf, one-sided), lira-released-fixed their released code.

The code takes the log density, two-sided, with one standard deviation. Each form is compared with a few lines of NumPy.
"""

from pathlib import Path

import numpy as np
from scipy.stats import norm, spearmanr

from memscore.estimators.shadow_models import ShadowModels
from memscore.pipeline.attacks import ATTACKS, AttackContext
from memscore.store.block_reader import Block
from tests.cases._support import run_case

MODELS, EXAMPLES, TARGETS = 33, 60, 8


def check(folder: Path) -> list[str]:
    rng, problems = np.random.default_rng(0), []
    member = np.zeros((MODELS, EXAMPLES), bool)
    for column in range(EXAMPLES):
        member[rng.permutation(MODELS)[: MODELS // 2], column] = True
    spread = 1 + rng.random(EXAMPLES)
    confidence = rng.normal(1 + member + rng.normal(0, 1, EXAMPLES), spread)
    block = Block(rows=slice(0, EXAMPLES), columns={"logit_confidence": confidence, "member": member})
    for form in ("paper", "released", "released-fixed"):
        by_hand = [score_by_hand(form, confidence, member, target) for target in range(TARGETS)]
        for number, kind in enumerate(("online", "offline")):
            scores = score_by_product(f"lira-{form}", block)[number]
            correlations = [spearmanr(scores[t], by_hand[t][number]).statistic for t in range(TARGETS)]
            if not np.mean(correlations) >= 0.95:
                problems.append(f"lira-{form} {kind}: mean rank correlation {np.mean(correlations):.3f} with NumPy")
    return problems


def score_by_product(name: str, block: Block) -> list[np.ndarray]:
    shadows = ShadowModels.from_sample(block.columns["logit_confidence"], 0.5)
    attack, context = ATTACKS[name], AttackContext(signals=("logit_confidence",), keep=0.5, shadows=shadows)
    state = attack.finalize([attack.accumulate(block, context)] if attack.accumulate else [], context)
    return list(attack.score(block, state, context))


def score_by_hand(form: str, confidence: np.ndarray, member: np.ndarray, target: int) -> tuple[np.ndarray, np.ndarray]:
    """Online and offline scores [examples] of one target, all other models as shadows."""
    shadows = np.arange(MODELS) != target
    center, fixed = np.mean if form == "paper" else np.median, form == "released-fixed"
    inside = [confidence[shadows & member[:, i], i] for i in range(EXAMPLES)]
    outside = [confidence[shadows & ~member[:, i], i] for i in range(EXAMPLES)]
    std_in = [np.std(np.concatenate(inside))] * EXAMPLES if fixed else [phi.std() for phi in inside]
    # The released code takes the same standard deviation on both sides online, and that of the outside ones offline.
    std_out = std_in if fixed else [phi.std() for phi in outside]
    std_offline = [np.std(np.concatenate(outside))] * EXAMPLES if fixed else std_out
    online, offline = np.empty(EXAMPLES), np.empty(EXAMPLES)
    for i, phi in enumerate(confidence[target]):
        online[i] = norm.logpdf(phi, center(inside[i]), std_in[i]) - norm.logpdf(phi, center(outside[i]), std_out[i])
        if form == "paper":
            offline[i] = norm.cdf(phi, outside[i].mean(), std_offline[i])
        else:
            offline[i] = -norm.logpdf(phi, np.median(outside[i]), std_offline[i])
    return online, offline


if __name__ == "__main__":
    run_case(check)
