"""Select a job's training engine: stacked MLPs, one eager model, or CUDA graph streams.

On a GPU each model has its own storage, graph and stream (memscore/training/cuda_graphs.py), and the graphs are
launched in turn, step by step. Whether 1, 2, ... or 16 models at once are fastest depends on network and GPU, so the
first job of a process measures it, and the process reuses the result. Networks that draw random numbers run one at a
time: all graphs share the position of the device's generator, which is set to the model's own. The kernels of some
architectures are fused by torch.compile before they are captured. A network that cannot be compiled is captured as it
is, one that cannot be captured is trained eagerly, by the same recipe, and the receipt states the reason.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cluster.device_errors import is_memory_shortage
from memscore.models.compiled_convolutions import explain_plain_convolutions
from memscore.training.cuda_graphs import CudaGraphEngine
from memscore.training.device_data import DeviceImages
from memscore.training.graph_recording import GraphCaptureError, handle_failed_recording
from memscore.training.loop import Engine, TrainingRun, is_stackable
from memscore.training.precision import require_precision, require_trained_precision
from memscore.training.recipes import Recipe
from memscore.training.stacked_mlp import StackedMLPEngine
from memscore.user_functions import is_user_function

STREAM_COUNTS = (1, 2, 4, 8, 16)
MIN_GAIN = 1.05  # of a number of streams over the one before, for the next to be tried
AUTOTUNE_STEPS = 16  # steps of each timing
COMPILED_ARCHITECTURES = frozenset({"resnet18", "resnet18-imagenet-stem"})
"""Architectures that are compiled on a GPU. A compiled step of ResNet-18 with the CIFAR stem takes 1 / 1.3 of the
captured one's time on an H200 (benchmarks/results/gpu_speed.json); with ImageNet's stem, whose time is the launches of
small kernels, that is not measured yet. Compiling takes 25 s in each process."""

_log = logging.getLogger(__name__)
_engine_cache: dict[tuple[object, ...], list[CudaGraphEngine]] = {}  # engines of one architecture, recipe and data set
_capture_errors: dict[tuple[str, Recipe], str] = {}  # why these networks cannot be captured
_compile_errors: dict[tuple[str, Recipe], str] = {}  # why these networks cannot be compiled
_best_stream_counts: dict[tuple[str, Recipe], tuple[int, int]] = {}  # models of the timed job, and the best count


def use_default_engine(runs: Sequence[TrainingRun]) -> None:
    """Return no engine: `train` then builds its default one, a stack or one eager model."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EngineChoice:
    """How the models of a job are trained.

    Attributes:
        receipt_fields: of the receipts; describe_model gives those of one model.
        models_per_call: how many models one call of `train` trains.
        engine: makes the engine for these models; returns None where `train` builds its default engine.
    """

    receipt_fields: dict[str, object]
    models_per_call: int
    engine: Callable[[Sequence[TrainingRun]], Engine | None] = use_default_engine

    def describe_model(self, position: int, models: int) -> dict[str, object]:
        """Return the receipt's fields of the model at this position of a job; the last call may train fewer models."""
        if "streams" not in self.receipt_fields:
            return self.receipt_fields
        first = position - position % self.models_per_call
        return self.receipt_fields | {"streams": min(self.models_per_call, models - first)}


class MultiStreamEngine:
    """Several networks trained from CUDA graphs, each on its own stream; the models are loaded into the engines."""

    def __init__(self, engines: Sequence[CudaGraphEngine], runs: Sequence[TrainingRun]):
        # The last models of a job may be fewer than the cached engines.
        self.engines = engines[: len(runs)]
        for engine, run in zip(self.engines, runs, strict=True):
            engine.load(run)

    def run(self, rows: Tensor, learning_rates: Sequence[float], *, return_logits: bool) -> Tensor | None:
        """Take a step per learning rate; optionally return logits [S, steps, B, K] before each."""
        return run_engines(self.engines, rows, learning_rates, return_logits=return_logits)

    def write_back(self) -> None:
        """Copy the weights into the models they belong to."""
        for engine in self.engines:
            engine.write_back()


def run_engines(
    engines: Sequence[CudaGraphEngine], rows: Tensor, learning_rates: Sequence[float], *, return_logits: bool
) -> Tensor | None:
    """Run the steps of S engines in turn, rows int64 [S, steps, B]; return logits [S, steps, B, K] or None."""
    shape = (len(engines), len(learning_rates), *engines[0].logits_table.shape[1:])
    logits = torch.empty(shape, device=rows.device) if return_logits else None
    # The current stream has allocated logits and made rows; it must not run on before the engines have read and written
    # them. Between these two waits only streams wait for streams, never the host.
    for engine in engines:
        engine.wait_for_current_stream()
    for start in range(0, len(learning_rates), engines[0].length):
        # Tables hold `length` steps. They are filled on the engine's own stream, so after the replays and the copy of
        # logits of the part before.
        part = slice(start, min(start + engines[0].length, len(learning_rates)))
        for engine, engine_rows in zip(engines, rows, strict=True):
            with engine.on_stream():
                engine.fill_tables(engine_rows[part], learning_rates[part])
        # Step by step and not engine by engine: all streams have work once the host has launched one graph for each.
        for _ in learning_rates[part]:
            for engine in engines:
                with engine.on_stream():
                    engine.replay()
        if logits is not None:
            for engine_logits, engine in zip(logits, engines, strict=True):
                with engine.on_stream():
                    engine_logits[part].copy_(engine.logits_table[: part.stop - part.start])
    for engine in engines:
        engine.make_current_stream_wait()
    return logits


def select_engine(
    runs: Sequence[TrainingRun],
    images: DeviceImages,
    labels: Tensor,
    recipe: Recipe,
    *,
    capture: bool | None = None,
    compiled: bool | None = None,
) -> EngineChoice:
    """Select the engine by architecture, recipe and device; on a GPU also by a short timing.

    Args:
        runs: models of one architecture.
        images: on the device.
        labels: same device.
        recipe: of the training.
        capture: None captures on a GPU only; False runs the CUDA graph engine's steps without a graph on any device.
        compiled: None compiles what is captured on a GPU and listed in COMPILED_ARCHITECTURES.

    Returns:
        The choice; its receipt fields say what could not be captured or compiled, and why.
    """
    require_precision(recipe.precision, "cuda" if capture else labels.device.type)
    require_trained_precision(runs[0].model, recipe)
    # Architecture and recipe alone decide between a stack and single networks, so all models of a bank are trained in
    # the same way, however many of them a job has left to train. Every other engine than these frees their memory.
    if is_stackable(runs[0].model, recipe):
        clear_engine_cache()
        if capture or (capture is None and labels.device.type == "cuda"):
            return choose_captured_stack(len(runs), runs[0].architecture, images, labels, recipe)
        return EngineChoice(
            receipt_fields={"engine": name_cpu_engine(runs[0].model, recipe)}, models_per_call=len(runs)
        )
    if capture is None and labels.device.type == "cpu":
        clear_engine_cache()
        return EngineChoice(receipt_fields={"engine": name_cpu_engine(runs[0].model, recipe)}, models_per_call=1)
    # Whether a user's own optimizer can be captured is not known: it may read values on the host, and keep state in
    # other places than its `state`.
    if is_user_function(recipe.optimizer):
        return choose_eager_engine(f"the optimizer {recipe.optimizer} is the user's own")
    # Engines are reused by the architecture's name. Equal layers would not be enough: two networks with the same layers
    # may differ in their forward passes.
    name = runs[0].architecture
    if not name:
        return choose_eager_engine("nobody says what architecture it is")
    if (name, recipe) in _capture_errors:
        return choose_eager_engine(_capture_errors[name, recipe])
    # cached engines hold images and labels, so no other object gets these ids
    tag = (name, recipe, id(images), id(labels), capture)
    if compiled is None:
        compiled = capture is None and name.split(" ")[0] in COMPILED_ARCHITECTURES

    # The cache keeps the engines of one tag, since each holds a network, tables and a graph on the device. The list
    # itself is returned, so that autotune_streams can delete engines from it.
    def get_engines(count: int) -> list[CudaGraphEngine]:
        if tag not in _engine_cache:
            clear_engine_cache()
        cached = _engine_cache.setdefault(tag, [])
        while len(cached) < count:
            is_compiled = compiled and (name, recipe) not in _compile_errors
            try:
                with handle_failed_recording(name, len(cached), labels.device):
                    inputs = (runs[0].model, images, labels, recipe)
                    engine = CudaGraphEngine(*inputs, capture=capture is not False, compiled=is_compiled)
            except GraphCaptureError as error:
                # What the compiler makes of a network may wait for the device where the network itself does not.
                if not is_compiled or cached:
                    raise
                _compile_errors[name, recipe] = str(error)
                continue
            cached.append(engine)
            if engine.compile_error:  # not tried again for the other engines
                _compile_errors[name, recipe] = engine.compile_error
        return cached

    # A job that reuses the counts of an earlier one may still have to make its engines, so they are made here, where a
    # failed capture is caught. A device that is full is no such failure: the error reaches the pool.
    try:
        streams = autotune_streams(name, recipe, len(runs), get_engines)
        get_engines(min(streams, len(runs)))
    except GraphCaptureError as error:
        _capture_errors[name, recipe] = str(error)
        _log.warning("%s is trained without a CUDA graph, which is slower, because %s", name, error)
        return choose_eager_engine(str(error))
    engine = "captured" if capture is not False else "uncaptured"
    if compiled:
        reason = _compile_errors.get((name, recipe))
        engine = f"{engine}, not compiled because {reason}" if reason else f"{engine}, compiled"
    return EngineChoice(
        receipt_fields={"engine": engine, "streams": streams},
        models_per_call=streams,
        engine=lambda part: MultiStreamEngine(get_engines(len(part)), part),
    )


def name_cpu_engine(model: nn.Module, recipe: Recipe) -> str:
    """Name the engine of a CPU, with the kernel of the convolutions where there are two.

    Args:
        model: of the architecture.
        recipe: of the training.

    Returns:
        "stack", with the precision where that is not float32, or "single"; for the small CNNs with what runs their
        convolutions, and if that is torch, why.
    """
    if is_stackable(model, recipe):
        return "stack" if recipe.precision == "float32" else f"stack, {recipe.precision}"
    reason = explain_plain_convolutions(model, recipe.precision)
    if reason is None:
        return "single"
    return f"single, convolutions not compiled because {reason}" if reason else "single, compiled convolutions"


def choose_captured_stack(models: int, name: str, images: DeviceImages, labels: Tensor, recipe: Recipe) -> EngineChoice:
    """Choose a stack whose step is a CUDA graph; where it cannot be captured, a plain one, and the receipt says why."""
    fields: dict[str, object] = {"engine": "stack, captured"}

    def build_stack(runs: Sequence[TrainingRun]) -> StackedMLPEngine:
        inputs = ([run.model for run in runs], images, labels, recipe)
        try:
            with handle_failed_recording(name, 0, labels.device):
                return StackedMLPEngine(*inputs, capture=True)
        except GraphCaptureError as error:
            _log.warning("a stack is trained without a CUDA graph, which is slower, because %s", error)
            fields["engine"] = f"stack, not captured because {error}"
        return StackedMLPEngine(*inputs)

    return EngineChoice(receipt_fields=fields, models_per_call=models, engine=build_stack)


def choose_eager_engine(reason: str) -> EngineChoice:
    """Choose the eager engine and state the reason in the receipts."""
    clear_engine_cache()
    return EngineChoice(receipt_fields={"engine": f"eager, because {reason}", "streams": 1}, models_per_call=1)


def autotune_streams(
    name: str, recipe: Recipe, models: int, get_engines: Callable[[int], list[CudaGraphEngine]]
) -> int:
    """Return which of STREAM_COUNTS takes the least time per model; timed once in a process."""
    # Timed again only for a job with more models than any before, because larger counts were not timed then.
    timed_models, best = _best_stream_counts.get((name, recipe), (0, 1))
    if models <= timed_models:
        return best
    # Networks that draw run one at a time, which the first engine tells before others are made. Upwards, until there is
    # one engine too many.
    draws, seconds = get_engines(1)[0].uses_device_rng, dict[int, float]()
    for count in STREAM_COUNTS:
        if count > models or (count > 1 and (draws or not can_make_engines(count, get_engines))):
            break
        is_only_choice = models == 1 or draws
        seconds[count] = 0.0 if is_only_choice else measure_seconds_per_step(get_engines(count)[:count])
        if count > 1 and seconds[count] * MIN_GAIN > seconds[count // 2]:
            break
    best = min(seconds, key=seconds.__getitem__)
    _best_stream_counts[name, recipe] = models, best
    # Free the engines that the best count does not need. Their last replays may still run.
    synchronize()
    del get_engines(best)[best:]
    torch.cuda.empty_cache()
    return best


def can_make_engines(count: int, get_engines: Callable[[int], list[CudaGraphEngine]]) -> bool:
    """Return whether so many engines fit into the device's memory together, and all of them can be captured."""
    try:
        get_engines(count)
    except GraphCaptureError as error:
        # The first one was captured, so this is no reason to train eagerly.
        _log.warning("fewer than %d models are trained at once, because %s", count, error)
    except Exception as error:
        if not is_memory_shortage(error):
            raise
    else:
        return True
    # Memory is freed only after the block above, whose traceback holds the unfinished engine.
    torch.cuda.empty_cache()
    return False


def measure_seconds_per_step(engines: Sequence[CudaGraphEngine]) -> float:
    """Measure seconds per step and model; the engines must be loaded again afterwards."""
    # A learning rate of 0 leaves the weights as they are; running statistics and momenta do change.
    steps, batch = min(AUTOTUNE_STEPS, engines[0].length), engines[0].recipe.batch
    rows = engines[0].rows[:steps].expand(len(engines), steps, batch).clone()
    seconds = []
    for _ in range(3):  # the first fills the caches
        synchronize()
        started = time.perf_counter()
        run_engines(engines, rows, [0.0] * steps, return_logits=False)
        synchronize()
        seconds.append((time.perf_counter() - started) / (steps * len(engines)))
    return min(seconds[1:])


def synchronize() -> None:
    """Wait for the GPU, if the process uses one."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()


def clear_engine_cache() -> None:
    """Delete all cached engines and free their memory."""
    if _engine_cache:
        synchronize()
        _engine_cache.clear()
        torch.cuda.empty_cache()
