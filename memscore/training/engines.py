"""How the models of a job are trained: stacked, one after the other, or several at once on a GPU's streams.

On a GPU each model has storage, a graph and a stream of its own (cuda_graphs.py), and replays take turns, step by
step. Whether 1, 2 or 4 at once is fastest depends on network and GPU, so the first job of a process tries, and the
process keeps to it. What cannot be captured is trained eagerly, by the same recipe, and the receipt says why.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from memscore.training.cuda_graphs import CudaGraphEngine, GraphCaptureError
from memscore.training.device_data import DeviceImages
from memscore.training.loop import Engine, TrainingRun, is_stackable
from memscore.training.recipes import Recipe

STREAM_COUNTS = (1, 2, 4)
AUTOTUNE_STEPS = 16  # steps of each trial

_log = logging.getLogger(__name__)
_engine_cache: dict[tuple[object, ...], list[CudaGraphEngine]] = {}  # engines of one architecture, recipe and data set
_capture_errors: dict[tuple[str, Recipe], str] = {}  # why they cannot be captured
_best_stream_counts: dict[
    tuple[str, Recipe], tuple[int, int]
] = {}  # how many models were there to try, and the best number


@dataclass(frozen=True, kw_only=True, eq=False)
class EngineChoice:
    """How the models of a job are trained.

    Attributes:
        receipt_fields: for the receipt.
        models_per_call: how many models a call of `train`.
        engine: makes the engine of so many models; None where train's own is taken.
    """

    receipt_fields: dict[str, object]
    models_per_call: int
    engine: Callable[[Sequence[TrainingRun]], Engine | None] = lambda assignments: None


class MultiStreamEngine:
    """Several captured networks, each on its stream.

    Args:
        engines: at least as many as assignments, of these models' architecture.
        assignments: what each is to train; loaded here.
    """

    def __init__(self, engines: Sequence[CudaGraphEngine], assignments: Sequence[TrainingRun]):
        self.engines = engines[: len(assignments)]
        for engine, assignment in zip(self.engines, assignments, strict=True):
            engine.load(assignment)

    def run(self, rows: Tensor, rates: Sequence[float], *, keep: bool) -> Tensor | None:
        """Take one step for each rate; returns float32 logits [S, steps, B, K] before each step if they are wanted."""
        return run_engines(self.engines, rows, rates, keep=keep)

    def write_back(self) -> None:
        """Copy the weights into the models they belong to."""
        for engine in self.engines:
            engine.write_back()


def run_engines(
    engines: Sequence[CudaGraphEngine], rows: Tensor, rates: Sequence[float], *, keep: bool
) -> Tensor | None:
    """Steps of several engines in turn; the host waits for none of them.

    Args:
        engines: S of one architecture.
        rows: int64 [S, steps, B].
        rates: learning rate of each step.
        keep: whether logits are wanted.

    Returns:
        float32 [S, steps, B, K], or None.
    """
    shape = (len(engines), len(rates), *engines[0].said.shape[1:])
    said = torch.empty(shape, device=rows.device) if keep else None
    for engine in engines:
        engine.fork()
    for start in range(0, len(rates), engines[0].length):
        part = slice(start, min(start + engines[0].length, len(rates)))
        for engine, own in zip(engines, rows, strict=True):
            with engine.on_stream():
                engine.begin(own[part], rates[part])
        for _ in rates[part]:
            for engine in engines:
                with engine.on_stream():
                    engine.replay()
        if said is not None:
            for own, engine in zip(said, engines, strict=True):
                with engine.on_stream():
                    own[part].copy_(engine.said[: part.stop - part.start])
    for engine in engines:
        engine.join()
    return said


def select_engine(
    assignments: Sequence[TrainingRun],
    images: DeviceImages,
    labels: Tensor,
    recipe: Recipe,
    *,
    capture: bool | None = None,
) -> EngineChoice:
    """Choose by architecture, recipe and device; on a GPU also by a short trial.

    Args:
        assignments: the models of the job.
        images: resident.
        labels: int64 [N], same device.
        recipe: how they are trained.
        capture: None captures on a GPU. False takes the captured engine's steps without a graph, on any device.

    Returns:
        The way.

    Raises:
        torch.OutOfMemoryError: not even one network fits on the device.
    """
    if is_stackable(assignments[0].model, recipe):
        return EngineChoice(receipt_fields={"engine": "stack"}, models_per_call=len(assignments))
    if capture is None and labels.device.type == "cpu":
        return EngineChoice(receipt_fields={"engine": "single"}, models_per_call=1)
    name = assignments[0].architecture
    if not name:
        return choose_eager_engine("nobody says what architecture it is")
    if (name, recipe) in _capture_errors:
        return choose_eager_engine(_capture_errors[name, recipe])
    tag = (name, recipe, id(images), id(labels), capture)  # engines hold images and labels, so these ids stay theirs

    def engines(count: int) -> list[CudaGraphEngine]:
        if tag not in _engine_cache:
            clear_engine_cache()
        kept = _engine_cache.setdefault(tag, [])
        while len(kept) < count:
            kept.append(CudaGraphEngine(assignments[0].model, images, labels, recipe, capture=capture is not False))
        return kept

    try:
        streams = autotune_streams(name, recipe, len(assignments), engines)
        engines(min(streams, len(assignments)))
    except GraphCaptureError as refusal:
        _capture_errors[name, recipe] = str(refusal)
        _log.warning("%s is trained without a CUDA graph, which is slower, because %s", name, refusal)
        return choose_eager_engine(str(refusal))
    return EngineChoice(
        receipt_fields={"engine": "captured" if capture is not False else "uncaptured", "streams": streams},
        models_per_call=streams,
        engine=lambda part: MultiStreamEngine(engines(len(part)), part),
    )


def choose_eager_engine(why: str) -> EngineChoice:
    """The way of a network that cannot be captured."""
    return EngineChoice(receipt_fields={"engine": f"eager, because {why}", "streams": 1}, models_per_call=1)


def autotune_streams(name: str, recipe: Recipe, models: int, engines: Callable[[int], list[CudaGraphEngine]]) -> int:
    """How many models at once take the least time each; tried once in a process.

    Args:
        name: of the architecture.
        recipe: how they are trained.
        models: in this job; no more are tried.
        engines: makes at least so many engines, and keeps them.

    Returns:
        One of STREAMS; 1 for one model and for networks with dropout. A number for which memory does not suffice is
        not taken.

    Raises:
        torch.OutOfMemoryError: not even one fits.
    """
    tried, best = _best_stream_counts.get((name, recipe), (0, 1))
    if models <= tried:
        return best
    seconds: dict[int, float] = {}
    for count in STREAM_COUNTS:
        if count <= models and fits_in_memory(count, engines) and (count == 1 or not engines(1)[0].draws):
            seconds[count] = 0.0 if models == 1 else measure_seconds_per_step(engines(count)[:count])
    best = min(seconds, key=seconds.__getitem__)
    _best_stream_counts[name, recipe] = models, best
    synchronize()
    del engines(best)[best:]
    return best


def fits_in_memory(count: int, engines: Callable[[int], list[CudaGraphEngine]]) -> bool:
    """Whether so many engines fit on the device together."""
    try:
        engines(count)
    except torch.OutOfMemoryError:
        if count == 1:
            raise
        full = True  # freed only after this block, which holds what was half made
    else:
        full = False
    if full:
        torch.cuda.empty_cache()
    return not full


def measure_seconds_per_step(engines: Sequence[CudaGraphEngine]) -> float:
    """Seconds of one step of one model when so many run at once; they must be loaded afterwards."""
    steps, batch = min(AUTOTUNE_STEPS, engines[0].length), engines[0].recipe.batch
    rows = engines[0].rows[:steps].expand(len(engines), steps, batch).clone()
    took = []
    for _ in range(3):  # the first is for the caches
        synchronize()
        started = time.perf_counter()
        run_engines(engines, rows, [0.0] * steps, keep=False)
        synchronize()
        took.append((time.perf_counter() - started) / (steps * len(engines)))
    return min(took[1:])


def synchronize() -> None:
    """Wait for the GPU, if there is one at work."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()


def clear_engine_cache() -> None:
    """Give up all kept engines and their memory."""
    if _engine_cache:
        synchronize()
        _engine_cache.clear()
        torch.cuda.empty_cache()
