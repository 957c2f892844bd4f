"""The search backend on Ray Tune, and what only processes can do: die, hang, hold CPUs, be interrupted."""

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from cluster.pool import Failure
from cluster.search_space import Search
from tests.cluster.test_ray_pool import has_ended, wait_for
from tests.cluster.test_search import FEW, UNIT, Results
from tests.fixtures import jobs, objectives

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[3]


@pytest.fixture
def tune_search(ray_cluster):
    from cluster.tune.tune_search import TuneSearch

    return TuneSearch


def run_searches(backend, fn, searches, shared=None, **options):
    results = Results()
    backend.search(fn, searches, shared, results, **options)
    return results


def make_search(name, space, budget, fn, job=None, **more):
    return Search(name=name, space=space, budget=budget, job=(fn, job), **more)


def find_temporary_folders():
    """This process's storage of Tune, and what Tune keeps of each evaluation in Ray's own folder."""
    import ray

    session = Path(ray._private.worker._global_node.get_session_dir_path())
    own = f"memscore-search~*~{os.getpid()}-*"
    return [*Path(tempfile.gettempdir()).glob(own), *session.glob(f"artifacts/*/{own}")]


def test_searches_run_side_by_side_and_each_result_is_reported_once(tune_search, tmp_path):
    """Budgets, earlier and initial values, failures and finite spaces are as in the serial search."""
    scores = np.array([0.5, 0.25])
    evaluated = [({"x": 0.125}, -1.0)]
    searches = [
        make_search("meet", UNIT, 2, "meet", str(tmp_path)),
        make_search("evaluated", UNIT, 4, "square", 8, evaluated=evaluated, initial=[{"x": 0.125}, {"x": 7.0}]),
        make_search("empty", {}, 5, "product"),
        make_search("raises", FEW, 9, "raise_at_two"),
        make_search("no objective", {}, 1, "without_objective"),
        make_search("shared", {"x": ("choice", (0, 1))}, 2, "from_shared", 1),
    ]
    results = run_searches(
        tune_search(workers=None), objectives.call_by_name, searches, {"scores": scores}, sampler="random"
    )
    outcomes = {each.name: [outcome for name, _, outcome in results if name == each.name] for each in searches}
    assert [outcome["objective"] for outcome in outcomes["meet"]] == [2.0, 2.0]  # both at once
    assert len(outcomes["evaluated"]) == 3
    assert {"objective": -(6.7**2), "job": 8} in outcomes["evaluated"]
    assert outcomes["empty"] == [{"objective": 1.0}]
    failure = next(outcome for outcome in outcomes["raises"] if isinstance(outcome, Failure))
    assert (failure.error, failure.kind) == ("ValueError: two is not allowed", "exception")
    assert "raise_at_two" in failure.traceback
    assert sorted(o["objective"] for o in outcomes["raises"] if o is not failure) == [1.0, 3.0]
    assert outcomes["no objective"][0].error.startswith("TypeError: call_by_name gave no float 'objective'")
    assert [(o["objective"], o["writeable"], o["cuda"], o["threads"]) for o in outcomes["shared"]] == [
        (0.25, False, "", "1"),
        (0.25, False, "", "1"),
    ]
    assert {outcome["folder"] for outcome in outcomes["shared"]} == {os.getcwd()}
    assert not find_temporary_folders()


@pytest.fixture
def evaluate(monkeypatch):
    """The object in a search's process; gives what it returns, or the message with which it ends the process."""
    from cluster.tune.search_state import UnfitWorker
    from cluster.tune.tune_search import SearchWorker

    worker = SearchWorker.__new__(SearchWorker)
    worker.jobs, worker.load_error, worker.fn, worker.shared, worker._logdir = [None], None, raise_it, None, "/none"
    worker.n_raised, worker.n_succeeded_before, worker.has_succeeded = 0, 0, False

    def call(error, n_succeeded, *, may_end=True):
        worker.config = {"sample": (0, {"error": error}, n_succeeded, may_end)}
        try:
            outcome = worker.step()["outcome"][0]
        except UnfitWorker as end:
            return str(end)
        return getattr(outcome, "error", outcome)

    call.slept = []
    monkeypatch.setattr("cluster.tune.tune_search.time.sleep", call.slept.append)
    return call


def raise_it(job, values, shared):
    if values["error"] is not None:
        raise values["error"]
    return {"objective": 1.0}


BAD, FINE = ValueError("x"), {"objective": 1.0}


def test_rays_dashboard_names_a_worker_as_its_warnings_do(monkeypatch):
    from cluster.tune import tune_search

    monkeypatch.setattr(tune_search, "make_worker_environment", lambda gpus: {})
    worker = tune_search.SearchWorker.__new__(tune_search.SearchWorker)
    assert repr(worker) == "search worker"  # Ray asks before setup where that could not begin
    worker.setup({}, b"not to be loaded", [], [], None, "memscore", 0)
    assert repr(worker) == f"memscore-search-{os.getpid()}"


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (jobs.AcceleratorError("CUDA error: unknown"), "gpu: AcceleratorError: CUDA error: unknown"),
        (RuntimeError("CUDA error: out of memory"), "memory: RuntimeError: CUDA error: out of memory"),
        (BAD, "ValueError: x"),
    ],
)
def test_a_process_ends_itself_only_if_its_gpu_is_full_or_lost(evaluate, error, end):
    assert evaluate(error, 0) == end


def test_a_process_ends_itself_after_three_exceptions_while_others_succeed(evaluate):
    assert [evaluate(BAD, n) for n in (5, 5, 6)] == ["ValueError: x", "ValueError: x", "exception: ValueError: x"]


@pytest.mark.parametrize(
    "calls",
    [[(BAD, 5)] * 9, [(BAD, 5), (BAD, 5), (None, 6), (BAD, 7), (BAD, 8)]],
    ids=["nobody succeeds", "it succeeds"],
)
def test_a_process_that_raises_as_others_do_or_succeeds_now_and_then_goes_on(evaluate, calls):
    assert [evaluate(*call) for call in calls] == [FINE if error is None else "ValueError: x" for error, _ in calls]


def test_a_process_that_has_worked_before_ends_only_within_the_bound(evaluate):
    assert evaluate(None, 0) == FINE
    assert [evaluate(BAD, n, may_end=False) for n in range(9)] == ["ValueError: x"] * 9


def test_where_nothing_has_succeeded_a_failing_process_gives_others_the_time_to_start_once(evaluate):
    for _ in range(9):
        evaluate(BAD, 0)
    assert evaluate.slept == [10.0]


@pytest.mark.slow
def test_a_killed_worker_s_evaluation_is_repeated_and_the_third_time_is_a_failure(tune_search, tmp_path, caplog):
    search = tune_search(workers=2)
    gpu = tmp_path / "gpu"
    gpu.mkdir()
    searches = [
        make_search("dies", FEW, 3, "die_once", str(tmp_path)),
        make_search("full", FEW, 3, "full_gpu", str(gpu)),
    ]
    outcomes = {
        (name, values["k"]): outcome
        for name, values, outcome in run_searches(search, objectives.call_by_name, searches)
    }
    lost, full = outcomes.pop(("dies", 3)), outcomes.pop(("full", 2))
    assert {key: outcome["objective"] for key, outcome in outcomes.items()} == {
        ("dies", 1): 1.0,
        ("dies", 2): 2.0,
        ("full", 1): 1.0,
        ("full", 3): 3.0,
    }
    assert lost.error.startswith("its worker process died: killed by a signal")
    assert (lost.kind, lost.attempts) == ("worker", 3)
    assert "SYSTEM_ERROR" in lost.traceback  # Ray's own account
    assert full.kind == "memory"
    assert full.error.endswith("OutOfMemoryError: CUDA out of memory")
    assert len(list(gpu.iterdir())) == 3  # a fresh process each time
    assert search.setbacks == {"worker": 4, "memory": 3}  # one of 2, three of 3; three of the GPU
    messages = [record.getMessage() for record in caplog.records]
    assert sum(m.startswith("dies {") and "again: its worker process died" in m for m in messages) == 3
    assert sum("is evaluated again: OutOfMemoryError: CUDA out of memory" in message for message in messages) == 2


def test_what_stops_the_run_and_what_on_result_raises_end_the_search_at_once(tune_search, tmp_path):
    search = tune_search(workers=2)
    searches = [make_search("sleeps", {}, 1, "sleep_long", str(tmp_path)), make_search("stops", FEW, 3, "stop_at_two")]
    with pytest.raises(jobs.StoreGone, match="the disk is full"):
        run_searches(search, objectives.call_by_name, searches)
    wait_for(lambda: not (tmp_path / "pid").exists() or has_ended(int((tmp_path / "pid").read_text())))

    def on_result(search, values, outcome):
        raise OSError("the row cannot be stored")

    with pytest.raises(OSError, match="the row cannot be stored"):
        search.search(objectives.product, [Search(name="a", space=FEW, budget=3, job=None)], None, on_result)


def test_a_pool_and_a_search_take_turns_on_the_same_cpus(ray_cluster):
    from cluster.launch import PoolOptions, open_pool_and_search

    with open_pool_and_search(PoolOptions(pool="ray", workers=2, device="cpu"), str) as (session, search):
        pool = session.pool
        assert session.device == "cpu"
        assert session.run_on_each_node is None
        assert sorted(pool.run(jobs.double, range(4))) == [(job, 2 * job) for job in range(4)]
        assert len(run_searches(search, objectives.product, [Search(name="a", space=UNIT, budget=3, job=None)])) == 3
        assert sorted(pool.run(jobs.double, range(4))) == [(job, 2 * job) for job in range(4)]


@pytest.mark.slow
def test_evaluations_that_are_shorter_than_the_start_of_a_process_run_side_by_side_too(tune_search):
    """Tune's own scheduler ends a starting process whenever another is free, so that one works alone for ever."""
    pids = set()

    def on_result(search, values, outcome):
        pids.add(outcome["pid"])
        if len(pids) == 2:
            raise StopAsyncIteration

    with pytest.raises(StopAsyncIteration):
        tune_search(workers=2).search(
            objectives.sleep_briefly, [Search(name="a", space=UNIT, budget=200, job=None)], None, on_result
        )


@pytest.mark.slow
def test_a_long_silence_and_the_warnings_of_workers_are_logged(tune_search, caplog):
    caplog.set_level(logging.WARNING)
    searches = [make_search("a", UNIT, 2, "warn_and_wait")]
    run_searches(tune_search(workers=1, silence_s=1), objectives.call_by_name, searches)
    messages = [record.getMessage() for record in caplog.records if record.name.startswith("cluster.")]
    assert [text for text in messages if text.startswith("no evaluation has ended for 0 min; running: 1")]
    assert [text for text in messages if text.endswith("the disk is nearly full")]


@pytest.mark.slow
def test_a_cluster_without_room_is_warned_of_once_and_given_up(tune_search, monkeypatch, caplog):
    import ray

    monkeypatch.setattr("cluster.tune.search_state.NO_WORKER_WARNING_S", 2)
    caplog.set_level(logging.WARNING)
    holders = [ray.remote(num_cpus=1)(jobs.Greedy).remote() for _ in range(2)]
    ray.get([holder.is_ready.remote() for holder in holders])
    try:
        with pytest.raises(TimeoutError, match="no worker could be placed for 6 s: the cluster has 2 CPUs"):
            run_searches(
                tune_search(workers=1, wait_s=6), objectives.product, [Search(name="a", space=UNIT, budget=1, job=None)]
            )
    finally:
        for holder in holders:
            ray.kill(holder)
    warnings = [r for r in caplog.records if r.getMessage().startswith("no worker is ready after")]
    assert len(warnings) == 1


@pytest.mark.slow
def test_a_function_that_workers_cannot_import_ends_the_search(tune_search, tmp_path, monkeypatch):
    (tmp_path / "only_driver.py").write_text("def judge(job, values, shared):\n    return {'objective': 1.0}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import only_driver

    with pytest.raises(RuntimeError, match=r"cannot load the search's function: ModuleNotFoundError.*on all nodes"):
        run_searches(tune_search(workers=2), only_driver.judge, [Search(name="a", space=UNIT, budget=4, job=None)])


@pytest.mark.slow
def test_an_evaluation_on_a_lost_node_is_repeated_elsewhere(run_alone, tmp_path):
    report = json.loads(run_alone("-m", "tests.fixtures.lose_a_node", str(tmp_path), "node", "search", limit_s=150))
    assert report["outcomes"] == {"0": "again"} | {str(k): "first" for k in range(1, 10)}
    assert 1 <= report["setbacks"]["worker"] <= 2  # a second time if it is placed there before Ray knows of the loss


INTERRUPTED = """
import sys, time
from cluster.launch import PoolOptions, open_pool_and_search
from cluster.search_space import Search
from memscore.cli.app import run_command
from tests.fixtures import objectives

def command():
    with open_pool_and_search(PoolOptions(pool="ray", workers=2, device="cpu"), str) as (session, search):
        searches = [Search(name="a", space={"x": ("uniform", 0.0, 1.0)}, budget=4, job=sys.argv[1])]
        search.search(objectives.sleep_long, searches, None, print)
    return 0

sys.exit(run_command(command))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_and_sigterm_end_the_search_at_once(tmp_path, number, code):
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    own = {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}
    driver = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(tmp_path)],
        env=plain | own | {"RAY_USAGE_STATS_ENABLED": "0"},
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for((tmp_path / "pid").exists, limit_s=120)
    before = time.monotonic()
    driver.send_signal(number)
    _, stderr = driver.communicate(timeout=60)
    took_s = time.monotonic() - before
    assert (driver.returncode, stderr.strip().splitlines()[-1]) == (code, "interrupted; the same command begins again")
    assert has_ended(int((tmp_path / "pid").read_text()))
    assert took_s < 15, took_s  # of which stopping Ray takes two to six; Tune's own grace is half a minute
