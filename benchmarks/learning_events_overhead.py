"""Claim: inline learning events cost under 2 % of a small CNN's training.

    python -m benchmarks.learning_events_overhead [--pairs 7] [--steps 200] [--arch cnn]

The same training with and without Events, one after the other in pairs of changing order; a ratio a pair, by wall clock
and by the processor time of this process, which other work on the machine disturbs less. Random images of
Fashion-MNIST's size; one torch thread, as for every worker.
"""

import time

import numpy as np
import torch
import tyro

from benchmarks.results_file import save, spread
from memscore.images import Images, resident
from memscore.models import build
from memscore.proxies.learning_events import Events
from memscore.recipes import Recipe
from memscore.training import Assignment, exact_products, one_thread, stacks, train

EXAMPLES, SHAPE, CLASSES, BATCH = 5_000, (1, 28, 28), 10, 64


def main(pairs: int = 7, steps: int = 200, arch: str = "cnn", models: int = 1) -> None:
    """Measure.

    Args:
        pairs: of trainings, after one that is not counted.
        steps: of each training.
        arch: of the network.
        models: side by side, for architectures that stack.
    """
    cpu, rng = torch.device("cpu"), np.random.default_rng(0)
    recipe = Recipe(epochs=max(1, round(steps * BATCH / EXAMPLES)), batch=BATCH, lr=0.01)
    raw = rng.integers(0, 256, (EXAMPLES, *SHAPE), dtype=np.uint8)
    flat = stacks(build(arch, SHAPE, CLASSES, 0), recipe)
    images = resident(raw, (0.5,), (0.25,), cpu, flat=flat)
    labels = torch.from_numpy(rng.integers(0, CLASSES, EXAMPLES))
    measured: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    with one_thread(), exact_products(cpu):
        once(images, labels, recipe, steps, arch, models, counting=True)
        for pair in range(pairs):
            for counting in (pair % 2 == 0, pair % 2 == 1):
                measured[counting].append(once(images, labels, recipe, steps, arch, models, counting=counting))
    wall, processor = np.array(measured[True]).T / np.array(measured[False]).T
    save(
        f"learning_events_overhead_{arch}" + (f"_stack{models}" if models > 1 else ""),
        {
            "what": f"{arch}, {models} model(s), {steps} steps of {BATCH}, with learning events / without",
            "processor_ratio": spread(processor.tolist()),
            "wall_ratio": spread(wall.tolist()),
            "without_processor_s": spread([seconds for _, seconds in measured[False]]),
        },
    )


def once(
    images: Images, labels: torch.Tensor, recipe: Recipe, steps: int, arch: str, models: int, *, counting: bool
) -> tuple[float, float]:
    """One training; its wall and processor seconds, setting up left out."""
    chosen = [
        Assignment(
            model=build(arch, SHAPE, CLASSES, index),
            rows=np.arange(EXAMPLES),
            order=np.random.default_rng(index),
            chance=np.random.default_rng(index),
        )
        for index in range(models)
    ]
    events = Events.none_yet(models, EXAMPLES, labels.device) if counting else None
    wall, processor = time.perf_counter(), time.process_time()
    train(chosen, images, labels, recipe, steps, events=events)
    return time.perf_counter() - wall, time.process_time() - processor


if __name__ == "__main__":
    tyro.cli(main)
