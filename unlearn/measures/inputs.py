"""Inputs of measures, by what a measure needs (outputs, weights or a population), and its declaration."""

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
    """Return the random stream of a measure, which depends on the seed and its name alone."""
    # By the name's bytes: another measure, or another order of measures, does not change the draws of this one.
    return np.random.default_rng([seed, *measure.encode()])


@dataclass(frozen=True, kw_only=True, eq=False)
class Outputs:
    """The outputs of one model on every example of the data set.

    Methods take rows of the data set, int64, and labels of all its examples, int64 [N].

    Attributes:
        logits: float32 [N, K].
        embeddings: float32 [N, E], inputs of the last linear layer.
        cache: slow values that several measures share, by a key of what they depend on.
    """

    logits: np.ndarray
    embeddings: np.ndarray
    cache: dict[tuple[object, ...], float] = field(default_factory=dict, repr=False)

    def log_probabilities(self, rows: np.ndarray) -> np.ndarray:
        """Compute log-probabilities, float64 [rows, K]."""
        # In float64: in float32 losses below about 1e-7 round to 0, and memorized examples are ties.
        log_probabilities: np.ndarray = log_softmax(self.logits[rows].astype(np.float64), axis=1)
        return log_probabilities

    def correct(self, rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Report whether the label's logit is above all others, bool [rows]; a tie is wrong, as in the bank."""
        logits = self.logits[rows].astype(np.float64)
        label_logits = np.take_along_axis(logits, labels[rows, None], axis=1)
        # On a copy, which astype made: the label's own logit is not among the others.
        np.put_along_axis(logits, labels[rows, None], -np.inf, axis=1)
        right: np.ndarray = label_logits[:, 0] > logits.max(1)
        return right

    def label_log_probabilities(self, rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Compute the label's log-probability, float64 [rows], at most 0; the loss is its negative."""
        of_labels: np.ndarray = np.take_along_axis(self.log_probabilities(rows), labels[rows, None], axis=1)[:, 0]
        return of_labels


@dataclass(frozen=True, kw_only=True, eq=False)
class EvaluationInputs:
    """Inputs of measures of outputs: three models, the sets of examples, the labels.

    Attributes:
        judged: the model to measure: theta_u, or theta_r and theta_o for their rows of a table.
        theta_r: the oracle.
        theta_o: the original.
        labels: int64 [N], as trained, which only training examples are; rows = train, validation, test.
        labels_true: int64 [N], as published.
        retain: int64, rows of the retain set.
        forget: int64, rows of the forget set.
        held_out: int64, rows of unseen data: of validation for selection, else of test.
        seed: seed of the measures' random streams.
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

    def with_model(self, outputs: Outputs) -> "EvaluationInputs":
        """Return the same inputs with another model to measure."""
        return replace(self, judged=outputs)

    def rng(self, measure: str) -> np.random.Generator:
        """Return the measure's random stream, equal for every measured model."""
        return measure_rng(self.seed, measure)

    @cached_property
    def sets_digest(self) -> str:
        """SHA-256 in hex of the sets of examples, their labels and the seed: all but the models."""
        digest = hashlib.sha256(str(self.seed).encode())
        # Separated by a byte: rows that move from one set to the next must give another digest.
        for rows in (self.retain, self.forget, self.held_out, self.labels):
            digest.update(np.ascontiguousarray(rows, dtype=np.int64).tobytes())
            digest.update(b"|")
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelInputs:
    """Inputs of measures of weights.

    Attributes:
        problem: theta_o and the sets of examples.
        judged: the network to measure, in evaluation mode; must not be changed.
        theta_r: the oracle.
        seed: seed of the measures' random streams.
    """

    problem: Problem
    judged: nn.Module
    theta_r: nn.Module
    seed: int = 0

    def rng(self, measure: str) -> np.random.Generator:
        """Return the measure's random stream, equal for every measured model."""
        return measure_rng(self.seed, measure)


@dataclass(frozen=True, kw_only=True, eq=False)
class PopulationInputs:
    """Inputs of measures of many models: one forget set, unlearned from S originals and left out by R oracles.

    Attributes:
        unlearned: float32 [S, N], logit confidence of each unlearned model on every example.
        retrained: float32 [R, N], of each oracle; in pairs, equal indices have equal seeds.
        margin_unlearned: float32 [S, N], the label's logit minus the largest other: above 0 where it is right. (KLOM's
            "margin" is logit confidence: minus the logsumexp of the others.)
        margin_retrained: float32 [R, N].
        forget: int64, rows of the forget set.
        held_out: int64, rows of unseen examples.
        retain: int64.
        seed: seed of the measures' random streams.
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
        """Return the measure's random stream."""
        return measure_rng(self.seed, measure)

    def paired_confidences(self) -> tuple[np.ndarray, np.ndarray]:
        """Return logit confidences of equally many unlearned models and oracles, float64 [n, N] each."""
        # Pairs have equal indices; where one side has more models, the rest have no partner.
        n = min(len(self.unlearned), len(self.retrained))
        return self.unlearned[:n].astype(np.float64), self.retrained[:n].astype(np.float64)


Best = Literal["max", "min", "oracle", "none"]
HELD_OUT_SPLITS: tuple[Literal["validation", "test"], ...] = ("validation", "test")


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a result row.

    Attributes:
        best: "max", "min", or "oracle": nearest to theta_r's value, and then the table has its gap to theta_r's and to
            theta_o's as separate columns. "none": a value that another column needs (a count, a null), not ranked.
        unit: unit of the values.
        ideal: value of perfect unlearning, in words or as a number.
        description: one line for tables.
        unbounded: number that a paper writes for "no finite value"; the largest value of the column.
    """

    best: Best
    unit: str
    ideal: str
    description: str
    unbounded: float = math.inf


@dataclass(frozen=True, kw_only=True)
class Measure:
    """Declaration of one measure.

    Attributes:
        fn: EvaluationInputs, ModelInputs or PopulationInputs -> {column: value}; undefined values are NaN.
        columns: every column that fn returns.
        needs: kind of inputs: "outputs", "weights" or "population".
        summary: what it measures, for docs/reference/measures.md.
        paper: the papers that propose or use it.
        core: whether every trial computes it, or only on request.
        splits: held-out sets on which it is computed; its columns end in their names. () if it reads none.
    """

    fn: Callable[..., dict[str, float]]
    columns: dict[str, Column]
    needs: Literal["outputs", "weights", "population"]
    summary: str
    paper: str
    core: bool = False
    splits: tuple[Literal["validation", "test"], ...] = ()

    def describe_column(self, column: str) -> Column:
        """Return what is declared of a column of fn; one of a user's own measure may have an ending."""
        return self.columns[column] if column in self.columns else next(iter(self.columns.values()))
