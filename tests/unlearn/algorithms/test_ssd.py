"""Selective synaptic dampening by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from memscore.training.device_data import DeviceImages
from memscore.training.recipes import Recipe
from tests.fixtures.problems import make_tiny_problem, run_algorithm
from unlearn.algorithms.ssd import SSDConfig, compute_importances, ssd
from unlearn.optimization.loop import TrainingDiverged
from unlearn.problem import make_problem


class TwoWeights(nn.Module):
    """Logit k is w_k x_k: the first weight is of no use to who shows only the second pixel."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([0.5, 2.0]))

    def forward(self, images):
        return self.w * images.flatten(1)


def make_two_weight_problem():
    """Three examples to retain show pixel 0, of class 0; the one to forget shows pixel 1, of class 1."""
    pixels = torch.tensor([[1.0, 0], [1, 0], [1, 0], [0, 1], [0, 0], [0, 0]]).view(-1, 1, 2, 1)
    images = DeviceImages(pixels=pixels, shape=(1, 1, 2), flat=False, black=torch.zeros(1), white=torch.ones(1))
    recipe = Recipe(epochs=1, batch=1, lr=0.1)
    return make_problem(TwoWeights(), images, torch.tensor([0, 0, 0, 1, 0, 1]), (4, 1, 1), [3], recipe, 2)


def run_ssd(**params):
    problem = make_two_weight_problem()
    theta_u = ssd(problem.theta_o, problem.retain, problem.forget, SSDConfig(**params), np.random.default_rng(0))
    return theta_u.w.tolist()


def test_importances_by_hand():
    problem = make_two_weight_problem()
    p0, p1 = torch.sigmoid(torch.tensor([0.5, 2.0])).tolist()
    training = problem.retain.concatenate(problem.forget)
    rng = np.random.default_rng(0)
    importances = {name: compute_importances(problem.theta_o, *rest, rng)["w"].tolist() for name, rest in {
        "forget": (problem.forget, 1), "all, one by one": (training, 1), "all at once": (training, 4),
    }.items()}  # fmt: skip
    assert importances["forget"] == pytest.approx([0, (1 - p1) ** 2])
    assert importances["all, one by one"] == pytest.approx([3 / 4 * (1 - p0) ** 2, (1 - p1) ** 2 / 4])
    assert importances["all at once"] == pytest.approx([(3 / 4 * (1 - p0)) ** 2, ((1 - p1) / 4) ** 2])


@pytest.mark.parametrize(
    ("params", "second"),
    [
        ({"alpha": 3.9, "batch": 1}, 2.0 / 4),  # the forget set's importance is 4 times the whole's
        ({"alpha": 4.1, "batch": 1}, 2.0),
        ({"alpha": 3.9, "batch": 1, "lam": 0.4}, 2.0 / 10),
        ({"alpha": 3.9, "batch": 1, "lam": 8.0}, 2.0),  # never grows
        ({"alpha": 4.1, "batch": 4}, 2.0 / 16),  # squares of means over 4: another method
    ],
)
def test_the_second_weight_is_dampened_and_the_first_is_not(params, second):
    assert run_ssd(**params) == pytest.approx([0.5, second])


def test_a_forget_set_that_looks_like_the_rest_is_not_forgotten():
    problem = make_two_weight_problem()
    config = SSDConfig(alpha=1.5, batch=1)
    theta_u = ssd(problem.theta_o, problem.retain, problem.retain, config, np.random.default_rng(0))
    assert torch.equal(theta_u.w, problem.theta_o.w)


def test_gradients_that_are_no_numbers_end_it_by_name():
    problem = make_tiny_problem()
    with torch.no_grad():
        problem.theta_o.head.weight[0, 0] = float("nan")
    with pytest.raises(TrainingDiverged, match="not finite"):
        run_algorithm("ssd", problem)


@pytest.mark.parametrize("name", ["alpha", "lam", "batch"])
def test_a_config_that_is_none_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} of SSDConfig must be"):
        SSDConfig(**{name: 0})
