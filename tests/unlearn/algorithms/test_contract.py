"""The contract of every algorithm of the table."""

import itertools
from functools import cache
from pathlib import Path

import pytest
import torch

from tests.fixtures.problems import (
    KINDS,
    RECIPE,
    SIZES,
    SMALL,
    copy_state,
    have_same_weights,
    make_tiny_problem,
    run_algorithm,
)
from unlearn import algorithms
from unlearn.algorithms import ALGORITHMS, get_algorithm
from unlearn.search_space import LogUniform

RETAIN, FORGET = SIZES[0] - 10, 10
EPOCHS, BATCH = SMALL["epochs"], SMALL["batch"]
STEPS = -(-RETAIN // BATCH)


def count_cycled(steps):
    """Examples in so many batches of passes over the forget set."""
    whole, left = divmod(steps, -(-FORGET // BATCH))
    return whole * FORGET + left * BATCH


SERVED = {
    "original": 0,
    "retrain": round(RECIPE.epochs * RETAIN / RECIPE.batch) * RECIPE.batch,
    "finetune": EPOCHS * RETAIN,
    "gradient-ascent": EPOCHS * FORGET,
    "neggrad-plus": EPOCHS * RETAIN + count_cycled(EPOCHS * STEPS),
    "influence": FORGET + RETAIN + RETAIN,
    "boundary-shrink": EPOCHS * FORGET,
    "boundary-shrink-plus": EPOCHS * RETAIN + count_cycled(EPOCHS * STEPS),
    "boundary-expand": EPOCHS * FORGET,
    "boundary-expand-plus": EPOCHS * RETAIN + count_cycled(EPOCHS * STEPS),
    "sure": EPOCHS * RETAIN + 2 * count_cycled(EPOCHS * STEPS),
    "ssd": RETAIN + 2 * FORGET,
    "l1-sparse": EPOCHS * RETAIN,
    "random-label": EPOCHS * (RETAIN + FORGET),
    "salun": EPOCHS * (RETAIN + FORGET) + FORGET,
    "scrub": EPOCHS * RETAIN + SMALL["msteps"] * FORGET,
    "scrub-rewind": EPOCHS * RETAIN + SMALL["msteps"] * FORGET + SIZES[1] + (1 + EPOCHS) * FORGET,
    "bad-teacher": EPOCHS * (FORGET + int(0.3 * RETAIN)),
    "cf-k": EPOCHS * RETAIN,
    "eu-k": EPOCHS * RETAIN,
}
"""Examples read under two epochs of batches of 16, 54 to retain and 10 to forget."""

MAY_STAY = {"original", "boundary-shrink", "ssd"}
"""Algorithms that may change nothing for one example: its nearest class may be its label, no weight may be salient."""

SHARED_FILES = {"entry", "user_algorithm"}
"""Files that hold no algorithm."""

every_algorithm = pytest.mark.parametrize("name", ALGORITHMS)


def test_every_algorithm_file_is_in_the_table_and_every_line_is_tested():
    files = {path.stem for path in Path(algorithms.__file__).parent.glob("[!_]*.py")}
    assert {entry.fn.__module__.split(".")[-1] for entry in ALGORITHMS.values()} == files - SHARED_FILES
    assert SERVED.keys() == ALGORITHMS.keys()


@cache
def run_once(name, kind, channels):
    """Run an algorithm for all tests of one run: the problem, copies of what it must not change, and theta_u."""
    problem = make_tiny_problem(kind, channels=channels)
    before = {
        "state": copy_state(problem.theta_o),
        "modes": [module.training for module in problem.theta_o.modules()],
        "requires_grad": [parameter.requires_grad for parameter in problem.theta_o.parameters()],
        "labels": (problem.retain.labels.clone(), problem.forget.labels.clone()),
        "pixels": problem.retain.images.pixels.clone(),
    }
    return problem, before, run_algorithm(name, problem, kind=kind)


@every_algorithm
@pytest.mark.parametrize("kind", KINDS)
def test_theta_o_is_left_as_it_was_and_theta_u_shares_nothing_with_it(name, kind):
    problem, before, theta_u = run_once(name, kind, 1)
    after = copy_state(problem.theta_o)
    assert all(torch.equal(before["state"][key], after[key]) for key in before["state"])
    assert [m.training for m in problem.theta_o.modules()] == before["modes"]
    assert [p.requires_grad for p in problem.theta_o.parameters()] == before["requires_grad"]
    assert all(p.grad is None for p in problem.theta_o.parameters())
    assert torch.equal(before["labels"][0], problem.retain.labels)
    assert torch.equal(before["labels"][1], problem.forget.labels)
    assert torch.equal(before["pixels"], problem.retain.images.pixels)
    theirs = {value.data_ptr() for value in problem.theta_o.state_dict().values()}
    assert not theirs & {value.data_ptr() for value in theta_u.state_dict().values()}


@every_algorithm
@pytest.mark.parametrize(("kind", "channels"), [*itertools.product(KINDS, (1, 3)), ("resnet8", 1)])
def test_theta_u_has_the_names_shapes_and_types_of_theta_o_and_answers(name, kind, channels):
    problem, _, theta_u = run_once(name, kind, channels)
    ours, theirs = theta_u.state_dict(), problem.theta_o.state_dict()
    assert [(k, v.shape, v.dtype) for k, v in ours.items()] == [(k, v.shape, v.dtype) for k, v in theirs.items()]
    assert not any(module.training for module in theta_u.modules())
    assert all(p.requires_grad and p.grad is None for p in theta_u.parameters())
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in theta_u.modules())
    with torch.no_grad():
        logits = theta_u(problem.test.take(torch.arange(4)))
    assert logits.shape == (4, 4)
    assert logits.isfinite().all()


@every_algorithm
def test_one_seed_one_theta_u(name):
    assert have_same_weights(
        run_algorithm(name, make_tiny_problem(), seed=3), run_algorithm(name, make_tiny_problem(), seed=3)
    )


@every_algorithm
def test_theta_u_moves_unless_nothing_is_to_be_done(name):
    problem = make_tiny_problem()
    params = {"alpha": 10.0} if name == "ssd" else {}  # no weight of so small a network is 25 times as important to F
    assert have_same_weights(run_algorithm(name, problem, **params), problem.theta_o) == (name == "original")


@every_algorithm
@pytest.mark.parametrize("kind", KINDS)
def test_one_example_can_be_forgotten(name, kind):
    problem = make_tiny_problem(kind, forget=[5])
    theta_u = run_algorithm(name, problem, kind=kind)
    assert name in MAY_STAY or not have_same_weights(theta_u, problem.theta_o)
    assert all(value.isfinite().all() for value in theta_u.state_dict().values())


@every_algorithm
def test_it_reads_as_many_examples_as_its_config_says(name):
    problem = make_tiny_problem()
    run_algorithm(name, problem)
    assert problem.retain.read_counter.examples == SERVED[name]


@every_algorithm
def test_the_callback_sees_every_step_and_ends_the_run(name):
    seen, problem = [], make_tiny_problem()
    run_algorithm(name, problem, step_callback=lambda step, model: seen.append((step, model.training)))
    assert [step for step, _ in seen] == sorted({step for step, _ in seen})
    assert all(training for _, training in seen)
    if len(seen) > 1:
        seen_again = []
        run_algorithm(
            name, make_tiny_problem(), step_callback=lambda step, model: seen_again.append(step) or len(seen_again) == 1
        )
        assert seen_again == [seen[0][0]]


@every_algorithm
def test_a_search_can_look_where_the_config_says(name):
    config = get_algorithm(name).config
    fields = config.__dataclass_fields__
    assert set(config.SPACE) <= set(fields)
    for field, space in config.SPACE.items():
        assert len(space.source) > 2
        default = fields[field].default
        if default is None:  # by the data
            continue
        if hasattr(space, "low"):
            assert space.low < space.high
            assert space.low <= default <= space.high
        else:
            assert default in space.values
        assert not isinstance(space, LogUniform) or space.low > 0


@every_algorithm
def test_an_unknown_name_offers_the_nearest(name):
    with pytest.raises(ValueError, match=f"did you mean '{name}'"):
        get_algorithm(name[:-1] + "x" if len(name) > 3 else name + "x")
