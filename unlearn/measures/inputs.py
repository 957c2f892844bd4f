"""What measures are handed: by what they need, so that a table can say what it would cost to fill."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np
from scipy.special import log_softmax
from torch import nn

from unlearn.problem import Problem


def measure_rng(seed: int, measure: str) -> np.random.Generator:
    """A measure's own chance."""
    return np.random.default_rng([seed, *measure.encode()])


@dataclass(frozen=True, kw_only=True, eq=False)
class Outputs:
    """What one model says of every example of the data set.

    Attributes:
        logits: float32 [N, K].
        embeddings: float32 [N, E], what the last linear layer reads.
        cache: values that several measures share and that take long, by what they are of.
    """

    logits: np.ndarray
    embeddings: np.ndarray
    cache: dict[tuple[object, ...], float] = field(default_factory=dict, repr=False)

    def log_probabilities(self, rows: np.ndarray) -> np.ndarray:
        """float64 [rows, K]."""
        said: np.ndarray = log_softmax(self.logits[rows].astype(np.float64), axis=1)
        return said

    def correct(self, rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Whether the label's logit is above all others; a tie is wrong, as in the bank.

        Args:
            rows: which examples.
            labels: int64 [N], one for every example of the data set.

        Returns:
            One answer a row.
        """
        logits = self.logits[rows].astype(np.float64)
        own = np.take_along_axis(logits, labels[rows, None], axis=1)
        np.put_along_axis(logits, labels[rows, None], -np.inf, axis=1)
        right: np.ndarray = own[:, 0] > logits.max(1)
        return right

    def label_log_probabilities(self, rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """The label's log-probability; the loss is its negative.

        Args:
            rows: which examples.
            labels: int64 [N], one for every example of the data set.

        Returns:
            float64 [rows], at most 0.
        """
        own: np.ndarray = np.take_along_axis(self.log_probabilities(rows), labels[rows, None], axis=1)[:, 0]
        return own


@dataclass(frozen=True, kw_only=True, eq=False)
class EvaluationInputs:
    """What measures of outputs see: three models, four sets of examples, the labels.

    Attributes:
        judged: the model that is measured: theta_u, or theta_r and theta_o for the rows above and beneath it.
        theta_r: the oracle.
        theta_o: the original.
        labels: int64 [N], as trained, which only training examples are; rows = train, validation, test.
        labels_true: int64 [N], as published.
        retain: int64, rows of the training set that stay.
        forget: int64, rows that go.
        held_out: int64, the rows that stand for unseen data: of validation where something is selected, else of test.
        seed: of the measures' own chance.
    """

    judged: Outputs
    theta_r: Outputs
    theta_o: Outputs
    labels: np.ndarray
    labels_true: np.ndarray
    retain: np.ndarray
    forget: np.ndarray
    held_out: np.ndarray
    seed: int = 0

    def with_model(self, views: Outputs) -> "EvaluationInputs":
        """The same case with another model judged."""
        return replace(self, judged=views)

    def rng(self, measure: str) -> np.random.Generator:
        """The measure's own stream, equal for every model that is judged."""
        return measure_rng(self.seed, measure)

    @cached_property
    def sets_digest(self) -> str:
        """64 hex digits over the sets of examples, their labels and the seed: all but the models."""
        digest = hashlib.sha256(str(self.seed).encode())
        for rows in (self.retain, self.forget, self.held_out, self.labels):
            digest.update(np.ascontiguousarray(rows, dtype=np.int64).tobytes())
            digest.update(b"|")
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelInputs:
    """What measures of weights see.

    Attributes:
        problem: its theta_o, and the sets of examples.
        judged: the network that is measured, in evaluation mode; not to be changed.
        theta_r: the oracle.
        seed: of the measures' own chance.
    """

    problem: Problem
    judged: nn.Module
    theta_r: nn.Module
    seed: int = 0

    def rng(self, measure: str) -> np.random.Generator:
        """The measure's own stream, equal for every model that is judged."""
        return measure_rng(self.seed, measure)


@dataclass(frozen=True, kw_only=True, eq=False)
class PopulationInputs:
    """What measures of many models see: one forget set, unlearned from S originals, and left out by R oracles.

    Attributes:
        unlearned: float32 [S, N], logit confidence of each unlearned model on every example.
        retrained: float32 [R, N], of each oracle; where they are paired, one index is one seed.
        margin_unlearned: float32 [S, N], the label's logit minus the largest other: above 0 where it is right. (KLOM's
            "margin" is logit confidence: minus the logsumexp of the others.)
        margin_retrained: float32 [R, N].
        forget: int64, rows of the forget set.
        held_out: int64, rows of unseen examples.
        retain: int64.
        seed: of the measures' own chance.
    """

    unlearned: np.ndarray
    retrained: np.ndarray
    margin_unlearned: np.ndarray
    margin_retrained: np.ndarray
    forget: np.ndarray
    held_out: np.ndarray
    retain: np.ndarray
    seed: int = 0

    def rng(self, measure: str) -> np.random.Generator:
        """The measure's own stream."""
        return measure_rng(self.seed, measure)

    def paired_confidences(self) -> tuple[np.ndarray, np.ndarray]:
        """Logit confidence of as many unlearned models as oracles, float64 [n, N] each: the first of the larger."""
        n = min(len(self.unlearned), len(self.retrained))
        return self.unlearned[:n].astype(np.float64), self.retrained[:n].astype(np.float64)


Best = Literal["max", "min", "oracle", "none"]


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a result row.

    Attributes:
        best: "max", "min", or "oracle": nearest to theta_r's value, and then the table has its gap to theta_r's and to
            theta_o's as columns of their own. "none": what another column rests on (a count, a null value), not ranked.
        unit: of the values.
        ideal: what a perfect unlearning would show, in words or as a number.
        description: what it is, in a line.
        unbounded: what stands for "no finite value" where a paper writes a number for it; nothing lies above.
    """

    best: Best
    unit: str
    ideal: str
    description: str
    unbounded: float = math.inf


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One line of the table of measures.

    Attributes:
        fn: a Case, Weights or Population -> {column: value}; what is undefined is NaN.
        columns: every column that fn gives.
        needs: which of them: "outputs", "weights" or "population".
        paper: whose it is.
        core: whether every trial has it, or only one that asks.
        splits: by which held-out sets it is taken, whose name its columns then end in; () if it reads none.
    """

    fn: Callable[..., dict[str, float]]
    columns: dict[str, Column]
    needs: Literal["outputs", "weights", "population"]
    paper: str
    core: bool = False
    splits: tuple[Literal["validation", "test"], ...] = ()
