"""What a watch may do with the network that it is shown."""

import copy

import torch

from tests.fixtures.problems import make_tiny_problem, run_algorithm


def test_a_copy_that_a_watch_makes_keeps_its_statistics_when_it_is_asked():
    problem, copies = make_tiny_problem("batch-norm"), []
    images = problem.test.take(torch.arange(24))

    def watch(_, theta):
        asked = copy.deepcopy(theta).eval()
        before = asked.body[1].running_mean.clone()
        one_by_one = torch.cat([asked(image[None]) for image in images])
        torch.testing.assert_close(asked(images), one_by_one)
        assert torch.equal(asked.body[1].running_mean, before)
        copies.append(asked)

    run_algorithm("finetune", problem, watch=watch)
    assert len(copies) == 8
