"""The divergence of teacher and student against the sum over classes that defines it."""

import numpy as np
import pytest
import torch
from torch.nn.functional import kl_div, log_softmax, softmax

from unlearn.optimization.losses import kl_divergence

TEACHER = torch.tensor([[2.0, 0.0, -1.0], [0.0, 0.0, 0.0]])
STUDENT = torch.tensor([[0.0, 1.0, 0.0], [3.0, -3.0, 0.5]])


def expected(temperature):
    """Sum of p log p / q, averaged over the batch, in plain numbers."""
    rows = []
    for theirs, ours in zip(TEACHER.double().numpy(), STUDENT.double().numpy(), strict=True):
        p, q = (np.exp(z / temperature) / np.exp(z / temperature).sum() for z in (theirs, ours))
        rows.append(sum(p * np.log(p / q)))
    return np.mean(rows)


@pytest.mark.filterwarnings("ignore:reduction")
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_bug_14_the_mean_over_classes_too_is_k_times_smaller(temperature):
    by_default = kl_div(log_softmax(STUDENT / temperature, 1), softmax(TEACHER / temperature, 1), reduction="mean")
    assert float(by_default) == pytest.approx(expected(temperature) / 3, rel=1e-5)
    assert float(kl_divergence(TEACHER, STUDENT, temperature).mean()) == pytest.approx(expected(temperature), rel=1e-5)


def test_it_is_zero_and_flat_where_nothing_differs():
    student = TEACHER.clone().requires_grad_(True)
    divergence = kl_divergence(TEACHER, student, 2.0)
    divergence.sum().backward()
    assert not divergence.any()
    assert student.grad.abs().max() < 1e-7


def test_sure_answers_stay_finite():
    sure = torch.tensor([[200.0, -200.0]])
    assert kl_divergence(sure, -sure).item() == pytest.approx(400.0)
    assert kl_divergence(sure, torch.zeros(1, 2)).item() == pytest.approx(np.log(2), rel=1e-5)
