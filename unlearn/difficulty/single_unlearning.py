"""Unlearn one example until the decision on it flips, at most 20 steps (INST section 3).

A step is one step on the forgotten example and one on a batch of the retain set, drawn anew for each step, of
algorithms that read it. The algorithms are those of unlearn/algorithms, unchanged: their retain set is one batch, and
the step callback draws the next one and ends the run. Batch-norm statistics are frozen: one example has none.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import nn

from memscore.models.random_state import seed_generators
from memscore.seeds import generator, torch_seed
from unlearn.algorithms import ALGORITHMS
from unlearn.optimization.loop import TrainingDiverged, UnlearningLoopConfig
from unlearn.problem import ExampleSet

MAX_STEPS = 20
"""INST appendix B."""


@dataclass(frozen=True, kw_only=True)
class SingleMethod:
    """How an algorithm unlearns one example.

    Attributes:
        paper_lr: learning rate of INST's appendix B.
        loop_steps: optimizer steps of one step.
        params: of its config, besides epochs, batch and learning rate.
    """

    paper_lr: float
    loop_steps: int = 1
    params: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


METHODS: Mapping[str, SingleMethod] = {
    "gradient-ascent": SingleMethod(paper_lr=1e-4),
    # One optimizer step reads the example and the batch together.
    "neggrad-plus": SingleMethod(paper_lr=1e-4),
    # A climb on the example, then a descent on the batch: every epoch climbs, and the last one, which may not, is not
    # reached.
    "scrub": SingleMethod(
        paper_lr=1e-3,
        loop_steps=2,
        params=MappingProxyType({"forget_batch": 1, "msteps": MAX_STEPS, "decay_after": ()}),
    ),
    "salun": SingleMethod(paper_lr=0.01, loop_steps=2, params=MappingProxyType({"order": "sequential"})),
    "finetune": SingleMethod(paper_lr=1e-4),
}
"""INST's algorithms; NegGrad is NegGrad+ there. Influence is left out, as in the paper: two Hessian products each."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SingleRun:
    """The end of unlearning one example.

    Attributes:
        theta_u: the network; None where the run diverged.
        steps: steps taken.
        flipped: whether the decision on the example changed.
        seconds: of the steps, without looking at the decision.
    """

    theta_u: nn.Module | None
    steps: int
    flipped: bool
    seconds: float


def make_config(algorithm: str, lr: float, batch: int) -> UnlearningLoopConfig:
    """Make the config of an algorithm for one example."""
    # One epoch more than steps: SCRUB's last epoch may not climb, and is never reached.
    numbers = {"epochs": MAX_STEPS + 1, "batch": batch, "lr": lr, "batch_norm": "frozen"}
    config: UnlearningLoopConfig = ALGORITHMS[algorithm].config(**numbers, **METHODS[algorithm].params)
    return config


def draw_batch(retain: ExampleSet, batch: ExampleSet, rng: np.random.Generator) -> None:
    """Write another random batch of the retain set into one that was selected from it."""
    # In place: the algorithms hold this set, and read its rows and labels anew in every pass.
    positions = torch.from_numpy(rng.choice(len(retain), len(batch), replace=False)).to(retain.rows.device)
    batch.rows.copy_(retain.rows[positions])
    batch.labels.copy_(retain.labels[positions])


def decide(theta: nn.Module, instance: ExampleSet) -> int:
    """Return the class that a network answers for one example, in evaluation mode; -1 if its logits are not finite."""
    training = theta.training
    with torch.no_grad():
        image = instance.take(torch.zeros(1, dtype=torch.int64, device=instance.rows.device))
        logits = theta.eval()(image)
    theta.train(training)
    # Finite weights may give infinite logits, of which the largest means nothing.
    return int(logits.argmax()) if bool(logits.isfinite().all()) else -1


def unlearn_single(
    theta_o: nn.Module,
    retain: ExampleSet,
    instance: ExampleSet,
    algorithm: str,
    lr: float,
    seed: int,
    name: str,
    row: int,
) -> SingleRun:
    """Unlearn one example until the decision on it flips.

    Args:
        theta_o: in evaluation mode; not changed.
        retain: the training set without the example.
        instance: a set of one example.
        algorithm: a key of METHODS.
        lr: learning rate.
        seed: of the bank.
        name: names the random stream with the row: of batches, labels and what the network draws.
        row: of the example.

    Returns:
        The network at the flip or after MAX_STEPS, and how it came there.
    """
    size = min(retain.recipe.batch, len(retain))
    config, loop_steps = make_config(algorithm, lr, size), METHODS[algorithm].loop_steps
    rng, batch_rng = generator(seed, "single-unlearning", name, row).spawn(2)
    batch = retain.select(torch.arange(size, device=retain.rows.device))
    draw_batch(retain, batch, batch_rng)
    answer, steps, looking = decide(theta_o, instance), 0, 0.0
    flipped = diverged = False

    def look(loop_step: int, theta: nn.Module) -> bool:
        nonlocal steps, flipped, diverged, looking
        if loop_step % loop_steps:
            return False
        started = time.perf_counter()
        steps += 1
        now = decide(theta, instance)
        diverged, flipped = now < 0, now not in {answer, -1}
        draw_batch(retain, batch, batch_rng)
        looking += time.perf_counter() - started
        return diverged or flipped or steps == MAX_STEPS

    started = time.perf_counter()
    theta_u: nn.Module | None
    try:
        with seed_generators(torch_seed(seed, "single-unlearning", name, row), instance.rows.device):
            theta_u = ALGORITHMS[algorithm].fn(theta_o, batch, instance, config, rng, step_callback=look)
    except TrainingDiverged:
        diverged = True
    if diverged:
        # a network that is not finite decides nothing: the example is not unlearned
        theta_u, flipped = None, False
    return SingleRun(
        theta_u=theta_u,
        steps=steps,
        flipped=flipped,
        seconds=max(0.0, time.perf_counter() - started - looking) if theta_u is not None else math.nan,
    )
