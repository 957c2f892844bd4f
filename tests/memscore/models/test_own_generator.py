"""A network that is built in a thread has the weights that it has elsewhere, whatever other threads draw."""

import threading

import pytest
import torch

from memscore.models.architectures import ARCHITECTURES, build_network
from memscore.models.own_generator import DrawFrom
from tests.fixtures.problems import have_same_weights

DRAWS = {
    "uniform_": lambda: torch.empty(40).uniform_(),
    "normal_": lambda: torch.empty(40).normal_(),
    "randn": lambda: torch.randn(5, dtype=torch.float64),
    "rand": lambda: torch.rand(3),
    "randint": lambda: torch.cat([torch.randint(9, (4,)), torch.randint(2, 9, (4,))]),
    "randperm": lambda: torch.randperm(7),
    "bernoulli": lambda: torch.bernoulli(torch.full((5,), 0.5)),
    "trunc_normal_": lambda: torch.nn.init.trunc_normal_(torch.empty(9)),
}


@pytest.mark.parametrize("name", DRAWS)
def test_draws_are_those_of_the_global_generator_which_does_not_move(name):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        expected = DRAWS[name]()
        before = torch.default_generator.get_state()
        with DrawFrom(torch.Generator().manual_seed(5)):
            drawn = DRAWS[name]()
        assert torch.equal(drawn, expected)
        assert torch.equal(torch.default_generator.get_state(), before)


def build_by_hand(shape, n_classes):
    """A user's function."""
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, n_classes))


def test_what_can_only_draw_from_the_global_generator_is_refused():
    with DrawFrom(torch.Generator()), pytest.raises(ValueError, match="draws from torch's global generator alone"):
        torch.native_dropout(torch.ones(3), 0.5, True)
    with pytest.raises(ValueError, match="may draw from global generators"):
        build_network(f"{__name__}:build_by_hand", (1, 8, 8), 3, 0, in_thread=True)


@pytest.mark.parametrize("arch", ["mlp", "cnn-4-8", "resnet8", "resnet18-imagenet-stem", "vit-narrow"])
def test_a_network_of_a_thread_has_the_same_weights_while_others_draw(arch):
    expected, built, stop = build_network(arch, (3, 16, 16), 4, seed=3), [], threading.Event()

    def draw():
        while not stop.is_set():
            torch.rand(1)

    with torch.random.fork_rng(devices=[]):
        noise = threading.Thread(target=draw)
        noise.start()
        thread = threading.Thread(
            target=lambda: built.append(build_network(arch, (3, 16, 16), 4, seed=3, in_thread=True))
        )
        thread.start()
        thread.join()
        stop.set()
        noise.join()
    assert have_same_weights(built[0], expected)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_architecture_has_the_same_weights_in_a_thread(arch):
    networks = (build_network(arch, (1, 32, 32), 4, seed=3, in_thread=in_thread) for in_thread in (False, True))
    assert have_same_weights(*networks)
