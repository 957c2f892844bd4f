"""How soon the forget set is known again when it is trained on: what is soon relearned was never gone.

    steps of SGD on batches of F alone, until CE_F <= max(1.1 CE_F(theta_o), .1)

Golatkar et al. 2020 and SURE's predecessors count epochs, each by rules of its own (Kurmanji's code: 500 draws from all
training data an epoch, until a loss of .1; ERASURE: until theta_o's accuracy). Here it is steps on F only, at a fixed
rate, one stream of batches for every model. The floor of .1, Kurmanji's, is for an F that theta_o knows by heart: a
tenth more than nothing is nothing. Batch norms keep their statistics, which batches of F alone would lead astray. The
ideal is theta_r's number: fewer steps say that something was left, more that F is fenced off. A run that has not got
there after 500 steps, or diverges, is censored at 500.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from unlearn.measures.inputs import Column, ModelInputs
from unlearn.optimization.loop import TrainingDiverged, UnlearningLoop, UnlearningLoopConfig, copy_frozen, copy_model
from unlearn.problem import BatchSampler, ExampleSet, ReadCounter, iterate_in_order

MOST, ABOVE, FLOOR = 500, 1.1, 0.1
LOOKS = 8
"""The loss of all of F is taken after each step, but no more than 8 times a pass: it costs a third of a pass."""
LOOP_CONFIG = UnlearningLoopConfig(lr=0.01, batch=64, momentum=0.9, weight_decay=0.0, batch_norm="frozen")

COLUMNS = {
    "relearn_steps": Column(
        best="oracle", unit="steps", ideal="theta_r's", description="of SGD until F is known again"
    ),
    "relearn_ratio": Column(
        best="oracle", unit="ratio", ideal="1", description="relearn steps over theta_r's; NaN if that is 0 or censored"
    ),
    "relearn_censored": Column(
        best="none", unit="0 or 1", ideal="0", description="F was not known again in the steps allowed"
    ),
}


def relearn(case: ModelInputs, descent: UnlearningLoopConfig = LOOP_CONFIG, most: int = MOST) -> dict[str, float]:
    """Steps to relearn, beside the oracle's.

    Args:
        case: the networks; none is changed, and what is read here is not counted as an algorithm's.
        descent: rate, momentum and batch of the relearning.
        most: steps after which it is given up.

    Returns:
        A value for each column.
    """
    forget = replace(case.problem.forget, read_counter=ReadCounter())
    target = max(ABOVE * mean_loss(copy_frozen(case.problem.theta_o), forget), FLOOR)

    def taken(theta: nn.Module) -> int | None:
        return count_steps_until(target, theta, forget, descent, case.rng("relearn"), most)

    ours = taken(case.judged)
    theirs = ours if case.judged is case.theta_r else taken(case.theta_r)
    steps = most if ours is None else ours
    return {
        "relearn_steps": float(steps),
        "relearn_ratio": steps / theirs if theirs else float("nan"),
        "relearn_censored": float(ours is None),
    }


def count_steps_until(
    target: float,
    theta: nn.Module,
    forget: ExampleSet,
    descent: UnlearningLoopConfig,
    rng: np.random.Generator,
    most: int,
) -> int | None:
    """Steps on batches of the forget set until its loss is at most the target; None if it never is."""
    theta = copy_model(theta).eval()
    if mean_loss(theta, forget) <= target:
        return 0
    batches = BatchSampler(forget, descent.batch, rng)
    every = max(1, len(batches) // LOOKS)
    reached: list[int] = []

    def watch(step: int, network: nn.Module) -> bool:
        if step % every == 0 or step == most:
            if mean_loss(network.eval(), forget) <= target:
                reached.append(step)
            network.train()
        return bool(reached)

    def losses() -> Iterator[Tensor]:
        for images, labels in islice(batches.cycle(), most):
            yield cross_entropy(theta(images), labels)

    try:
        UnlearningLoop(theta, descent, watch=watch).run(losses())
    except TrainingDiverged:
        return None
    return reached[0] if reached else None


@torch.no_grad()
def mean_loss(theta: nn.Module, examples: ExampleSet) -> float:
    """Mean cross-entropy of a network in evaluation mode on a set as it is, nothing augmented."""
    summed = sum(
        float(cross_entropy(theta(images), labels, reduction="sum"))
        for images, labels in iterate_in_order(examples, 1024)
    )
    return summed / len(examples)
