"""What an algorithm is counted to compute is what it computes: images forward, and those with a backward pass."""

import pytest

from tests.fixtures.problems import ARCHITECTURES, RECIPE, SIZES, SMALL, make_tiny_problem, run_algorithm
from unlearn.algorithms import ALGORITHMS, get_algorithm
from unlearn.optimization.steps import resolve_steps
from unlearn.trials.algorithm_work import COUNTERS, Counts, Sizes, count_algorithm

FORGOTTEN = 10
SET_SIZES = Sizes(retain=SIZES[0] - FORGOTTEN, forget=FORGOTTEN, validation=SIZES[1])
PARTLY_TRAINED = {"cf-k", "eu-k"}
"""The backward pass of the last layers is not counted."""


def count(name, **params):
    entry = get_algorithm(name)
    fields = entry.config.__dataclass_fields__
    params = {key: value for key, value in SMALL.items() if key in fields} | params
    if "architecture" in fields:
        params["architecture"] = ARCHITECTURES["cnn"]
    config = resolve_steps(entry.config(**params), SET_SIZES.retain, SET_SIZES.forget, RECIPE)
    return count_algorithm(name, config, SET_SIZES, RECIPE)


def test_every_algorithm_is_counted():
    assert COUNTERS.keys() == ALGORITHMS.keys()


# a network of its own is trained by retrain, which no hook sees; jvp of influence's other form runs none either
@pytest.mark.parametrize("name", sorted(ALGORITHMS.keys() - {"retrain"}))
def test_images_that_a_network_reads_are_counted(name):
    problem, seen = make_tiny_problem(), {"trained": 0, "predicted": 0}

    def note(module, inputs, output):
        seen["trained" if output.requires_grad else "predicted"] += len(output)

    problem.theta_o.register_forward_hook(note)  # copies of the network have it too
    run_algorithm(name, problem)
    counts = count(name)
    if name in PARTLY_TRAINED:
        counts = Counts(trained=counts.predicted + 1)  # an image by which the last layers are found
    # as many validation examples as there are, of which scrub-rewind reads those of the forgotten classes
    assert (counts.trained, counts.predicted) == (seen["trained"], seen["predicted"])


def test_steps_follow_from_batches():
    assert count("finetune") == Counts(steps=2 * 4, trained=2 * 54)
    assert count("retrain") == Counts(steps=27, trained=27 * 16)
    assert count("influence", variant="ihvp-cg", iterations=3) == Counts(steps=4 + 1 + 3 * 4, trained=64 + 3 * 54)
    assert count_algorithm("of-a-user", object(), SET_SIZES, RECIPE) == Counts(steps=4, trained=54)
