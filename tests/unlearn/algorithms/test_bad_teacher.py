"""Two teachers: one step by hand, the share of the retain set, and who teaches what."""

import numpy as np
import pytest
import torch
from torch.nn.functional import kl_div, log_softmax, softmax

from tests.fixtures.problems import KINDS, make_tiny_problem, make_unsure_problem, run_algorithm
from tests.fixtures.spies import classify_batches, have_close_weights, record_batches_read, take_plain_step
from unlearn.algorithms.bad_teacher import BadTeacherConfig
from unlearn.optimization.layers import reinitialize
from unlearn.optimization.loop import copy_model
from unlearn.optimization.losses import kl_divergence

STEP = {"optimizer": "sgd", "lr": 1e-3, "epochs": 1, "batch": 64, "weight_decay": 0.1}


def whole(examples):
    return examples.images.take(examples.rows)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("alpha", [0.5, 0.9])
def test_one_step_by_hand(kind, alpha):
    problem = make_unsure_problem(kind)
    theta, bad = copy_model(problem.theta_o).train(), reinitialize(problem.theta_o, np.random.default_rng(0))
    images = torch.cat([whole(problem.forget), whole(problem.retain)])
    teacher_logits = torch.cat([bad(whole(problem.forget)), problem.theta_o(whole(problem.retain))]).detach() / 2
    student = theta(images) / 2
    divergences = kl_div(log_softmax(student, 1), softmax(teacher_logits, 1), reduction="none").sum(1)
    loss = (2 * (1 - alpha) * divergences[:10].sum() + 2 * alpha * divergences[10:].sum()) / 64
    take_plain_step(theta, loss, lr=1e-3, weight_decay=0.1)
    params = STEP | {"retain_share": 1.0, "temperature": 2.0, "alpha": alpha}
    assert have_close_weights(run_algorithm("bad-teacher", problem, **params), theta)


def test_the_share_of_the_retain_set_is_drawn_once(monkeypatch):
    problem = make_tiny_problem()
    batch_rows = record_batches_read(monkeypatch, lambda: run_algorithm("bad-teacher", problem, epochs=3, batch=13))
    epochs = [sorted(row for rows in batch_rows[start : start + 2] for row in rows) for start in (0, 2, 4)]
    assert epochs[0] == epochs[1] == epochs[2]
    assert len(epochs[0]) == 10 + 16
    assert set(problem.forget.rows.tolist()) < set(epochs[0])
    assert set(classify_batches(batch_rows, problem.forget)) == {"M"}
    other_batch_rows = record_batches_read(
        monkeypatch, lambda: run_algorithm("bad-teacher", problem, epochs=1, batch=13, seed=1)
    )
    assert sorted(row for rows in other_batch_rows for row in rows) != epochs[0]


def test_the_forget_set_is_answered_more_like_the_bad_teacher_and_the_rest_like_the_good_one():
    problem = make_unsure_problem("mlp")
    bad = reinitialize(problem.theta_o, np.random.default_rng(0))
    theta_u = run_algorithm("bad-teacher", problem, epochs=30, lr=3e-3)

    def distance(teacher, theta, examples):
        return kl_divergence(teacher(whole(examples)), theta(whole(examples))).mean().item()

    assert distance(bad, theta_u, problem.forget) < 0.7 * distance(bad, problem.theta_o, problem.forget)
    assert distance(problem.theta_o, theta_u, problem.retain) < distance(problem.theta_o, theta_u, problem.forget)


def test_with_all_weight_on_what_is_retained_nothing_is_to_be_learned():
    problem = make_unsure_problem("cnn")
    params = STEP | {"weight_decay": 0.0}
    assert have_close_weights(run_algorithm("bad-teacher", problem, **params, alpha=1.0), problem.theta_o, atol=1e-5)
    assert not have_close_weights(
        run_algorithm("bad-teacher", problem, **params, alpha=0.0), problem.theta_o, atol=1e-5
    )


@pytest.mark.parametrize(("field", "value"), [("retain_share", 0.0), ("temperature", 0.0), ("alpha", 1.5)])
def test_a_config_that_is_none_is_refused(field, value):
    with pytest.raises(ValueError, match=f"{field} of BadTeacherConfig must be .*, got {value}"):
        BadTeacherConfig(**{field: value})
