"""Claim: every model of a bank as LiRA's target costs a few times one target of the usual loop.

    python -m benchmarks.lira_speed [--models 256] [--examples 50000] [--targets 4] [--repeats 3]

Ours: the prior and lira_scores, online and offline scores of all models against all examples. The loop: for one
target after the other, means and standard deviations of the remaining models that held an example and that did not, and
two normal densities, in NumPy over whole arrays, as public code does it. It is run for some targets and scaled to all
of them. No part of either uses a second thread; the ways take turns.
"""

import time

import numpy as np
import tyro

from benchmarks.results_file import save, spread
from memscore.estimators.lira import combine_prior_sums, compute_prior_sums, lira_scores
from memscore.estimators.shadow_models import ShadowModels


def main(models: int = 256, examples: int = 50_000, targets: int = 4, repeats: int = 3) -> None:
    """Measure.

    Args:
        models: of the bank.
        examples: of the bank.
        targets: that the loop runs for.
        repeats: pairs.
    """
    rng = np.random.default_rng(0)
    member = rng.random((models, examples), dtype=np.float32) < 0.5
    confidence = rng.normal(size=(models, examples)).astype(np.float32) + member
    seconds: dict[str, list[float]] = {"ours": [], "loop": []}
    for _ in range(repeats):
        started = time.perf_counter()
        shadows = ShadowModels.from_sample(confidence[:, :4096], 0.5)
        prior = combine_prior_sums([compute_prior_sums(confidence, member, shadows)], shadows)
        online, _ = lira_scores(confidence, member, prior)
        seconds["ours"].append(time.perf_counter() - started)
        started = time.perf_counter()
        looped = [one_target(confidence, member, target) for target in range(targets)]
        seconds["loop"].append((time.perf_counter() - started) * models / targets)
    agree = [float(np.corrcoef(online[target], scores)[0, 1]) for target, scores in enumerate(looped)]
    save(
        "lira_speed",
        {
            "what": f"{models} targets x {examples} examples, online and offline, one thread",
            "ours_s": spread(seconds["ours"]),
            "loop_s_scaled": spread(seconds["loop"]),
            "ratio": spread([loop / ours for ours, loop in zip(*seconds.values(), strict=True)]),
            "mcell_per_s": spread([models * examples / 1e6 / s for s in seconds["ours"]]),
            "correlation_of_scores": spread(agree),
        },
    )


def one_target(confidence: np.ndarray, member: np.ndarray, target: int) -> np.ndarray:
    """The plain online attack on one model, its shadows being all others."""
    others = np.arange(len(member)) != target
    phi, held = confidence[others].astype(np.float64), member[others]
    densities = []
    for side in (held, ~held):
        shadows = np.where(side, phi, np.nan)
        mean, std = np.nanmean(shadows, 0), np.nanstd(shadows, 0)
        densities.append(-(((confidence[target] - mean) / std) ** 2) / 2 - np.log(std))
    ratio: np.ndarray = densities[0] - densities[1]
    return ratio


if __name__ == "__main__":
    tyro.cli(main)
