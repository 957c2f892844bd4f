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
from memscore.models.architectures import build_network
from memscore.training.device_data import DeviceImages, to_device
from memscore.training.learning_events import LearningEvents
from memscore.training.loop import TrainingRun, is_stackable, train
from memscore.training.numerics import float32_matmul, single_threaded
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
    flat = is_stackable(build_network(arch, SHAPE, CLASSES, 0), recipe)
    images = to_device(raw, (0.5,), (0.25,), cpu, flat=flat)
    labels = torch.from_numpy(rng.integers(0, CLASSES, EXAMPLES))
    measured: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    with single_threaded(), float32_matmul(cpu):
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
    images: DeviceImages, labels: torch.Tensor, recipe: Recipe, steps: int, arch: str, models: int, *, counting: bool
) -> tuple[float, float]:
    """One training; its wall and processor seconds, setting up left out."""
    chosen = [
        TrainingRun(
            model=build_network(arch, SHAPE, CLASSES, index),
            rows=np.arange(EXAMPLES),
            order_rng=np.random.default_rng(index),
            augmentation_rng=np.random.default_rng(index),
        )
        for index in range(models)
    ]
    events = LearningEvents.zeros(models, EXAMPLES, labels.device) if counting else None
    wall, processor = time.perf_counter(), time.process_time()
    train(chosen, images, labels, recipe, steps, events=events)
    return time.perf_counter() - wall, time.process_time() - processor


if __name__ == "__main__":
    tyro.cli(main)
