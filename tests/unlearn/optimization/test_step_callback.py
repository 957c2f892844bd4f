"""What a step callback may do with the network that it gets."""

import copy

import torch

from tests.fixtures.problems import make_tiny_problem, run_algorithm


def test_a_copy_made_by_a_callback_keeps_its_statistics_when_it_is_evaluated():
    problem, copies = make_tiny_problem("batch-norm"), []
    images = problem.test.take(torch.arange(24))

    def step_callback(_, theta):
        evaluated = copy.deepcopy(theta).eval()
        before = evaluated.body[1].running_mean.clone()
        one_by_one = torch.cat([evaluated(image[None]) for image in images])
        torch.testing.assert_close(evaluated(images), one_by_one)
        assert torch.equal(evaluated.body[1].running_mean, before)
        copies.append(evaluated)

    run_algorithm("finetune", problem, step_callback=step_callback)
    assert len(copies) == 8
