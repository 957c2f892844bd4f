"""Which engine trains a job, and what stays in memory."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch import nn

from memscore.models.architectures import Classifier, build_network
from memscore.training import cuda_graphs, engines, evaluation
from memscore.training.cuda_graphs import CudaGraphEngine, CudaGraphForward
from memscore.training.engines import MultiStreamEngine, select_engine
from memscore.training.graph_recording import GraphCaptureError, GraphRecordingError
from memscore.training.loop import train
from tests.memscore.training.graph_emulator import EmulatedGraph, emulate_graphs
from tests.memscore.training.test_cuda_graph_engine import (
    CNN,
    RECIPE,
    K,
    N,
    assert_equal,
    data,
    make_run,
    train_eagerly,
    values,
)

MLP = ("mlp-20", (1, 5, 5))


@pytest.fixture(autouse=True)
def forget_compile_errors():
    engines._compile_errors.clear()
    yield
    engines._compile_errors.clear()


@pytest.fixture
def prefer_many(monkeypatch):
    """More streams are always faster."""
    monkeypatch.setattr(engines, "measure_seconds_per_step", lambda engines: 1 / len(engines))


def limit_engines(monkeypatch, count, make_error):
    """Let all but the first engines fail; return the list of those that were made."""
    made = []

    class Limited(CudaGraphEngine):
        def __init__(self, *args, **kwargs):
            if len(made) == count:
                raise make_error()
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr(engines, "CudaGraphEngine", Limited)
    return made


def choose(models=4, kind=CNN, recipe=RECIPE, capture=False):
    images, labels = data(kind[1])
    return select_engine([make_run(i, *kind) for i in range(models)], images, labels, recipe, capture=capture)


@pytest.mark.parametrize(("count", "streams"), [(1, 1), (2, 2), (3, 2)])
@pytest.mark.parametrize(
    ("make_error", "warnings"),
    [
        (lambda: GraphCaptureError("a step fails: it does"), 1),
        (lambda: GraphRecordingError("recording it failed: CUDA error"), 1),
        (lambda: torch.OutOfMemoryError("CUDA out of memory"), 0),
        (lambda: RuntimeError("GET was unable to find an engine to execute this computation"), 0),
    ],
    ids=["refused", "recording failed", "memory", "memory by another name"],
)
def test_an_engine_too_many_costs_streams_and_not_the_graph(
    monkeypatch, prefer_many, caplog, count, streams, make_error, warnings
):
    monkeypatch.delenv("MEMSCORE_WORKER", raising=False)
    made = limit_engines(monkeypatch, count, make_error)
    choice = choose()
    assert (choice.receipt_fields["engine"], choice.models_per_call) == ("uncaptured", streams)
    [cached] = engines._engine_cache.values()
    assert cached == made[:streams]
    assert len(caplog.records) == warnings


def test_a_first_engine_whose_memory_is_short_by_another_name_is_the_pool_s_business(monkeypatch):
    limit_engines(monkeypatch, 0, lambda: RuntimeError("CUDA error: out of memory"))
    with pytest.raises(RuntimeError, match="out of memory"):
        choose()


@pytest.mark.parametrize("recorded", [0, 1])
def test_a_failed_recording_ends_a_worker_and_its_successor_records_no_more_than_succeeded(
    monkeypatch, prefer_many, recorded
):
    limit_engines(monkeypatch, recorded, lambda: GraphRecordingError("recording it failed: CUDA error"))
    monkeypatch.setenv("MEMSCORE_WORKER", "1")
    with pytest.raises(GraphRecordingError) as raised:
        choose()
    [(name, value)] = raised.value.worker_environment.items()
    assert value == str(recorded)
    # the successor: a process without engines, which knows the variable
    engines.clear_engine_cache()
    made = limit_engines(monkeypatch, 9, AssertionError)
    monkeypatch.setenv(name, value)
    choice = choose()
    assert len(made) == recorded
    reason = "eager, because recording it has failed before"
    assert choice.receipt_fields == {"engine": "uncaptured" if recorded else reason, "streams": 1}
    # other networks are recorded
    other = make_run(0, "cnn-4", CNN[1])
    assert select_engine([other], *data(CNN[1]), RECIPE, capture=False).receipt_fields["engine"] == "uncaptured"


def test_a_process_without_successor_trains_eagerly_after_a_failed_recording(monkeypatch, caplog):
    monkeypatch.delenv("MEMSCORE_WORKER", raising=False)

    def fail(graph):
        graph.recorder.__exit__(None, None, None)
        EmulatedGraph.capturing = None
        raise RuntimeError("CUDA error: operation failed due to a previous error during capture")

    images, labels = data(CNN[1])
    with emulate_graphs(), monkeypatch.context() as patch:
        patch.setattr(EmulatedGraph, "capture_end", fail)
        for _ in range(2):
            runs = [make_run(i, *CNN) for i in range(2)]
            choice = select_engine(runs, images, labels, RECIPE, capture=True)
            assert choice.receipt_fields["engine"].startswith("eager, because recording it failed: CUDA error")
            train(runs[:1], images, labels, RECIPE, 7, engine=choice.engine(runs[:1]))
            assert_equal(values(runs[0].model), train_eagerly(0, CNN))
    assert len(caplog.records) == 1


def test_cached_engines_are_freed_by_a_job_of_another_engine(monkeypatch):
    freed = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: freed.append(len(engines._engine_cache)))
    unnamed = replace(make_run(0, *CNN), architecture="")
    flat = make_run(0, *MLP)
    others = {
        "stack": lambda: select_engine([flat], *data(MLP[1]), RECIPE),
        "single": lambda: select_engine([make_run(0, *CNN)], *data(CNN[1]), RECIPE),
        "eager": lambda: select_engine([unnamed], *data(CNN[1]), RECIPE, capture=False),
    }
    for name, select in others.items():
        choose(models=1)
        assert len(engines._engine_cache) == 1
        freed.clear()
        assert select().receipt_fields["engine"].startswith(name)
        assert engines._engine_cache == {}
        assert freed == [0]


def test_memory_of_engines_that_timing_rejects_is_freed(monkeypatch):
    freed = []
    monkeypatch.setattr(engines, "measure_seconds_per_step", lambda engines: len(engines))
    monkeypatch.setattr(
        torch.cuda, "empty_cache", lambda: freed.append([len(cached) for cached in engines._engine_cache.values()])
    )
    assert choose().models_per_call == 1
    assert freed == [[1]]


@pytest.mark.parametrize(
    ("seconds", "best", "tried"),
    [
        ({1: 1.0, 2: 0.96, 4: 0.5, 8: 0.4}, 2, [1, 2]),  # the next is tried after a gain of 5 % only
        ({1: 1.0, 2: 0.5, 4: 0.4, 8: 0.39, 16: 0.1}, 8, [1, 2, 4, 8]),
        ({1: 1.0, 2: 1.2}, 1, [1, 2]),
        ({1: 1.0, 2: 0.6, 4: 0.4, 8: 0.3, 16: 0.2}, 16, [1, 2, 4, 8, 16]),
    ],
)
def test_more_streams_are_tried_while_they_gain(monkeypatch, seconds, best, tried):
    timed = []
    monkeypatch.setattr(engines, "measure_seconds_per_step", lambda used: timed.append(len(used)) or seconds[len(used)])
    assert choose(models=16).models_per_call == best
    assert timed == tried


def test_an_architecture_of_the_table_is_compiled_and_where_that_fails_captured(monkeypatch, caplog):
    compiled = []

    def compile_network(function, **kwargs):
        compiled.append(function)
        return fail if outcome else function

    def fail(*args):
        raise RuntimeError(outcome)

    monkeypatch.setattr(torch, "compile", compile_network)
    images, labels = data(CNN[1])
    runs = [replace(make_run(i, *CNN), architecture=f"{CNN[0]} of 3 classes") for i in range(2)]
    for outcome, engine in (
        ("", "uncaptured, compiled"),
        ("no C compiler", "uncaptured, not compiled because no C compiler"),
    ):
        engines.clear_engine_cache()
        compiled.clear()
        choice = select_engine(runs, images, labels, RECIPE, capture=False, compiled=True)
        assert choice.receipt_fields["engine"] == engine
        assert len(compiled) == (1 if outcome else 2)  # a network that cannot be compiled is tried once, not per stream
    assert len(caplog.records) == 1
    # what only the compiled step does is no reason against capturing the network itself
    engines.clear_engine_cache()
    engines._compile_errors.clear()
    outcome = ""
    real = CudaGraphEngine.compile_step

    def refuse(engine):
        real(engine)
        raise GraphCaptureError("a step waits for the device: item")

    monkeypatch.setattr(CudaGraphEngine, "compile_step", refuse)
    choice = select_engine(runs, images, labels, RECIPE, capture=False, compiled=True)
    assert choice.receipt_fields["engine"] == "uncaptured, not compiled because a step waits for the device: item"


def test_the_table_names_architectures_that_exist():
    for name in engines.COMPILED_ARCHITECTURES:
        assert build_network(name, (3, 32, 32), K, seed=0)


class RandomNoise(nn.Module):
    def forward(self, images):
        return images + torch.rand_like(images)


@pytest.mark.parametrize("capture", [False, True])
def test_a_network_that_draws_gets_one_engine_and_no_timing(monkeypatch, capture):
    made = limit_engines(monkeypatch, 9, AssertionError)
    monkeypatch.setattr(engines, "measure_seconds_per_step", lambda engines: pytest.fail("it is timed"))
    images, labels = data(CNN[1])
    network = Classifier(nn.Sequential(RandomNoise(), nn.Flatten()), nn.Linear(128, K))
    runs = [replace(make_run(i, *CNN), model=network, architecture="noise") for i in range(4)]
    with emulate_graphs() if capture else nullcontext():
        choice = select_engine(runs, images, labels, RECIPE, capture=capture)
    assert choice.models_per_call == len(made) == 1
    assert made[0].uses_device_rng


@pytest.mark.usefixtures("plain_convolutions")
def test_a_network_that_cannot_be_compiled_is_captured_as_it_is(monkeypatch, caplog):
    def compile_nothing(function, **kwargs):
        def fail(*args):
            raise RuntimeError("Failed to find C compiler\nplease install one")

        return fail

    monkeypatch.setattr(torch, "compile", compile_nothing)
    images, labels = data(CNN[1])
    run = make_run(1, *CNN)
    with emulate_graphs():
        engine = CudaGraphEngine(run.model, images, labels, RECIPE, compiled=True)
        train([run], images, labels, RECIPE, 7, engine=MultiStreamEngine([engine], [run]))
    assert_equal(values(run.model), train_eagerly(1, CNN))
    assert not engine.compiled
    assert [record.getMessage() for record in caplog.records] == [
        "the network is not compiled, so it is slower, because Failed to find C compiler"
    ]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("full"), RuntimeError("CUDA error: illegal address")])
def test_memory_and_a_broken_device_are_no_reason_to_do_without_compiling(monkeypatch, error):
    def fail(*args):
        raise error

    monkeypatch.setattr(torch, "compile", lambda function, **kwargs: fail)
    with pytest.raises(type(error), match=str(error)):
        CudaGraphEngine(make_run(0, *CNN).model, *data(CNN[1]), RECIPE, capture=False, compiled=True)


@pytest.mark.slow
def test_a_compiled_network_is_trained_as_the_eager_one_but_for_rounding():
    run, (images, labels) = make_run(1, *CNN), data(CNN[1])
    engine = CudaGraphEngine(run.model, images, labels, RECIPE, capture=False, compiled=True)
    train([run], images, labels, RECIPE, 7, engine=MultiStreamEngine([engine], [run]))
    assert engine.compiled
    torch.testing.assert_close(values(run.model), train_eagerly(1, CNN), rtol=0, atol=1e-6)


class OnGPU(torch.Tensor):
    is_cuda = True


def test_weights_are_copied_once_a_model_and_again_after_another_one(monkeypatch):
    monkeypatch.setattr(cuda_graphs, "GRAPH_EVALUATION_BATCH", 32)
    loads = []

    class Counting(CudaGraphForward):
        def load(self, model):
            loads.append(models.index(model))
            super().load(model)

    monkeypatch.setattr(evaluation, "CudaGraphForward", Counting)
    images, _ = data(CNN[1])
    shown = images.take(torch.arange(N)).as_subclass(OnGPU)
    models = [build_network(*CNN, K, seed=i) for i in range(2)]
    with emulate_graphs():
        first, second = (evaluation.build_forward(model, RECIPE, "cnn-4-8") for model in models)
        outputs = [predict(shown).as_subclass(torch.Tensor) for predict in (first, first, second, second, first)]
    assert loads == [0, 1, 0]
    expected = [models[i](shown.as_subclass(torch.Tensor)) for i in (0, 0, 1, 1, 0)]
    for got, right in zip(outputs, expected, strict=True):
        torch.testing.assert_close(got, right, rtol=1e-4, atol=1e-4)


def test_an_evaluation_whose_recording_fails_is_eager_and_is_not_recorded_again(monkeypatch):
    monkeypatch.delenv("MEMSCORE_WORKER", raising=False)
    tried = []

    def fail(*args):
        tried.append(1)
        raise GraphRecordingError("recording it failed: CUDA error")

    monkeypatch.setattr(evaluation, "CudaGraphForward", fail)
    images, _ = data(CNN[1])
    shown, model = images.take(torch.arange(5)), build_network(*CNN, K, seed=0)
    for architecture in ("cnn-4-8", "another", "cnn-4-8"):
        assert evaluation.get_graph_forward(model, shown, RECIPE, architecture) is None
    assert len(tried) == 2
    monkeypatch.setenv("MEMSCORE_WORKER", "1")
    with pytest.raises(GraphRecordingError):
        evaluation.get_graph_forward(model, shown, RECIPE, "a third")
