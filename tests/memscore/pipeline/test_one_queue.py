"""Models of arms and originals are jobs of one run of the pool, so that no worker waits for the other kind."""

import heapq
from dataclasses import replace

import pytest

from cluster.pool import Failure, SerialPool
from memscore.monitoring.progress import MonitoredPool
from memscore.pipeline.config import BankConfig
from memscore.pipeline.jobs import BankJob, OriginalJob, run_job
from memscore.pipeline.originals import build_missing_originals
from memscore.pipeline.runner import estimate
from memscore.pipeline.train_bank import add_originals
from tests.fixtures.banks import bank as make_bank
from tests.fixtures.opened import open_bank
from tests.memscore.monitoring.test_progress import ARM, FixedPool, make_job, make_receipt, make_receipts

SMALL = BankConfig(train_limit=200, epochs=2, design="exact", block=8, models=8, originals=2)
CNN = replace(SMALL, arch="cnn-4-8", recipe="digits", epochs=1)  # a job a model


class Runs(SerialPool):
    """Records the jobs of each run; a job of `fails` ends in a failure."""

    def __init__(self, fails=None):
        super().__init__()
        self.runs, self.fails = [], fails

    def run(self, fn, jobs, shared=None):
        jobs = list(jobs)
        self.runs.append([job for job in jobs if isinstance(job, BankJob | OriginalJob)])
        for job in jobs:
            if isinstance(job, OriginalJob) and job.index == self.fails:
                yield job, Failure(error="OSError: no")
            else:
                yield from super().run(fn, [job], shared)


def train(tmp_path, config, pool, seen=None):
    bank = open_bank(replace(config, store=str(tmp_path / "store")))
    progress = (lambda *report: seen.append(report[:2])) if seen is not None else (lambda *report: None)
    return bank, estimate(bank, pool, progress)


def list_kinds(run):
    return [type(job).__name__ for job in run]


def test_originals_are_in_the_run_of_the_models_and_before_shorter_jobs(tmp_path):
    pool, seen = Runs(), []
    _, result = train(tmp_path, CNN, pool, seen)
    assert list_kinds(pool.runs[0]) == ["OriginalJob"] * 2 + ["BankJob"] * 8
    assert not any(pool.runs[1:])
    assert seen == [(done, 10) for done in range(1, 11)]
    assert (result.training.trained, result.training.trained_originals, result.originals) == (8, 2, 2)


def test_originals_are_after_jobs_of_many_models(tmp_path):
    pool = Runs()
    train(tmp_path, SMALL, pool)
    assert list_kinds(pool.runs[0]) == ["BankJob", "OriginalJob", "OriginalJob"]


def test_with_a_requested_error_originals_are_beside_the_first_models_only(tmp_path):
    pool = Runs()
    _, result = train(tmp_path, replace(CNN, until_rmse=0.001, models=40), pool)
    with_originals = ["OriginalJob" in list_kinds(run) for run in pool.runs]
    assert with_originals == [True] + [False] * (len(pool.runs) - 1)
    assert len(pool.runs) > 1
    assert result.originals == 2


def test_only_what_is_missing_is_trained(tmp_path):
    bank, _ = train(tmp_path, replace(CNN, originals=1), Runs())
    pool = Runs()
    train(tmp_path, CNN, pool)
    assert [job.index for job in pool.runs[0]] == [1]
    assert build_missing_originals(bank.config, bank.store, 2, "cpu") == []


def test_a_failed_original_costs_neither_models_nor_the_other_original(tmp_path):
    _, result = train(tmp_path, CNN, Runs(fails=0))
    assert result.training.failed == {"original-00000": "OSError: no"}
    assert (result.training.trained, result.training.trained_originals, result.originals) == (8, 1, 1)
    pool = Runs()
    _, result = train(tmp_path, CNN, pool)
    assert [job.index for job in pool.runs[0]] == [0]
    assert result.originals == 2


def test_the_phase_is_models_until_all_are_done_and_then_originals(tmp_path):
    first, second = (OriginalJob(store="s", index=i) for i in (0, 1))
    outcomes = {first: [make_receipt("original-00000")], make_job(3): make_receipts(3), second: []}
    pool = MonitoredPool(FixedPool(outcomes), make_bank(tmp_path / "bank"), {ARM: 8})
    seen = []
    for _ in pool.run(run_job, outcomes):
        heartbeat = pool.update_heartbeat()
        seen.append((heartbeat.phase, heartbeat.done, heartbeat.total))
    assert seen == [("models", 0, 1), ("originals", 1, 2), ("originals", 2, 2)]


def simulate(jobs, workers):
    """Seconds until all jobs are done, each given to the first idle worker, in their order."""
    idle = [0.0] * workers
    for seconds in jobs:
        heapq.heapreplace(idle, idle[0] + seconds)
    return max(idle)


@pytest.mark.parametrize(("models", "seconds", "workers"), [(16, 5.1, 2), (16, 5.1, 8), (64, 1.0, 7), (4, 32.0, 3)])
def test_one_queue_ends_before_originals_after_the_models_did(models, seconds, workers):
    n = 1 if seconds < 30 else 64
    jobs = [make_job(*range(m * n, (m + 1) * n)) for m in range(models)]
    originals = [OriginalJob(store="s", index=i) for i in range(3)]
    cost = {BankJob: seconds, OriginalJob: seconds / n / 0.5}
    queue, first, last = (
        simulate([cost[type(job)] for job in order], workers)
        for order in (add_originals(jobs, originals, {ARM: 0.5}), [*originals, *jobs], [*jobs, *originals])
    )
    assert queue == min(first, last)
    assert queue < simulate([seconds] * models, workers) + simulate([cost[OriginalJob]] * 3, workers)
