"""What the driver of a search on Ray Tune records of lost and failing workers, without Ray's processes."""

import math
from collections import Counter
from types import SimpleNamespace

import pytest

from cluster.pool import Failure, FailureCounter, RepeatedFailure
from cluster.search import ConfigSampler
from cluster.search_space import Search

GPU_ERROR = "AcceleratorError: CUDA error: an illegal memory access was encountered"


@pytest.fixture
def state_module(monkeypatch):
    from cluster.tune import search_state

    context = SimpleNamespace(get_node_id=lambda: "here")
    monkeypatch.setattr(search_state, "ray", SimpleNamespace(get_runtime_context=lambda: context))
    return search_state


@pytest.fixture
def state(state_module):
    search = Search(name="a", space={"x": ("uniform", 0.0, 1.0)}, budget=50, job=None)
    return state_module.SearchState(
        ConfigSampler([search], "random"),
        lambda *result: None,
        log_collector=SimpleNamespace(poll=lambda: None),
        count_fitting=lambda: 3,
        setbacks=Counter(),
        wait_s=math.inf,
        silence_s=math.inf,
        failure_counter=FailureCounter(lambda: 3, keep_going=False),
    )


def begin(state, trial):
    """Start an evaluation, as Tune does; gives whether there was one to start."""
    if state.suggest(trial) is None:
        return False
    state.running[trial] = 0.0
    return True


def end(state, trial, worker, *, raised):
    from cluster.ray_worker import RemoteError

    state.record_worker(worker, raised=raised)
    error = RemoteError("ValueError: x", "", gpu_memory=False, stop=None)
    state.finish(trial, error if raised else {"objective": 1.0})


def write_loss(*errors):
    """Tune's text on an evaluation whose processes ended so."""
    return "\n".join(
        f"Failure # {k + 1} (occurred at 2026-01-01_00-00-00)\nray::SearchWorker.train()\n  File a.py\n{error}\n"
        for k, error in enumerate(errors)
    )


@pytest.mark.parametrize(
    ("kind", "error", "line", "failure_kind"),
    [
        ("gpu", GPU_ERROR, f"its worker lost its GPU: {GPU_ERROR}", "worker"),
        ("memory", "RuntimeError: CUDA error: out of memory", "RuntimeError: CUDA error: out of memory", "memory"),
    ],
)
def test_a_worker_that_ended_itself_says_why(state_module, state, caplog, kind, error, line, failure_kind):
    marked = f"cluster.tune.search_state.{state_module.UnfitWorker(kind, error).__class__.__name__}: {kind}: {error}"
    begin(state, "1")
    state.recover("1", write_loss(marked))
    assert caplog.records[-1].getMessage().endswith(f"is evaluated again: {line}")
    state.lose("1", write_loss("ray.exceptions.ActorDiedError: it died", marked))
    assert state.setbacks == {kind: 2}
    failure = state.ended[0][1]
    assert (failure.error, failure.kind, failure.attempts) == (line, failure_kind, 3)
    assert "ActorDiedError" not in failure.traceback  # the last loss only


@pytest.mark.parametrize(
    ("text", "kind", "line"),
    [
        ("ray.exceptions.ActorDiedError: The actor died", "worker", "its worker process died"),
        (
            "ActorDiedError: Worker exits unexpectedly. Worker exits with an exit code 5.",
            "worker",
            "its worker process died with exit code 5",
        ),
        ("the node was running low on memory", "memory", "its node ran low on memory and Ray killed the worker"),
    ],
)
def test_a_worker_that_was_lost_is_counted_by_its_cause(state, text, kind, line):
    begin(state, "1")
    state.lose("1", write_loss("cluster.tune.search_state.UnfitWorker: gpu: earlier", text))
    assert state.setbacks == {kind: 1}
    assert isinstance(state.ended[0][1], Failure)
    assert state.ended[0][1].error == line


def test_after_three_exceptions_of_one_worker_none_begins_until_another_one_ends(state):
    assert begin(state, "long")
    assert begin(state, "longer")
    for k in range(3):
        assert begin(state, f"short{k}")
        end(state, f"short{k}", "failing", raised=True)
    assert not begin(state, "next")
    end(state, "long", "other", raised=False)
    assert begin(state, "next")
    assert state.n_succeeded == 1


def test_with_no_other_running_exceptions_stop_nothing(state):
    for k in range(10):
        assert begin(state, str(k))
        end(state, str(k), "alone", raised=True)


def test_where_all_raise_none_waits_longer_than_for_the_next_end(state):
    running = {"a": "a0", "b": "b0"}  # worker -> what it evaluates
    assert all(begin(state, trial) for trial in running.values())
    for k in range(1, 20):
        for worker, other in (("a", "b"), ("b", "a")):
            if worker not in running:
                continue
            end(state, running.pop(worker), worker, raised=True)
            for idle in {worker, other} - set(running):
                if begin(state, f"{idle}{k}{worker}"):
                    running[idle] = f"{idle}{k}{worker}"
            assert running
    assert state.n_succeeded == 0


def test_replaced_workers_are_bounded(state_module, state):
    marked = f"cluster.tune.search_state.{state_module.UnfitWorker.__name__}: exception: ValueError: x"
    for k in range(state_module.MAX_REPLACED):
        assert state.may_replace
        begin(state, str(k))
        state.recover(str(k), write_loss(marked))
        end(state, str(k), f"worker {k}", raised=False)
    assert not state.may_replace
    assert state.setbacks == {"exception": 10}


def test_a_search_whose_first_evaluations_all_fail_in_the_same_way_ends(state, state_module):
    for k in range(8):
        assert begin(state, str(k))
        end(state, str(k), k, raised=True)
    with pytest.raises(state_module.SearchEnded):
        state.update()
    assert isinstance(state.stop, RepeatedFailure)
    assert state.n_ended == 8
