"""Claim: what inline learning events add to training; the paper reports 17 %.

    python -m benchmarks.learning_events_overhead [--pairs 15] [--steps 200]

The same training with and without Events, one after the other in pairs of changing order; a ratio a pair, by wall clock
and by the processor time of this process, which other work on the machine disturbs less. A small CNN, an MLP, and eight
of them side by side; random images of Fashion-MNIST's size; one torch thread, as for every worker.
"""

import time

import numpy as np
import torch
import tyro

from benchmarks.results_file import save, spread
from memscore.models.architectures import build
from memscore.training.device_data import Images, resident
from memscore.training.learning_events import Events
from memscore.training.loop import Assignment, stacks, train
from memscore.training.numerics import exact_products, one_thread
from memscore.training.recipes import Recipe

EXAMPLES, SHAPE, CLASSES, BATCH = 5_000, (1, 28, 28), 10, 64


CASES = {"cnn": ("cnn", 1), "mlp-128": ("mlp-128", 1), "8 x mlp-128": ("mlp-128", 8)}


def main(pairs: int = 15, steps: int = 200) -> None:
    """Measure.

    Args:
        pairs: of trainings, after one that is not counted.
        steps: of each training.
    """
    found = {name: overhead(arch, models, pairs, steps) for name, (arch, models) in CASES.items()}
    save(
        "learning_events_overhead",
        {"what": f"{steps} steps of {BATCH}, with learning events / without", "cases": found},
    )


def overhead(arch: str, models: int, pairs: int, steps: int) -> dict[str, dict[str, float]]:
    """Ratios of one network."""
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
    return {
        "processor_ratio": spread(processor.tolist()),
        "wall_ratio": spread(wall.tolist()),
        "without_processor_s": spread([seconds for _, seconds in measured[False]]),
    }


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
