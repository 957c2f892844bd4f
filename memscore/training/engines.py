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

from memscore.training.cuda_graphs import CannotCapture, Captured
from memscore.training.device_data import Images
from memscore.training.loop import Assignment, Engine, stacks
from memscore.training.recipes import Recipe

STREAMS = (1, 2, 4)
TRIED = 16  # steps of each trial

_log = logging.getLogger(__name__)
_kept: dict[tuple[object, ...], list[Captured]] = {}  # engines of one architecture, recipe and data set
_refused: dict[tuple[str, Recipe], str] = {}  # why they cannot be captured
_fastest: dict[tuple[str, Recipe], tuple[int, int]] = {}  # how many models were there to try, and the best number


@dataclass(frozen=True, kw_only=True, eq=False)
class Way:
    """How the models of a job are trained.

    Attributes:
        facts: for the receipt.
        together: how many models a call of `train`.
        engine: makes the engine of so many models; None where train's own is taken.
    """

    facts: dict[str, object]
    together: int
    engine: Callable[[Sequence[Assignment]], Engine | None] = lambda assignments: None


class Abreast:
    """Several captured networks, each on its stream.

    Args:
        engines: at least as many as assignments, of these models' architecture.
        assignments: what each is to train; loaded here.
    """

    def __init__(self, engines: Sequence[Captured], assignments: Sequence[Assignment]):
        self.engines = engines[: len(assignments)]
        for engine, assignment in zip(self.engines, assignments, strict=True):
            engine.load(assignment)

    def run(self, rows: Tensor, rates: Sequence[float], *, keep: bool) -> Tensor | None:
        """Take one step for each rate; returns float32 logits [S, steps, B, K] before each step if they are wanted."""
        return run(self.engines, rows, rates, keep=keep)

    def write_back(self) -> None:
        """Copy the weights into the models they belong to."""
        for engine in self.engines:
            engine.write_back()


def run(engines: Sequence[Captured], rows: Tensor, rates: Sequence[float], *, keep: bool) -> Tensor | None:
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


def way_to_train(
    assignments: Sequence[Assignment], images: Images, labels: Tensor, recipe: Recipe, *, capture: bool | None = None
) -> Way:
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
    if stacks(assignments[0].model, recipe):
        return Way(facts={"engine": "stack"}, together=len(assignments))
    if capture is None and labels.device.type == "cpu":
        return Way(facts={"engine": "single"}, together=1)
    name = assignments[0].architecture
    if not name:
        return eager("nobody says what architecture it is")
    if (name, recipe) in _refused:
        return eager(_refused[name, recipe])
    tag = (name, recipe, id(images), id(labels), capture)  # engines hold images and labels, so these ids stay theirs

    def engines(count: int) -> list[Captured]:
        if tag not in _kept:
            forget()
        kept = _kept.setdefault(tag, [])
        while len(kept) < count:
            kept.append(Captured(assignments[0].model, images, labels, recipe, capture=capture is not False))
        return kept

    try:
        streams = streams_for(name, recipe, len(assignments), engines)
        engines(min(streams, len(assignments)))
    except CannotCapture as refusal:
        _refused[name, recipe] = str(refusal)
        _log.warning("%s is trained without a CUDA graph, which is slower, because %s", name, refusal)
        return eager(str(refusal))
    return Way(
        facts={"engine": "captured" if capture is not False else "uncaptured", "streams": streams},
        together=streams,
        engine=lambda part: Abreast(engines(len(part)), part),
    )


def eager(why: str) -> Way:
    """The way of a network that cannot be captured."""
    return Way(facts={"engine": f"eager, because {why}", "streams": 1}, together=1)


def streams_for(name: str, recipe: Recipe, models: int, engines: Callable[[int], list[Captured]]) -> int:
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
    tried, best = _fastest.get((name, recipe), (0, 1))
    if models <= tried:
        return best
    seconds: dict[int, float] = {}
    for count in STREAMS:
        if count <= models and fits(count, engines) and (count == 1 or not engines(1)[0].draws):
            seconds[count] = 0.0 if models == 1 else seconds_a_step(engines(count)[:count])
    best = min(seconds, key=seconds.__getitem__)
    _fastest[name, recipe] = models, best
    settle()
    del engines(best)[best:]
    return best


def fits(count: int, engines: Callable[[int], list[Captured]]) -> bool:
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


def seconds_a_step(engines: Sequence[Captured]) -> float:
    """Seconds of one step of one model when so many run at once; they must be loaded afterwards."""
    steps, batch = min(TRIED, engines[0].length), engines[0].recipe.batch
    rows = engines[0].rows[:steps].expand(len(engines), steps, batch).clone()
    took = []
    for _ in range(3):  # the first is for the caches
        settle()
        started = time.perf_counter()
        run(engines, rows, [0.0] * steps, keep=False)
        settle()
        took.append((time.perf_counter() - started) / (steps * len(engines)))
    return min(took[1:])


def settle() -> None:
    """Wait for the GPU, if there is one at work."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()


def forget() -> None:
    """Give up all kept engines and their memory."""
    if _kept:
        settle()
        _kept.clear()
        torch.cuda.empty_cache()
