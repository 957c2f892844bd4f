"""Claim: a worker that can no longer work loses no more jobs than the ones that show it, and a faulty job only itself.

    python -m benchmarks.broken_workers [--jobs 30] [--only NAME ...]

A cluster of two CPUs, and no GPU: a job that breaks its GPU raises the error that torch raises, and so does every later
job of its process. Each job takes half a second. The last case has two GPUs by Ray's count, and whoever is on the first
one fails.
"""

import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from benchmarks.results_file import save

JOB_S = 0.5


class AcceleratorError(RuntimeError):
    """Named as torch's."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """What goes wrong.

    Attributes:
        search: on Ray Tune, not in a pool.
        breaks: jobs that break their process the first time that they run.
        always: a job that does so whenever it runs.
        plain: a broken process raises an exception that says nothing of GPUs.
        gpus: that Ray counts; 0 is broken for good.
    """

    search: bool = False
    breaks: tuple[int, ...] = ()
    always: int = -1
    plain: bool = False
    gpus: int = 0


CASES = {
    "pool, one GPU breaks": Case(breaks=(0,)),
    "pool, both GPUs break": Case(breaks=(0, 1)),
    "search, one GPU breaks": Case(search=True, breaks=(0,)),
    "search, both GPUs break": Case(search=True, breaks=(0, 1)),
    "pool, a job breaks every GPU": Case(always=0),
    "search, a job breaks every GPU": Case(search=True, always=0),
    "pool, one worker raises": Case(breaks=(0,), plain=True),
    "search, one worker raises": Case(search=True, breaks=(0,), plain=True),
    "pool, one of two GPUs is broken for good": Case(gpus=2),
}

_broken = False


def run_job(job: int, shared: tuple[Case, str]) -> int:
    """Take half a second, or fail where the process is broken."""
    global _broken
    case, folder = shared[0], Path(shared[1])
    (folder / f"process-{os.getpid()}").touch()
    mark = folder / f"broke-{job}"
    if job == case.always or (job in case.breaks and not mark.exists()):
        mark.touch()
        _broken = True
    if _broken or (case.gpus and os.environ.get("CUDA_VISIBLE_DEVICES") == "0"):
        error = ValueError if case.plain else AcceleratorError
        raise error("CUDA error: an illegal memory access was encountered")
    time.sleep(JOB_S)
    return job


def evaluate(job: None, values: dict[str, Any], shared: tuple[Case, str]) -> dict[str, Any]:
    """Run a job as a configuration of a search."""
    return {"objective": float(run_job(values["job"], shared))}


def main(jobs: int = 30, only: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME")] = ()) -> None:
    """Measure.

    Args:
        jobs: of each case.
        only: cases to try; all if none is named. Nothing is written then.
    """
    from benchmarks import broken_workers  # workers import the functions by this name

    rows = []
    print(f"{'case':42} {'ok':>4} {'failed':>6} {'replaced':>8} {'seconds':>7}  tried again; errors")
    for name in only or CASES:
        rows.append({"case": name, **measure(CASES[name], jobs, broken_workers.run_job, broken_workers.evaluate)})
        row = rows[-1]
        print(
            f"{name:42} {row['ok']:4} {row['failed']:6} {row['replaced']:8} {row['seconds']:7.1f}  "
            f"{row['tried_again'] or ''} {row['errors'] or ''}",
            flush=True,
        )
    if not only:
        save("broken_workers", {"what": f"{jobs} jobs of {JOB_S} s on two workers", "cases": rows}, quiet=True)


def measure(case: Case, jobs: int, fn: Callable[..., Any], evaluate_fn: Callable[..., Any]) -> dict[str, Any]:
    """Run all jobs of one case on a cluster of its own."""
    import ray

    from cluster.pool import Failure
    from cluster.ray_pool import RayPool
    from cluster.search_space import Search
    from cluster.tune.tune_search import TuneSearch

    ray.init(
        address="local",
        num_cpus=2,
        num_gpus=case.gpus,
        include_dashboard=False,
        object_store_memory=100 * 2**20,
        log_to_driver=False,
        logging_level="ERROR",
    )
    outcomes: list[Any] = []
    with tempfile.TemporaryDirectory(prefix="memscore-") as folder:
        began, shared = time.monotonic(), (case, folder)
        backend: Any
        if case.search:
            backend = TuneSearch(workers=2)
            search = Search(name="a", space={"job": ("choice", tuple(range(jobs)))}, budget=jobs, job=None)
            backend.search(evaluate_fn, [search], shared, lambda *result: outcomes.append(result[2]), sampler="grid")
        else:
            backend = RayPool(workers=2, gpus_per_worker=min(1, case.gpus))
            outcomes = [outcome for _, outcome in backend.run(fn, range(jobs), shared)]
        seconds = time.monotonic() - began
        processes = len(list(Path(folder).glob("process-*")))
    ray.shutdown()
    failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    return {
        "ok": len(outcomes) - len(failures),
        "failed": len(failures),
        "replaced": processes - 2,
        "seconds": seconds,
        "tried_again": dict(backend.setbacks),
        "errors": dict(Counter(f"{failure.kind}: {failure.error}" for failure in failures)),
    }


if __name__ == "__main__":
    tyro.cli(main)
