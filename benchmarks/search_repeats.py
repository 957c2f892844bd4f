"""Claim: a repeat of a whole search moves the judged ToW by a fraction of what it did with one random search.

    python -m benchmarks.search_repeats STORE [--repeats 10] [--forget memorization_k0.500:union] [--quick]

"before" is one tuning of ten random configurations on two originals; "now" is three tunings of six configurations that
refine, each on two originals of its own. Every repeat has another seed (draws, tuning sets) and other tuning originals,
and all are judged on the same originals and forget set, so that what differs between repeats is the choice alone: sd is
that of the judged mean ToW over repeats. "single" is the judged ToW of one of the three tunings. STORE is a bank of
`python -m memscore.estimate`; its originals and oracles are trained as needed.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import tyro

from benchmarks.results_file import save
from cluster.pool import SerialPool
from cluster.search import SerialSearch
from memscore.store.store import Store
from unlearn.tuning.config import SweepConfig
from unlearn.tuning.prepare import prepare_sweep
from unlearn.tuning.results import average_by_original, select_rows
from unlearn.tuning.state import SweepResult

ALGORITHMS = ("finetune", "neggrad-plus", "salun")
BEFORE: dict[str, Any] = {"tunings": 1, "budget": 10, "sampler": "random"}
NOW: dict[str, Any] = {"tunings": 3, "budget": 6, "sampler": "refine"}
JUDGED = 6


@dataclass(frozen=True, kw_only=True)
class RepeatedSweep(SweepConfig):
    """A sweep whose tuning originals follow those of earlier repeats, judged on the first originals."""

    repeat: int = 0

    @property
    def tuning_originals(self) -> range:
        """The originals of all tunings of this repeat."""
        start = JUDGED + self.repeat * 3 * self.tune_seeds
        return range(start, start + self.tunings * self.tune_seeds)

    def get_tuning_originals(self, tuning: int) -> range:
        """The originals that one tuning chooses on."""
        start = self.tuning_originals.start + tuning * self.tune_seeds
        return range(start, start + self.tune_seeds)

    def get_judged_originals(self, *, draws_labels: bool) -> range:
        """The same in every repeat."""
        return range(JUDGED)


def main(store: tyro.conf.Positional[str], repeats: int = 10, forget: str = "", quick: bool = False) -> None:
    """Measure.

    Args:
        store: a bank.
        repeats: of each kind of search.
        forget: the forget set (default: that of a sweep).
        quick: two repeats of one algorithm with one configuration, whose numbers mean nothing.
    """
    kinds = {"before": BEFORE, "now": NOW}
    more: dict[str, Any] = {"algorithms": ALGORITHMS}
    if quick:
        repeats, more = 2, {"algorithms": ALGORITHMS[:1]}
        kinds = {name: {**kind, "budget": 1, "tunings": min(kind["tunings"], 2)} for name, kind in kinds.items()}
    if forget:
        more["forget"] = forget
    found: dict[str, Any] = {name: {} for name in kinds}
    for repeat in range(repeats):
        for kind, options in kinds.items():
            config = RepeatedSweep(
                store=store,
                variants=("vanilla",),
                select="oracle",
                seeds=JUDGED,
                seed=repeat,
                repeat=repeat,
                **options,
                **more,
            )
            result = prepare_sweep(config).run(SerialPool(), SerialSearch(), "cpu")
            for algorithm in more["algorithms"]:
                found[kind].setdefault(algorithm, []).append(summarize(result, algorithm))
                print(repeat, kind, algorithm, found[kind][algorithm][-1], flush=True)
    report = {kind: {name: spread_of(runs) for name, runs in by_name.items()} for kind, by_name in found.items()}
    manifest = Store.open(store).manifest
    what = f"{manifest.architecture}, {manifest.split_sizes[0]} training examples, judged on {JUDGED} originals"
    print(report) if quick else save(f"search_repeats_{manifest.architecture}", {"what": what, "found": report})


def summarize(result: SweepResult, algorithm: str) -> dict[str, Any]:
    """Summarize one repeat: judged ToW, that of each tuning, configurations and seconds of tuning."""
    rows = select_rows(result.judged_rows, contender=algorithm)
    tows = average_by_original(rows, "tow_test")
    tunings = {row["index"]: row["tuning"] for row in rows}
    states = [state for state in result.states if state.method.name == algorithm]
    return {
        "tow": float(np.nanmean(list(tows.values()))),
        "single": [
            float(np.nanmean([tow for index, tow in tows.items() if tunings[index] == tuning]))
            for tuning in sorted(set(tunings.values()))
        ],
        "attempts": sum(int(state.cost["attempts"]) for state in states),
        "tuning_s": sum(state.cost["tuning_s"] for state in states),
        "params": [dict(state.steps[0][1]) for state in states if state.steps],
    }


def spread_of(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The spread over repeats; sd is that of the judged mean ToW."""
    tows = [run["tow"] for run in runs]
    return {
        "n": len(runs),
        "mean": float(np.mean(tows)),
        "sd": float(np.std(tows, ddof=1)),
        "min": min(tows),
        "max": max(tows),
        "single_sd": float(
            np.mean([np.std(run["single"], ddof=1) for run in runs if len(run["single"]) > 1] or [np.nan])
        ),
        "attempts": float(np.mean([run["attempts"] for run in runs])),
        "worker_hours": float(np.mean([run["tuning_s"] for run in runs])) / 3600,
        "params": [run["params"] for run in runs],
    }


if __name__ == "__main__":
    tyro.cli(main)
