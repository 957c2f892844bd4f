"""Small problems that are quick to unlearn: four blobs of pixels, a network that has learned them, ten to forget."""

import copy
from functools import cache

import numpy as np
import torch
from torch import nn

from memscore.models.architectures import Classifier, build
from memscore.training.device_data import resident
from memscore.training.loop import stacks
from memscore.training.recipes import Recipe
from unlearn.algorithms import algorithm
from unlearn.problem import pose

SIZES = (64, 24, 24)
CLASSES = 4
RECIPE = Recipe(epochs=8, batch=16, lr=0.1, weight_decay=0.0)
KINDS = ("mlp", "cnn", "batch-norm")
SMALL = {"epochs": 2, "batch": 16, "msteps": 1}


def with_batch_norm(shape, n_classes):
    """Convolution, batch norm, ReLU twice, the second at one value an image; then the head."""
    body = nn.Sequential(
        nn.Conv2d(shape[0], 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(),
    )  # fmt: skip
    return Classifier(body, nn.Linear(6, n_classes))


ARCHITECTURES = {"mlp": "mlp-8", "cnn": "cnn-4-6", "batch-norm": "tests.unlearn.problems:with_batch_norm"}


@cache
def trained(kind, channels):
    """The network and its images; made once."""
    rng = np.random.default_rng(0)
    labels = np.arange(sum(SIZES)) % CLASSES
    images = rng.integers(0, 120, (len(labels), channels, 8, 8)).astype(np.uint8)
    for row, label in enumerate(labels):
        images[row, :, 4 * (label // 2) :][:, :4, 4 * (label % 2) :][:, :, :4] += 90
    theta = build(ARCHITECTURES[kind], (channels, 8, 8), CLASSES, seed=0)
    constants = (0.4,) * channels, (0.25,) * channels
    data = resident(images, *constants, torch.device("cpu"), flat=stacks(theta, RECIPE))
    truth = torch.from_numpy(labels)
    sgd = torch.optim.SGD(theta.parameters(), lr=0.1, momentum=0.9)
    for _ in range(40):
        sgd.zero_grad()
        nn.functional.cross_entropy(theta(data.take(torch.arange(SIZES[0]))), truth[: SIZES[0]]).backward()
        sgd.step()
    return theta.eval(), data, truth


def tiny(kind="cnn", *, channels=1, forget=range(10)):
    """A problem of its own network: a test may not change another's."""
    theta, data, labels = trained(kind, channels)
    return pose(copy.deepcopy(theta), data, labels, SIZES, forget, RECIPE, CLASSES)


def unsure(kind="cnn", **more):
    """The same problem of a network whose margin on the forget set is 1 on average: tiny's are so sure of nearly all
    examples that their gradients are rounding."""
    problem = tiny(kind, **more)
    with torch.no_grad():
        scores = problem.theta_o(problem.forget.images.take(problem.forget.rows))
        own = scores.gather(1, problem.forget.labels[:, None])[:, 0]
        others = scores.scatter(1, problem.forget.labels[:, None], -torch.inf).amax(1)
        for parameter in problem.theta_o.head.parameters():
            parameter /= (own - others).mean().abs()
    return problem


def unlearned(name, problem, *, seed=0, watch=None, kind="cnn", **params):
    """theta_u by an algorithm of the table, in little time unless told otherwise."""
    entry = algorithm(name)
    fields = entry.config.__dataclass_fields__
    params = {k: v for k, v in SMALL.items() if k in fields} | params
    if "architecture" in fields:
        params["architecture"] = ARCHITECTURES[kind]
    more = {"validation": problem.validation} if entry.reads_validation else {}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return entry.fn(
            *(problem.theta_o, problem.retain, problem.forget, entry.config(**params), np.random.default_rng(seed)),
            watch=watch,
            **more,
        )


def state(model):
    """Every weight and statistic, copied."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def same(one, other):
    """Whether two networks agree bit for bit."""
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
