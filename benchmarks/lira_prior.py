"""Which strength of the prior mean LiRA's power is highest with, on data that no table of this project reports.

    python -m benchmarks.lira_prior

Banks of small networks on four generated or tabular data sets: made-up classes with label noise, breast cancer with
label noise, sine gratings, and a long-tailed mixture. Banks of 5, 9, 17 and 65 models are disjoint parts of one of 288
models, iid halves; each model in turn is the target. TPR at a false positive rate of 1 %, mean over the first 24
targets of up to 8 banks, with the standard error over banks. `strength` replaces lira.MEAN_STRENGTH.
"""

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, make_classification

import memscore.estimators.lira as lira
from benchmarks.results_file import save
from memscore.estimators.shadow_models import ShadowModels
from memscore.statistics.roc import compute_target_means

MODELS, HIDDEN, STEPS, BATCH, RATE = 288, 32, 400, 128, 0.1
STRENGTHS = (0.05, 2.0, 4.0, 6.0, 8.0, 16.0)
SHADOWS = (4, 8, 16, 64)


def make_gratings(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Make noisy sine gratings of four directions, 8 x 8 pixels."""
    label = rng.integers(0, 4, n)
    y, x = np.mgrid[:8, :8] / 8
    angle, frequency, phase = np.pi * label / 4 + rng.normal(0, 0.25, n), rng.uniform(1, 2.5, n), rng.uniform(0, 6.3, n)
    along = np.cos(angle)[:, None, None] * x + np.sin(angle)[:, None, None] * y
    images = np.sin(2 * np.pi * frequency[:, None, None] * along + phase[:, None, None])
    return (images + rng.normal(0, 0.8, images.shape)).reshape(n, -1), label


def make_long_tail(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Make a mixture of 120 groups with Zipf frequencies, each of one of five classes."""
    frequency = 1 / np.arange(1, 121)
    group = rng.choice(120, n, p=frequency / frequency.sum())
    centres, classes = rng.normal(0, 1.2, (120, 16)), rng.integers(0, 5, 120)
    return centres[group] + rng.normal(0, 0.8, (n, 16)), classes[group]


def load(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Load standardized features and labels, some of them changed."""
    rng = np.random.default_rng(5)
    if name == "classes":
        features, label = make_classification(
            800, 20, n_informative=10, n_classes=4, n_clusters_per_class=3, flip_y=0.1, random_state=1
        )
    elif name == "cancer":
        features, label = load_breast_cancer(return_X_y=True)
    elif name == "gratings":
        features, label = make_gratings(800, rng)
    else:
        features, label = make_long_tail(800, rng)
    changed = rng.random(len(label)) < {"cancer": 0.1, "gratings": 0.05}.get(name, 0)
    label = np.where(changed, rng.integers(0, label.max() + 1, len(label)), label)
    return (features - features.mean(0)) / (features.std(0) + 1e-9), label


def train(features: np.ndarray, label: np.ndarray, member: np.ndarray, seed: int) -> np.ndarray:
    """Train a network with one hidden layer on each row of member; return logit confidences [M, n]."""
    generator = torch.Generator().manual_seed(seed)
    x, y, weight = torch.tensor(features).float(), torch.tensor(label), torch.tensor(member).float()
    models, classes = len(member), int(y.max()) + 1
    shapes = ((x.shape[1], HIDDEN), (1, HIDDEN), (HIDDEN, classes), (1, classes))
    scales = ((2 / x.shape[1]) ** 0.5, 0, HIDDEN**-0.5, 0)
    parameters = [
        (torch.randn(models, *shape, generator=generator) * scale).requires_grad_()
        for shape, scale in zip(shapes, scales, strict=True)
    ]

    def predict(images: torch.Tensor) -> torch.Tensor:
        return torch.relu(images @ parameters[0] + parameters[1]) @ parameters[2] + parameters[3]

    optimizer = torch.optim.SGD(parameters, lr=RATE, momentum=0.9)
    for step in range(STEPS):
        batch = torch.randperm(len(x), generator=generator)[:BATCH]
        loss = -torch.log_softmax(predict(x[batch]), -1).gather(2, y[batch].expand(models, -1)[..., None])[..., 0]
        held = weight[:, batch]
        decay = sum((p**2).sum() for p in parameters)
        optimizer.zero_grad()
        ((loss * held).sum() / (held.sum() / models) + 5e-5 * decay).backward()
        optimizer.step()
        optimizer.param_groups[0]["lr"] = RATE * (1 - step / STEPS)
    with torch.no_grad():
        logits, chosen = predict(x).double(), y.expand(models, -1)[..., None].clone()
        own = logits.gather(2, chosen)[..., 0]
        confidence: np.ndarray = (own - torch.logsumexp(logits.scatter(2, chosen, -torch.inf), -1)).numpy()
    return confidence


def measure(confidence: np.ndarray, member: np.ndarray) -> float:
    """Measure TPR at 1 % of online LiRA, mean over the first 24 targets."""
    shadows = ShadowModels.from_sample(confidence, 0.5)
    prior = lira.combine_prior_sums([lira.compute_prior_sums(confidence, member, shadows)], shadows)
    online = lira.lira_scores(confidence, member, prior)[0][:24]
    return compute_target_means(online, member[: len(online)])["tpr_at_0.01"].value


def main() -> None:
    """Measure."""
    torch.set_num_threads(1)
    found: dict[str, dict[str, list[float]]] = {}
    for name in ("classes", "cancer", "gratings", "long tail"):
        features, label = load(name)
        rng, n = np.random.default_rng(1), len(label)
        member = np.array([np.isin(np.arange(n), rng.permutation(n)[: n // 2]) for _ in range(MODELS)])
        parts = [train(features, label, member[start : start + 72], start) for start in range(0, MODELS, 72)]
        confidence = np.concatenate(parts)
        for count in SHADOWS:
            banks = [slice(b * (count + 1), (b + 1) * (count + 1)) for b in range(min(8, MODELS // (count + 1)))]
            row = found[f"{name}, {count} shadows"] = {}
            for strength in STRENGTHS:
                lira.MEAN_STRENGTH = strength
                values = [measure(confidence[bank], member[bank]) for bank in banks]
                row[f"{strength:g}"] = [float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))]
            print(name, count, {key: np.round(value, 4).tolist() for key, value in row.items()}, flush=True)
    save("lira_prior", {"what": "TPR at 1 % by strength of the prior mean, and its standard error", "cells": found})


if __name__ == "__main__":
    main()
