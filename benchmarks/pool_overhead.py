"""Claim: sending jobs through the pool costs little beside a bare loop over the same jobs.

    python -m benchmarks.pool_overhead [--rounds 7] [--models 64] [--quick]

Digits, MLP, 30 epochs: jobs as `estimate` makes them (a stack of models each), and the same models one a job, which is
the harsh case. A round trains all of them twice, into fresh stores and in turns: by `for job in jobs: work(job, ...)`
in this process, and by a RayPool with one worker. Both were warmed up before, so this is the cost of jobs and not of
starting; what starting Ray and the worker takes is told apart. Ratios are of wall clock, pair by pair.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import tyro

from benchmarks.results_file import save, spread
from cluster.pool import SerialPool
from cluster.session import connect
from memscore.data.splits import build_examples_table
from memscore.pipeline.config import BankConfig
from memscore.pipeline.jobs import BankJob, SharedData, run_job
from memscore.pipeline.runner import prepare_arms, prepare_bank
from memscore.pipeline.train_bank import build_bank_jobs

PLAN = BankConfig(data="digits", design="exact", keep=0.5, originals=0)


def main(rounds: int = 7, models: int = 64, quick: bool = False) -> None:
    """Measure.

    Args:
        rounds: pairs of loop and pool, for each kind of job.
        models: of a bank, whole blocks of 64.
        quick: one round; the numbers mean nothing.
    """
    torch.set_num_threads(1)
    started = time.perf_counter()
    with connect(workers=1), tempfile.TemporaryDirectory() as folder:
        from cluster.ray_pool import RayPool

        _, shared = bank_in(f"{folder}/warm", models)
        with RayPool(workers=1) as pool:
            once(folder, models, lambda jobs: ran(pool, jobs, shared), split=False)
            start_s = time.perf_counter() - started
            once(folder, models, lambda jobs: looped(jobs, shared), split=False)
            found = {}
            for kind, split in (("stacks", False), ("one_model_a_job", True)):
                pairs = []
                for number in range(1 if quick else rounds):
                    both = {"loop": lambda jobs: looped(jobs, shared), "pool": lambda jobs: ran(pool, jobs, shared)}
                    order = list(both) if number % 2 else list(both)[::-1]
                    pairs.append({name: once(folder, models, both[name], split=split) for name in order})
                    print(kind, number, pairs[-1], flush=True)
                found[kind] = summary(pairs)
    measured = {"what": f"digits, MLP, {models} models, one worker against one loop", "start_s": start_s, **found}
    print(measured) if quick else save("pool_overhead", measured)


def summary(pairs: list[dict[str, tuple[float, int]]]) -> dict[str, Any]:
    """Seconds of either, their ratios, and what a job costs more in the pool."""
    jobs = pairs[0]["loop"][1]
    return {
        "jobs": jobs,
        "loop_s": spread([pair["loop"][0] for pair in pairs]),
        "pool_s": spread([pair["pool"][0] for pair in pairs]),
        "pool_over_loop": spread([pair["pool"][0] / pair["loop"][0] for pair in pairs]),
        "more_ms_a_job": spread([1e3 * (pair["pool"][0] - pair["loop"][0]) / jobs for pair in pairs]),
    }


def bank_in(url: str, models: int) -> tuple[list[BankJob], SharedData]:
    """The jobs of an empty bank, and its data."""
    bank = prepare_bank(replace(PLAN, store=url, models=models))
    bank.store.create_files(build_examples_table(bank.splits))
    shared = prepare_arms(bank, SerialPool())
    return build_bank_jobs(bank.store, bank.arms[0], list(range(models)), events=False, device="cpu"), shared


def once(folder: str, models: int, train: Callable[[list[BankJob]], int], *, split: bool) -> tuple[float, int]:
    """Seconds of training a fresh bank, and in how many jobs."""
    url = f"{folder}/{time.monotonic_ns()}"
    jobs, _ = bank_in(url, models)
    jobs = [part for job in jobs for part in job.split()] if split else jobs
    started = time.perf_counter()
    trained = train(jobs)
    seconds = time.perf_counter() - started
    if trained != models:
        raise RuntimeError(f"{trained} of {models} models were trained, so this measures nothing")
    shutil.rmtree(url)
    return seconds, len(jobs)


def looped(jobs: list[BankJob], shared: SharedData) -> int:
    """The bare loop; how many models it trained."""
    return sum(len(run_job(job, shared)) for job in jobs)


def ran(pool: Any, jobs: list[BankJob], shared: SharedData) -> int:
    """The pool; how many models it trained."""
    return sum(len(outcome) for _, outcome in pool.run(run_job, jobs, shared))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    tyro.cli(main)
