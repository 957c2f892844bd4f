"""Tolerance of performance shift: what unlearning one example costs elsewhere (INST 3.3.1, eq. 4).

    accuracy = accuracy(theta_u) - accuracy(theta_o)
    probability = mean p_theta_u(y | x) - mean p_theta_o(y | x)
    loss = mean loss(theta_u) - mean loss(theta_o),     on the test set, and on the remaining training examples

The steps end where the decision on the example flips, so this is the shift at that step; the minimum that eq. 4 asks
for is not known of any algorithm.
"""

from dataclasses import dataclass

import numpy as np

SOURCE = "INST eq. 4, at the step where the decision flips"
PARTS = ("test", "remaining")


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """What a network answers on some labelled examples.

    Attributes:
        log_p: [n], log p(y | x) in nats.
        correct: bool [n].
    """

    log_p: np.ndarray
    correct: np.ndarray

    @property
    def p(self) -> np.ndarray:
        """The probability of the label, [n]."""
        return np.asarray(np.exp(self.log_p))


def compute_performance_shift(before: Answers, after: Answers, part: str) -> dict[str, float]:
    """Compute the changes of accuracy, mean probability and mean loss on one part, named PART_accuracy and so on."""
    return {
        f"{part}_accuracy": float(after.correct.mean() - before.correct.mean()),
        f"{part}_probability": float(after.p.mean() - before.p.mean()),
        f"{part}_loss": float(before.log_p.mean() - after.log_p.mean()),
    }
