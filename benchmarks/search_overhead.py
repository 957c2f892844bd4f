"""Claim: a search costs milliseconds an attempt beyond the work, and some seconds for its processes.

    python -m benchmarks.search_overhead [--rounds 5] [--work-s 0.5] [--quick]

40 attempts over four arms with TPE, on Ray Tune with two workers and in this process: attempts that do nothing, and
attempts that sleep. Seconds an attempt are those between the first and the last that is told, by the number between
them; the rest of a call on Ray (processes that start and end) is told apart. Busy is the sleep, shared among the
workers, over the time between first and last: 1 is no overhead. --quick is one round, whose numbers mean little.
"""

import os
import time
from typing import Any

import tyro

from benchmarks.results_file import save, spread
from benchmarks.search_jobs import nap
from cluster.search import SearchBackend, SerialSearch
from cluster.search_space import Search
from cluster.session import connect

ARMS, ATTEMPTS, WORKERS = 4, 10, 2


def main(rounds: int = 5, work_s: float = 0.5, quick: bool = False) -> None:
    """Measure.

    Args:
        rounds: calls of each kind.
        work_s: seconds of sleep of an attempt in the calls that work.
        quick: one round.
    """
    with connect(workers=WORKERS):
        from cluster.tune.tune_search import TuneSearch

        kinds: dict[str, tuple[SearchBackend, int]] = {
            "tune": (TuneSearch(workers=WORKERS), WORKERS),
            "serial": (SerialSearch(), 1),
        }
        calls: dict[str, list[dict[str, float]]] = {name: [] for name in kinds}
        for number in range(1 if quick else rounds):
            for name in list(kinds) if number % 2 else list(kinds)[::-1]:
                calls[name].append(measured(*kinds[name], work_s, seed=number))
                print(name, number, calls[name][-1], flush=True)
    found = {name: {key: spread([call[key] for call in many]) for key in many[0]} for name, many in calls.items()}
    what = f"{ARMS * ATTEMPTS} attempts over {ARMS} arms, TPE; Tune with {WORKERS} workers; work is {work_s} s of sleep"
    print(found) if quick else save("search_overhead", {"what": what, **found})


def measured(search: SearchBackend, workers: int, work_s: float, seed: int) -> dict[str, float]:
    """Seconds of a call without work, and of one with."""
    idle, busy = timed(search, 0.0, seed), timed(search, work_s, seed)
    return {
        "s_an_attempt": idle["between_s"] / (ARMS * ATTEMPTS - 1),
        "start_and_end_s": idle["call_s"] - idle["between_s"],
        "busy": (ARMS * ATTEMPTS - 1) * work_s / workers / busy["between_s"],
        "s_an_attempt_beyond_work": busy["between_s"] * workers / (ARMS * ATTEMPTS - 1) - work_s,
    }


def timed(search: SearchBackend, work_s: float, seed: int) -> dict[str, float]:
    """Seconds of a call, and between the first and the last attempt that it told."""
    told: list[float] = []

    def note(arm: Search, values: dict[str, Any], outcome: Any) -> None:
        if not isinstance(outcome, dict):
            raise RuntimeError(f"an attempt failed, so this measures nothing: {outcome}")
        told.append(time.perf_counter())

    arms = [
        Search(name=f"arm {k}", space={"x": ("uniform", 0.0, 1.0)}, budget=ATTEMPTS, job=work_s) for k in range(ARMS)
    ]
    began = time.perf_counter()
    search.search(nap, arms, None, note, seed=seed)
    call_s = time.perf_counter() - began
    if len(told) != ARMS * ATTEMPTS:
        raise RuntimeError(f"{len(told)} of {ARMS * ATTEMPTS} attempts were told, so this measures nothing")
    return {"call_s": call_s, "between_s": told[-1] - told[0]}


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    tyro.cli(main)
