"""Relearning time: steps of training on the forget set until its loss is low again; quick relearning shows a trace.

    steps of SGD on batches of F alone, until CE_F <= max(1.1 CE_F(theta_o), .1)

Golatkar et al. 2020 and SURE's predecessors count epochs by different rules (Kurmanji's code: 500 draws from all
training data per epoch, until a loss of .1; ERASURE: until theta_o's accuracy). Here it is steps on F only, at a fixed
learning rate, with the same batches for every model. The floor of .1, Kurmanji's, is for an F that theta_o has
memorized: a tenth more than a loss near 0 is still near 0. Batch norms keep their statistics, which batches of F alone
would distort. The ideal is theta_r's number: fewer steps mean that knowledge of F is left, more that relearning F is
blocked. A run that does not reach the loss within 500 steps, or diverges, is censored at 500.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from memscore.training.evaluation import choose_evaluation_batch
from unlearn.measures.inputs import Column, Measure, ModelInputs
from unlearn.optimization.loop import TrainingDiverged, UnlearningLoop, UnlearningLoopConfig, copy_frozen, copy_model
from unlearn.problem import BatchSampler, ExampleSet, ReadCounter, iterate_in_order

MAX_STEPS, LOSS_FACTOR, LOSS_FLOOR = 500, 1.1, 0.1
CHECKS_PER_PASS = 8
"""The loss of F is computed after each step, but at most 8 times per pass: it costs a third of a pass."""
LOOP_CONFIG = UnlearningLoopConfig(lr=0.01, batch=64, momentum=0.9, weight_decay=0.0, batch_norm="frozen")

COLUMNS = {
    "relearn_steps": Column(best="oracle", unit="steps", ideal="theta_r's", description="of SGD until F is relearned"),
    "relearn_ratio": Column(
        best="oracle", unit="ratio", ideal="1", description="relearn steps over theta_r's; NaN if that is 0 or censored"
    ),
    "relearn_censored": Column(
        best="none", unit="0 or 1", ideal="0", description="F was not relearned within the maximum number of steps"
    ),
}


def relearn(
    inputs: ModelInputs, config: UnlearningLoopConfig = LOOP_CONFIG, max_steps: int = MAX_STEPS
) -> dict[str, float]:
    """Count the steps to relearn the forget set, and compare with the oracle's; no network changes."""
    # A counter of its own: examples that are read here are no cost of the algorithm.
    forget = replace(inputs.problem.forget, read_counter=ReadCounter())
    target = max(LOSS_FACTOR * mean_loss(copy_frozen(inputs.problem.theta_o), forget), LOSS_FLOOR)

    # A new generator of the same seed for each model: all get the same batches in the same order.
    def count_steps(theta: nn.Module) -> int | None:
        return count_steps_until(target, theta, forget, config, inputs.rng("relearn"), max_steps)

    judged_steps = count_steps(inputs.judged)
    oracle_steps = judged_steps if inputs.judged is inputs.theta_r else count_steps(inputs.theta_r)
    # Censored at the maximum. The ratio has no value where the oracle is censored, or has the loss at once.
    steps = max_steps if judged_steps is None else judged_steps
    return {
        "relearn_steps": float(steps),
        "relearn_ratio": steps / oracle_steps if oracle_steps else float("nan"),
        "relearn_censored": float(judged_steps is None),
    }


MEASURE = Measure(
    fn=relearn,
    columns=COLUMNS,
    needs="weights",
    summary="steps until the forget set is learned again, divided by the oracle's",
    paper="Kurmanji et al. 2023, RSU",
)


def count_steps_until(
    target: float,
    theta: nn.Module,
    forget: ExampleSet,
    config: UnlearningLoopConfig,
    rng: np.random.Generator,
    max_steps: int,
) -> int | None:
    """Count steps on batches of the forget set until its loss is at most the target; None if it never is."""
    # A copy is trained; the models that are compared stay.
    theta = copy_model(theta).eval()
    if mean_loss(theta, forget) <= target:
        return 0
    batches = BatchSampler(forget, config.batch, rng)
    interval = max(1, len(batches) // CHECKS_PER_PASS)
    reached: list[int] = []

    def check_loss(step: int, network: nn.Module) -> bool:
        # Also at the last step, which need not be a multiple. The loss is that of the whole set, in evaluation mode.
        if step % interval == 0 or step == max_steps:
            if mean_loss(network.eval(), forget) <= target:
                reached.append(step)
            network.train()
        return bool(reached)

    def losses() -> Iterator[Tensor]:
        for images, labels in islice(batches.cycle(), max_steps):
            yield cross_entropy(theta(images), labels)

    try:
        UnlearningLoop(theta, config, step_callback=check_loss).run(losses())
    except TrainingDiverged:
        return None
    return reached[0] if reached else None


@torch.no_grad()
def mean_loss(theta: nn.Module, examples: ExampleSet) -> float:
    """Compute the mean cross-entropy of a network in evaluation mode on a set without augmentation."""
    batch = choose_evaluation_batch(theta, examples.rows.device)
    total = sum(
        float(cross_entropy(theta(images), labels, reduction="sum"))
        for images, labels in iterate_in_order(examples, batch)
    )
    return total / len(examples)
