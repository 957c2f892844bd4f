"""Global generators are one network's inside the context, and whatever they were afterwards."""

import random

import numpy as np
import pytest
import torch

from memscore.models.architectures import build_network
from memscore.models.random_state import read_generators, restore_generators, seed_generators

CPU = torch.device("cpu")


def draw():
    """One number of each generator, and a normal one, of which NumPy and Python keep a second."""
    # ruff: ignore[numpy-legacy-random] - a user's network may
    from_numpy = np.random.rand(), np.random.randn()
    return (float(torch.rand(())), float(torch.randn(())), *from_numpy, random.random(), random.gauss(0, 1))


def test_equal_seeds_give_equal_draws_and_other_seeds_others():
    draws = []
    for seed in (5, 5, 6, 2**32, 2**62 + 1, 2**63 - 1):
        draw()
        with seed_generators(seed, CPU):
            draws.append(draw())
    assert draws[0] == draws[1]
    for column in range(len(draws[0])):
        assert len({values[column] for values in draws[1:]}) == 5


@pytest.mark.parametrize("fails", [False, True])
def test_other_users_of_the_generators_are_not_disturbed(fails):
    draw()
    with restore_generators(CPU):
        expected = draw(), draw()
    first = draw()
    try:
        with seed_generators(1, CPU):
            draw()
            if fails:
                raise ValueError("a network")
    except ValueError:
        assert fails
    assert (first, draw()) == expected


def test_without_a_seed_nothing_changes():
    with restore_generators(CPU):
        expected = draw()
    with seed_generators(None, CPU):
        assert draw() == expected


def test_a_gpu_s_generator_is_seeded_and_restored_too(monkeypatch):
    states = {"cuda:1": torch.full((16,), 7, dtype=torch.uint8)}
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: states[str(device)].clone())
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: states.update({str(device): state}))
    monkeypatch.setattr(torch.cuda, "manual_seed", lambda seed: states["cuda:1"].fill_(seed))
    device = torch.device("cuda", 1)
    monkeypatch.setattr(torch.cuda, "device", lambda chosen: restore_generators(CPU) if chosen == device else None)
    before = read_generators(device)
    with seed_generators(3, device):
        assert states["cuda:1"].tolist() == [3] * 16
        assert read_generators(device) != before
    assert read_generators(device) == before


def noisy(shape, n_classes):
    """Weights from NumPy's and Python's generators."""
    layer = torch.nn.Linear(int(np.prod(shape)), n_classes)
    with torch.no_grad():
        # ruff: ignore[numpy-legacy-random]
        layer.weight[0, 0], layer.bias[0] = float(np.random.randn()), random.random()
    return torch.nn.Sequential(torch.nn.Flatten(), layer)


def test_a_user_s_network_is_built_from_its_seed_whatever_it_draws_from():
    arch, before = f"{__name__}:noisy", read_generators(CPU)
    first, again, other = (build_network(arch, (1, 4, 4), 3, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert first["1.bias"][0] != other["1.bias"][0]
    assert first["1.weight"][0, 0] != other["1.weight"][0, 0]
    assert read_generators(CPU) == before
