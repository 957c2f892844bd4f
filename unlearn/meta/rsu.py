"""RSU: rank the forget set by risk and unlearn it in rounds of growing size (Chen et al., eq. 3-5 and algorithm 1).

    round t = 1..T:   v_i = 1[l_i < lambda_t],   theta_t = U(theta_{t-1}, R, {i : v_i = 1}),   lambda_1 < ... < lambda_T

l is the loss, which the paper finds to rise with attack success, or any other score. The order is *ascending risk*: the
least exposed examples are forgotten first. (The paper calls low risk "hard", other papers high risk; this code uses
neither word.)

The paper does not specify the following. lambda takes the quantiles t / T of l, so that each round admits equally many;
ties are broken by position. The loss is theta_o's, since algorithms such as gradient ascent inflate it; `again`
recomputes it from theta_{t-1}. R is fixed, the training set without all of F: examples that are not yet admitted are in
neither set. "D_i in D_{i+1}" is read as nested sets; in the other schedule, a partition, each example is forgotten in
one round only. Ranking by class admits whole classes, by their mean risk. One round equals U, bit for bit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from memscore.units import format_count
from unlearn.optimization.loop import require
from unlearn.problem import ExampleSet, iterate_in_order


@dataclass(frozen=True, kw_only=True)
class RsuSchedule:
    """Rounds in which a forget set is unlearned.

    Attributes:
        n: T, number of rounds; the algorithm runs once in each.
        epochs: "split": the algorithm's epochs E are divided among the rounds, ceil(E / T) each, as self-paced learning
            changes lambda with the epochs; "whole": each round has E epochs. Neither costs the same as one run: split
            with E < T has T passes instead of E, and an algorithm that reads only F reads it
            ceil(E / T) (T + 1) / 2 times in nested rounds, ceil(E / T) times in a partition.
        schedule: "nested": a round forgets all admitted examples; "partition": only newly admitted ones.
        order: order of risk: "ascending" as in the paper, "descending" is its Reverse.
        unit: unit of admission: single examples, or whole classes.
        again: recompute the loss from theta_{t-1} before each round, instead of once from theta_o.
        risk: risk of each example to forget, in the order of the set; () means the loss.
    """

    n: int = 5
    epochs: Literal["split", "whole"] = "split"
    schedule: Literal["nested", "partition"] = "nested"
    order: Literal["ascending", "descending"] = "ascending"
    unit: Literal["example", "class"] = "example"
    again: bool = False
    risk: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        rules = (
            ("n", self.n >= 1, "1 or more"),
            ("epochs", self.epochs in {"split", "whole"}, "split or whole"),
            ("schedule", self.schedule in {"nested", "partition"}, "nested or partition"),
            ("order", self.order in {"ascending", "descending"}, "ascending or descending"),
            ("unit", self.unit in {"example", "class"}, "example or class"),
            ("again", not (self.again and self.risk), "false where the risk is given: it is not read again"),
        )
        for name, holds, rule in rules:
            require("RsuSchedule", name, getattr(self, name), rule, holds=holds)


def rsu(
    theta_o: nn.Module,
    retain: ExampleSet,
    forget: ExampleSet,
    unlearn: Callable[[nn.Module, ExampleSet, ExampleSet, int], nn.Module],
    rounds: RsuSchedule,
) -> nn.Module:
    """Unlearn in rounds.

    Args:
        theta_o: the original.
        retain: R, the same in all rounds.
        forget: F.
        unlearn: (theta_{t-1}, R, admitted examples, t - 1) -> theta_t.
        rounds: the schedule.

    Returns:
        theta_T.

    Raises:
        ValueError: more rounds than examples or classes; or a number of risks that is not the number of examples.
    """
    # The algorithm alone, before any loss is read: one round is bit for bit the same, in cost too.
    if rounds.n == 1:
        return unlearn(theta_o, retain, forget, 0)
    if rounds.risk and len(rounds.risk) != len(forget):
        raise ValueError(
            f"{format_count(len(rounds.risk), 'risk')} for {format_count(len(forget), 'example')} to forget; give one "
            "for each"
        )
    labels = forget.labels.cpu().numpy()
    risk = np.array(rounds.risk) if rounds.risk else compute_losses(theta_o, forget).cpu().numpy()
    theta, admitted_before = theta_o, np.zeros(0, dtype=np.int64)
    for round_index in range(rounds.n):
        # In round 0 theta is theta_o, whose losses are known.
        if rounds.again and round_index:
            risk = compute_losses(theta, forget).cpu().numpy()
        admitted = select_admitted(risk, labels, round_index + 1, rounds, admitted_before)
        # Positions in F, rising, whatever the risk. In a partition a round forgets what it newly admits.
        positions = admitted if rounds.schedule == "nested" else np.setdiff1d(admitted, admitted_before)
        admitted_before = admitted
        theta = unlearn(theta, retain, forget.select(torch.from_numpy(positions).to(forget.rows.device)), round_index)
    return theta


def select_admitted(
    risk: np.ndarray, labels: np.ndarray, number: int, rounds: RsuSchedule, admitted_before: np.ndarray | None = None
) -> np.ndarray:
    """Select the examples admitted in a round, v_i = 1[l_i < lambda_t].

    Args:
        risk: float [n].
        labels: int [n].
        number: t, from 1 to T.
        rounds: the schedule.
        admitted_before: positions already admitted; they remain admitted whatever their present risk. If the risk is
            computed once, they have the lowest risks anyway.

    Returns:
        Their positions in F, int64, rising.

    Raises:
        ValueError: more rounds than examples or classes; an undefined risk.
    """
    if np.isnan(risk).any():
        raise ValueError(
            f"the risk of {format_count(int(np.isnan(risk).sum()), 'example')} to forget is undefined; use another "
            "score"
        )
    # What is admitted as one: an example, or all of F's examples of a class. names are the units' numbers, rising.
    units = np.arange(len(risk)) if rounds.unit == "example" else labels
    names = np.unique(units)
    if rounds.n > len(names):
        unit_name = "examples" if rounds.unit == "example" else "classes"
        raise ValueError(
            f"{format_count(rounds.n, 'round')} over {len(names)} {unit_name}: each admits at least one; use fewer "
            "rounds"
        )
    sign = 1 if rounds.order == "ascending" else -1
    mean = np.array([risk[units == name].mean() for name in names]) if rounds.unit == "class" else risk
    # With `again` the risk of an admitted unit may have risen: it must not be replaced by another, as sets are nested.
    already_admitted = (
        np.isin(names, units[admitted_before])
        if admitted_before is not None and len(admitted_before)
        else np.zeros(len(names), bool)
    )
    # lexsort's last key counts most: admitted units first (False before True), then risk, then the number for ties.
    units_in_order = names[np.lexsort((names, sign * mean, ~already_admitted))]
    # floor(t n / T) units, the t / T quantile: differences are equal up to one, and all are admitted at t = T.
    count = number * len(names) // rounds.n
    return np.flatnonzero(np.isin(units, units_in_order[:count]))


@torch.no_grad()
def compute_losses(theta: nn.Module, examples: ExampleSet, batch: int = 512) -> Tensor:
    """Compute the loss of each example, float32 [n], in evaluation mode; examples are counted as read."""
    was_training = theta.training
    batch_losses = [
        cross_entropy(theta.eval()(images), labels, reduction="none")
        for images, labels in iterate_in_order(examples, batch)
    ]
    theta.train(was_training)
    return torch.cat(batch_losses)
