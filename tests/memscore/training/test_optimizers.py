"""The fused optimizers: the bits of torch.optim's, and no import of torch's compiler."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from memscore.training.optimizers import FusedOptimizer
from memscore.training.recipes import OPTIMIZERS

ROOT = Path(__file__).parents[3]
THEIRS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
STEPS = 6


def make_parameters():
    """A matrix, a vector, a convolution in channels last, one that never has a gradient, and one that is frozen."""
    rng = torch.Generator().manual_seed(0)
    shapes = ((33, 65), (129,), (8, 4, 3, 3), (17,), (9,))
    parameters = [nn.Parameter(torch.randn(shape, generator=rng)) for shape in shapes]
    parameters[2].data = parameters[2].data.contiguous(memory_format=torch.channels_last)
    parameters[4].requires_grad_(False)
    return parameters


def take_steps(optimizer, parameters, lr=None):
    """Steps on drawn gradients; the vector has none at every third step, and the rate of the first group falls."""
    rng = torch.Generator().manual_seed(1)
    for step in range(STEPS):
        optimizer.zero_grad()
        for k, parameter in enumerate(parameters[:3]):
            if (k, step % 3) != (1, 2):
                parameter.grad = torch.randn(parameter.shape, generator=rng) * (
                    torch.arange(len(parameter)) % 5 > 0
                ).view(-1, *[1] * (parameter.ndim - 1))
        rate = 0.1 / (1 + step)
        if lr is None:
            optimizer.param_groups[0]["lr"] = rate
        else:
            lr.fill_(rate)
        optimizer.step()


@pytest.mark.parametrize("as_tensor", [False, True], ids=["number", "tensor"])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("sgd", {}),
        ("sgd", {"weight_decay": 5e-4}),
        ("sgd", {"momentum": 0.9}),
        ("sgd", {"momentum": 0.9, "weight_decay": 0.1}),
        ("sgd", {"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}),
        ("adam", {}),
        ("adam", {"weight_decay": 0.1}),
        ("adamw", {"weight_decay": 0.1}),
    ],
)
def test_bits_are_those_of_torch_optim(kind, options, as_tensor):
    ours, theirs = make_parameters(), make_parameters()
    rates = [torch.tensor(0.1) if as_tensor else None for _ in range(2)]
    groups = [([p for k, p in enumerate(ours) if k != 2], 0.1 if rates[0] is None else rates[0]), (ours[2:3], 0.03)]
    optimizer = FusedOptimizer(groups, kind, **options)
    defaults = {} if kind == "sgd" else {"weight_decay": 0.0}
    reference = THEIRS[kind](
        [
            {"params": [p for k, p in enumerate(theirs) if k != 2], "lr": 0.1 if rates[1] is None else rates[1]},
            {"params": theirs[2:3], "lr": 0.03},
        ],
        fused=True,
        **defaults | options,
    )
    take_steps(optimizer, ours, rates[0])
    take_steps(reference, theirs, rates[1])
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, b)
        assert a.stride() == b.stride()
        moments = {name: value for name, value in reference.state[b].items() if value is not None}
        assert optimizer.state[a].keys() == moments.keys()
        assert all(torch.equal(value, moments[name]) for name, value in optimizer.state[a].items())
    assert not torch.equal(ours[0], make_parameters()[0])


def test_a_first_gradient_that_comes_late_starts_its_own_momentum():
    late, reference = nn.Parameter(torch.ones(40)), nn.Parameter(torch.ones(40))
    early = nn.Parameter(torch.ones(40))
    optimizer = FusedOptimizer([([early, late], 0.1)], "sgd", momentum=0.9)
    alone = torch.optim.SGD([reference], 0.1, momentum=0.9, fused=True)
    for step in range(4):
        early.grad = torch.full((40,), 1.0 + step)
        if step:
            late.grad, reference.grad = (torch.linspace(0, step, 40) for _ in range(2))
            alone.step()
        optimizer.step()
    assert torch.equal(late, reference)


def test_every_optimizer_of_a_recipe_has_its_reference():
    assert set(OPTIMIZERS) == set(THEIRS)


COMMANDS = """
import dataclasses, sys
from memscore.estimate import main as estimate
from unlearn.trial import main as trial
bank = "--data digits --arch cnn-4-8 --recipe digits --epochs 1 --train-limit 60 --batch 20 --design iid --models 2 "
assert estimate(f"--store s {bank} --originals 1 --attacks --pool serial".split()) == 0
for algorithm in ("finetune", "bad-teacher"):
    words = f"s --algorithm {algorithm} --set epochs=1 --forget random --size 10 --seeds 1 --pool serial"
    assert trial(words.split()) in (0, 1)
print("imported", sorted({"torch._dynamo", "torch._inductor", "sympy"} & sys.modules.keys()))

# Influence takes gradients by torch.func, which imports the compiler: before the clock of its trial starts.
from unlearn.algorithms import ALGORITHMS
noted, entry = [], ALGORITHMS["influence"]
def note_and_run(*arguments):
    noted.append(set(sys.modules))
    theta = entry.fn(*arguments)
    noted.append(set(sys.modules))
    return theta
ALGORITHMS["influence"] = dataclasses.replace(entry, fn=note_and_run)
few = "--set variant=ihvp-cg iterations=1 --forget random --size 10 --seeds 1 --pool serial"
assert trial(f"s --algorithm influence {few}".split()) in (0, 1)
print("in the clock", sorted(name for name in noted[1] - noted[0] if name.startswith("torch.")))
"""


def test_a_serial_bank_and_a_trial_do_not_import_the_compiler_and_no_clock_measures_an_import(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-c", COMMANDS], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert "imported []" in lines
    assert lines[-1] == "in the clock []"
    assert "deprecated" not in result.stderr
