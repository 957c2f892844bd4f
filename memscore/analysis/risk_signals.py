"""Compare cheap signals of a trained model with privacy risk: RSU's Figures 2 and 5 and Table 3, for this bank.

    Fig. 5     attack success against the loss, in ten equal groups by loss
    Table 3    probability of the label, class by class, of the 100 riskiest examples and of 100 random ones
    Fig. 2     how much more attack success and entropy the 100 riskiest have than 100 random ones

The signals are those of the originals (models trained on all examples), the risk is attack success over the bank's
models or, where it was computed, how well gradient inversion reconstructs the image. The random examples are drawn from
the others.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax, stdtrit

from memscore.seeds import generator
from memscore.statistics.claims import Trend, judge_interval
from memscore.statistics.correlation import compute_interval_from_draws, spearman
from memscore.statistics.intervals import Interval
from memscore.store.store import Store

N_GROUPS = 10  # of examples by loss, as RSU's Fig. 5
N_RISKIEST = 100  # examples, as RSU's experiments
TAIL_SHARE = 0.2  # the lowest probabilities of a class
N_BOOTSTRAP = 1000  # bootstrap samples of examples for one rank correlation


@dataclass(frozen=True, kw_only=True)
class LossGroup:
    """One tenth of the examples by loss: its range in nats, and mean attack success with a 95 % t interval."""

    least: float
    most: float
    success: Interval


@dataclass(frozen=True, kw_only=True)
class ClassTail:
    """One class of RSU's Table 3.

    Attributes:
        label: the class.
        tail: probability of the label that bounds the lowest fifth of the class.
        least: the lowest.
        risky: mean probability of the riskiest examples of the class; NaN without any.
        twin: mean probability of the random ones.
        risky_in_tail: share of the riskiest that lie in the tail.
    """

    label: int
    tail: float
    least: float
    risky: float
    twin: float
    risky_in_tail: float


@dataclass(frozen=True, kw_only=True, eq=False)
class RiskSignals:
    """The comparison of one risk score with the cheap signals.

    Attributes:
        risk: name of the risk score.
        groups: by loss, lowest first.
        spearman: of loss and risk, with a bootstrap interval over examples.
        tails: one per class.
        trends: RSU's claims, and whether they hold here.
    """

    risk: str
    groups: list[LossGroup]
    spearman: Interval
    tails: list[ClassTail]
    trends: list[Trend]


def compute_risk_signals(store: Store, risk: str, keys: list[str], success: str) -> RiskSignals:
    """Compute RSU's comparisons for one risk score, over the examples on which it and attack success are defined."""
    n = store.manifest.split_sizes[0]
    labels = np.asarray(store.examples()["label"].to_numpy())[:n]
    signals = compute_original_signals(store, keys, labels)
    _, danger = store.score(risk)
    _, asr = store.score(success)
    # The riskiest, and as many random ones of the others, so at most half of all. One stream draws all that follows:
    # another order of the draws would give other numbers.
    defined = np.flatnonzero(~np.isnan(danger) & ~np.isnan(asr))
    rng = generator(store.manifest.seed, "bootstrap", risk)
    size = min(N_RISKIEST, len(defined) // 2)
    order = rng.permutation(defined)  # ties are broken at random, not by position
    risky = order[np.argsort(-danger[order], kind="stable")[:size]]
    twin = rng.choice(np.setdiff1d(defined, risky), size, replace=False)
    # Fig. 5: ten equal groups by loss, fewer where there are fewer examples
    loss = signals["loss"]
    order = defined[np.argsort(loss[defined], kind="stable")]
    groups = [
        LossGroup(least=float(loss[part].min()), most=float(loss[part].max()), success=compute_mean_interval(asr[part]))
        for part in np.array_split(order, N_GROUPS)
        if len(part)
    ]
    # RSU's claims: the risk rises with the loss, and the riskiest differ from random ones in these directions
    ranks = bootstrap_spearman(loss[defined], danger[defined], rng)
    trends = [Trend(claim=f"{risk} rises with the loss", value=ranks, verdict=judge_interval(ranks))]
    compared: dict[str, tuple[np.ndarray, int, str]] = {
        "loss": (loss, 1, "more loss"),
        "entropy": (signals["entropy"], 1, "more entropy"),
        "probability": (signals["probability"], -1, "less probability of the label"),
    }
    if risk != success:
        compared["success"] = (asr, 1, "more attack success")
    for values, sign, description in compared.values():
        gap = compute_difference(sign * values[risky], sign * values[twin])
        claim = f"{size} riskiest by {risk}: {description}"
        trends.append(Trend(claim=claim, value=gap, verdict=judge_interval(gap)))
    # Table 3, class by class
    probability = signals["probability"]
    tails = [compute_class_tail(label, labels, probability, risky, twin) for label in np.unique(labels).tolist()]
    return RiskSignals(risk=risk, groups=groups, spearman=ranks, tails=tails, trends=trends)


def compute_original_signals(store: Store, keys: list[str], labels: np.ndarray) -> Mapping[str, np.ndarray]:
    """Compute loss and entropy in nats, and probability of the label, float64 [n], means over the originals."""
    signals: dict[str, list[np.ndarray]] = {"loss": [], "entropy": [], "probability": []}
    for key in keys:
        logits = store.read_logits(key)
        log_p = log_softmax(logits[: len(labels)].astype(np.float64), axis=1)
        log_p_label = log_p[np.arange(len(labels)), labels]
        signals["loss"].append(-log_p_label)
        signals["entropy"].append(-(np.exp(log_p) * log_p).sum(1))
        signals["probability"].append(np.exp(log_p_label))
    return {name: np.mean(values, axis=0) for name, values in signals.items()}


def compute_class_tail(
    label: int, labels: np.ndarray, probability: np.ndarray, risky: np.ndarray, twin: np.ndarray
) -> ClassTail:
    """Compute one row of Table 3."""
    class_probability = probability[labels == label]
    tail = float(np.quantile(class_probability, TAIL_SHARE))
    high, low = (probability[rows[labels[rows] == label]] for rows in (risky, twin))
    return ClassTail(
        label=label,
        tail=tail,
        least=float(class_probability.min()),
        risky=float(high.mean()) if len(high) else float("nan"),
        twin=float(low.mean()) if len(low) else float("nan"),
        risky_in_tail=float((high <= tail).mean()) if len(high) else float("nan"),
    )


def compute_mean_interval(values: np.ndarray) -> Interval:
    """Compute a mean and its 95 % t interval, mean +- t_{n-1} s / sqrt(n); NaN ends for fewer than two values."""
    mean, n = float(values.mean()), len(values)
    half_width = float(stdtrit(n - 1, 0.975) * values.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
    return Interval(value=mean, lo=mean - half_width, hi=mean + half_width)


def compute_difference(x: np.ndarray, y: np.ndarray) -> Interval:
    """Compute mean of x minus mean of y, with Welch's 95 % interval; NaN ends where neither varies."""
    gap = float(x.mean() - y.mean())
    a, b = (float(values.var(ddof=1)) / len(values) if len(values) > 1 else float("nan") for values in (x, y))
    if not a + b > 0:
        return Interval(value=gap, lo=float("nan"), hi=float("nan"))
    # Welch-Satterthwaite: both groups keep their own variance
    freedom = (a + b) ** 2 / (a**2 / (len(x) - 1) + b**2 / (len(y) - 1))
    half_width = float(stdtrit(freedom, 0.975) * np.sqrt(a + b))
    return Interval(value=gap, lo=gap - half_width, hi=gap + half_width)


def bootstrap_spearman(x: np.ndarray, y: np.ndarray, rng: np.random.Generator, samples: int = N_BOOTSTRAP) -> Interval:
    """Compute Spearman's correlation with its bootstrap interval over examples, by the spread of Fisher's z."""
    draws = [rng.integers(0, len(x), len(x)) for _ in range(samples if len(x) > 2 else 0)]
    return compute_interval_from_draws(spearman(x, y), np.array([spearman(x[rows], y[rows]) for rows in draws]), len(x))
