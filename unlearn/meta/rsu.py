"""RSU: rank the forget set by risk, and unlearn it at a growing pace (Chen et al., eq. 3-5 and algorithm 1).

    round t = 1..T:   v_i = 1[l_i < lambda_t],   theta_t = U(theta_{t-1}, R, {i : v_i = 1}),   lambda_1 < ... < lambda_T

l is the loss, which the paper finds to rise with attack success, or any other score. The order is *ascending risk*:
what is least exposed goes first. (The paper calls low risk "hard", other papers high risk; neither word is used here.)

Where the paper is silent: lambda runs over the quantiles t / T of l, so that each round admits as many; of equal risks
the first come first. The loss is theta_o's, since algorithms such as gradient ascent inflate it as they run; `again`
reads it anew from theta_{t-1}. R is fixed, the training set without all of F: what is not yet admitted is in neither.
"D_i in D_{i+1}" is read as nested sets; a partition, where each example is forgotten in one round only, is the other
schedule. Ranking by class admits classes whole, by their mean risk. One round is U itself, bit for bit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from unlearn.optimization.loop import require
from unlearn.problem import ExampleSet, iterate_in_order


@dataclass(frozen=True, kw_only=True)
class RsuSchedule:
    """How a forget set is worked through; checks itself.

    Attributes:
        n: T, rounds; the algorithm runs once in each.
        epochs: "split": the algorithm's epochs E are divided among the rounds, ceil(E / T) each, as self-paced learning
            moves lambda with the epochs; "whole": each round has them all. Neither costs what one run does: split with
            E < T is T passes in place of E, and an algorithm that reads F alone reads it ceil(E / T) (T + 1) / 2 times
            in nested rounds, ceil(E / T) times in a partition.
        schedule: "nested": a round forgets all that is admitted so far; "partition": what is new alone.
        order: "ascending" risk is the paper's, "descending" its Reverse.
        unit: what is admitted: single examples, or whole classes.
        again: the loss is read from theta_{t-1} before each round, not once from theta_o.
        risk: of each example to forget, in the order of the set; () is the loss.
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
            require("Rounds", name, getattr(self, name), rule, holds=holds)


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
        unlearn: (theta_{t-1}, R, what is admitted, t - 1) -> theta_t.
        rounds: how.

    Returns:
        theta_T.

    Raises:
        ValueError: more rounds than there are examples, or classes; or as many risks as there are not examples.
    """
    if rounds.n == 1:
        return unlearn(theta_o, retain, forget, 0)
    if rounds.risk and len(rounds.risk) != len(forget):
        raise ValueError(f"{len(rounds.risk)} risks for {len(forget)} examples to forget; give one for each")
    labels = forget.labels.cpu().numpy()
    risk = np.array(rounds.risk) if rounds.risk else compute_losses(theta_o, forget).cpu().numpy()
    theta, before = theta_o, np.zeros(0, dtype=np.int64)
    for number in range(rounds.n):
        if rounds.again and number:
            risk = compute_losses(theta, forget).cpu().numpy()
        admitted = select_admitted(risk, labels, number + 1, rounds, before)
        new = admitted if rounds.schedule == "nested" else np.setdiff1d(admitted, before)
        before = admitted
        theta = unlearn(theta, retain, forget.select(torch.from_numpy(new).to(forget.rows.device)), number)
    return theta


def select_admitted(
    risk: np.ndarray, labels: np.ndarray, number: int, rounds: RsuSchedule, before: np.ndarray | None = None
) -> np.ndarray:
    """What is admitted in a round, v_i = 1[l_i < lambda_t].

    Args:
        risk: float [n].
        labels: int [n].
        number: t, from 1 to T.
        rounds: how.
        before: positions that are admitted already and stay so, whatever their risk is now; where the risk is read
            once, they are those of the lowest risks anyway.

    Returns:
        Their positions in F, int64, rising.

    Raises:
        ValueError: more rounds than there are examples, or classes; an undefined risk.
    """
    if np.isnan(risk).any():
        raise ValueError(f"the risk of {int(np.isnan(risk).sum())} examples to forget is undefined; use another score")
    units = np.arange(len(risk)) if rounds.unit == "example" else labels
    names = np.unique(units)
    if rounds.n > len(names):
        what = "examples" if rounds.unit == "example" else "classes"
        raise ValueError(f"{rounds.n} rounds over {len(names)} {what}: each admits at least one; use fewer rounds")
    sign = 1 if rounds.order == "ascending" else -1
    mean = np.array([risk[units == name].mean() for name in names]) if rounds.unit == "class" else risk
    already = np.isin(names, units[before]) if before is not None and len(before) else np.zeros(len(names), bool)
    first = names[np.lexsort((names, sign * mean, ~already))]
    count = number * len(names) // rounds.n
    return np.flatnonzero(np.isin(units, first[:count]))


@torch.no_grad()
def compute_losses(theta: nn.Module, examples: ExampleSet, batch: int = 512) -> Tensor:
    """The loss of each example, float32 [n], in evaluation mode; counted as read."""
    was = theta.training
    found = [
        cross_entropy(theta.eval()(images), labels, reduction="none")
        for images, labels in iterate_in_order(examples, batch)
    ]
    theta.train(was)
    return torch.cat(found)
