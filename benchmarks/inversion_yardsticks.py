"""Claim: which measures of gradient inversion follow memorization, and which only the picture's brightness and edges.

    python -m benchmarks.inversion_yardsticks --store DIR [--candidates 600] [--originals 3]

A bank with originals of a network with convolutions, one of

    python -m memscore.estimate --data digits --arch cnn-8-16 --models 128 --store DIR
    python -m memscore.estimate --data fashion-mnist --train-limit 3000 --models 64 --store DIR

Attacks that are stored are not repeated. Where the bank has no memorization scores, 1 - confidence in training stands
for them. Intervals are percentiles of 1,000 bootstrap samples of the examples.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import tyro
from scipy.stats import rankdata

from benchmarks.results_file import save
from memscore.analysis.fidelity import find_original_keys
from memscore.pipeline.proxy_jobs import build_proxy_jobs, is_proxy_stored, run_proxy_job
from memscore.pipeline.reload_data import reload_splits
from memscore.pipeline.train_bank import build_shared_data
from memscore.proxies.inversion_summary import summarize_inversions
from memscore.proxies.scores import compute_original_loss
from memscore.proxies.storage import INVERSIONS, InversionOptions, choose_total_variation, read_proxy
from memscore.seeds import generator
from memscore.store.store import Store

MEMORIZATION = "memorization_k0.500"
DRAWS = 1000


def main(store: str, candidates: int = 600, originals: int = 3) -> None:
    """Attack what is not attacked yet, and measure.

    Args:
        store: a bank with originals.
        candidates: how many examples are attacked.
        originals: how many originals are attacked, each with its pair of models of halves.
    """
    bank = Store.open(store)
    name = bank.manifest.data.partition("-")[0]
    save(f"inversion_yardsticks_{name}", measure_bank(bank, candidates, originals))


def measure_bank(bank: Store, candidates: int, originals: int) -> dict[str, Any]:
    """What each measure follows, with intervals, and the gain with its sign test."""
    splits, keys = reload_splits(bank), find_original_keys(bank)[:originals]
    shared, n = build_shared_data(splits, None), len(splits.train)
    settings = InversionOptions(
        candidates=candidates, iterations=250, total_variation=choose_total_variation(bank.manifest.input_shape)
    )
    for job in build_proxy_jobs(bank, splits, INVERSIONS, dict(enumerate(keys)), settings):
        if not is_proxy_stored(bank, job):
            run_proxy_job(job, shared)
    each = [
        {
            score: values
            for name in INVERSIONS
            for score, values in (read_proxy(bank, key, name, settings) or {}).items()
        }
        for key in keys
    ]
    rows = np.sort(settings.rows(bank.manifest.seed, n))
    scores = {score: np.mean([table[score][rows] for table in each], axis=0) for score in each[0]}
    images = splits.train.images[rows] / 255
    picture = {
        "brightness": images.mean((1, 2, 3)),
        "edges": sum(np.abs(np.diff(images, axis=axis)).mean((1, 2, 3)) for axis in (-2, -1)),
        "variance": images.var((1, 2, 3)),
    }
    has_models = bank.folder.exists(f"scores/{MEMORIZATION}.parquet")
    confidence = np.mean([bank.read_events(key)["confidence"] for key in keys], axis=0)
    memorization = bank.score(MEMORIZATION)[1][rows] if has_models else 1 - confidence[rows]
    compared = {**picture, "loss": np.mean([compute_original_loss(bank, key)[:n] for key in keys], axis=0)[rows]}
    rng = generator(bank.manifest.seed, "bootstrap", "yardsticks")
    draws = rng.integers(0, len(rows), (DRAWS, len(rows)))
    follows = {}
    for score, values in scores.items():
        follows[score] = {
            **{name: correlate(values, other, {}, draws) for name, other in compared.items()},
            "memorization": correlate(values, memorization, {}, draws),
            "memorization, brightness, edges and variance taken out": correlate(values, memorization, picture, draws),
        }
        if len(keys) > 1:
            pair = each[0][score][rows], each[1][score][rows]
            follows[score]["the same of another original"] = correlate(*pair, {}, draws)
    # over all training examples, of which there is one row each, as in scores.parquet
    table = {score: np.full(n, np.nan) for score in scores}
    for score, values in scores.items():
        table[score][rows] = values
    summary = summarize_inversions(pa.table(table))
    assert summary is not None
    return {
        "what": f"{bank.manifest.data}, {n} images, {bank.manifest.architecture}",
        "examples": len(rows),
        "originals": len(keys),
        "memorization": MEMORIZATION if has_models else "1 - confidence in training",
        "follows": follows,
        "means": {name: [mean.value, mean.lo, mean.hi] for name, mean in summary.means.items()},
        "retrieval": summary.retrieval and [summary.retrieval.value, summary.retrieval.lo, summary.retrieval.hi],
        "compared_images": summary.compared_images,
        "gain_above_and_below_0": summary.gains,
        "sign_test": summary.sign_test,
    }


def correlate(x: np.ndarray, y: np.ndarray, given: Mapping[str, np.ndarray], draws: np.ndarray) -> list[float]:
    """Spearman's correlation with its bootstrap interval; with `given`, of what their ranks leave of both ranks."""

    def compute(rows: np.ndarray) -> float:
        a, b, *others = (rankdata(values[rows]) for values in (x, y, *given.values()))
        design = np.stack([np.ones(len(rows)), *others], axis=1)
        a, b = (ranks - design @ np.linalg.lstsq(design, ranks, rcond=None)[0] for ranks in (a, b))
        length = np.linalg.norm(a) * np.linalg.norm(b)
        return float(a @ b / length) if length > 1e-6 else float("nan")

    drawn = np.array([compute(rows) for rows in draws])
    lo, hi = np.nanquantile(drawn, [0.025, 0.975]) if not np.isnan(drawn).all() else (np.nan, np.nan)
    return [compute(np.arange(len(x))), float(lo), float(hi)]


if __name__ == "__main__":
    tyro.cli(main)
