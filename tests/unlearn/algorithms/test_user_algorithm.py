"""Algorithms of the user's own by module:function: their forms, what is checked, and what their users read."""

import importlib

import pytest
import torch

from tests.fixtures.problems import copy_state, have_same_weights, make_tiny_problem, run_algorithm
from unlearn.algorithms import get_algorithm
from unlearn.optimization.loop import TrainingDiverged
from unlearn.search_space import LogUniform
from unlearn.tuning.methods import parse_fixed_params, parse_plan

OWN = '''"""Algorithms of a user's own."""
import copy
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn.functional import cross_entropy

from unlearn.algorithms.finetune import FineTuneConfig, finetune
from unlearn.optimization.loop import UnlearningLoopConfig
from unlearn.problem import BatchSampler
from unlearn.search_space import LogUniform

def simple(model, retain, forget):
    assert model.training
    for images, labels in retain:
        loss = cross_entropy(model(images), labels)
        for p, g in zip(model.parameters(), torch.autograd.grad(loss, list(model.parameters()))):
            p.data.sub_(g, alpha=0.1)
    return model

def contract(theta_o, retain, forget, config: FineTuneConfig, rng, step_callback=None):
    return finetune(theta_o, retain, forget, config, rng)

@dataclass(frozen=True, kw_only=True)
class Config(UnlearningLoopConfig):
    epochs: int = 2
    batch: int = 16
    lr: float = 0.03
    SPACE: ClassVar = {"lr": LogUniform(low=1e-3, high=0.1, source="mine")}

def steps(theta, retain, forget, config: Config, rng, validation):
    assert len(validation)
    batches = BatchSampler(retain, config.batch, rng)
    for _ in range(config.epochs):
        for images, labels in batches:
            yield cross_entropy(theta(images), labels)

def two(model, retain): ...
def other(model, retain, forget, budget): ...
def untyped(model, retain, forget, config): ...

@dataclass
class NoDefault:
    lr: float

@dataclass
class Unreadable:
    layers: list[int] | None = None

@dataclass
class Widths:
    lr: float = 0.1
    SPACE: ClassVar = {"width": 3}

def no_default(model, retain, forget, config: NoDefault): ...
def unreadable(model, retain, forget, config: Unreadable): ...
def widths(model, retain, forget, config: Widths): ...
def yields_without(model, retain, forget):
    yield 1

def broken(model, retain, forget):
    return model(forget)

def ends(model, retain, forget):
    raise SystemExit(4)

def ends_its_steps(theta, retain, forget, config: Config):
    for images, labels in retain:
        yield cross_entropy(theta(images), labels)
        raise GeneratorExit

def nothing(model, retain, forget): ...

def renamed(model, retain, forget):
    return torch.nn.Sequential(model)

def halved(model, retain, forget):
    return model.half()

def changes_theta_o(theta_o, retain, forget, rng):
    with torch.no_grad():
        next(theta_o.parameters()).add_(1)
    return copy.deepcopy(theta_o)

def yields_numbers(theta, retain, forget, config: Config):
    yield 0.5

def explodes(theta, retain, forget, config: Config):
    for images, labels in retain:
        yield cross_entropy(theta(images), labels) * float("inf")
'''


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    path = tmp_path / "own_unlearning.py"
    path.write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    return path


@pytest.mark.parametrize("name", ["simple", "contract", "steps"])
def test_each_form_keeps_the_contract_and_theta_o(name):
    problem = make_tiny_problem("batch-norm")
    before = copy_state(problem.theta_o)
    entry = get_algorithm(f"own_unlearning:{name}")
    assert entry.reads_validation == (name == "steps")
    theta_u = run_algorithm(f"own_unlearning:{name}", problem, kind="batch-norm")
    assert all(torch.equal(before[key], value) for key, value in copy_state(problem.theta_o).items())
    assert not problem.theta_o.training
    assert not any(module.training for module in theta_u.modules())
    assert not have_same_weights(theta_u, problem.theta_o)
    again = run_algorithm(f"own_unlearning:{name}", make_tiny_problem("batch-norm"), kind="batch-norm")
    assert have_same_weights(theta_u, again)
    assert problem.retain.read_counter.examples == 54 * (1 if name == "simple" else 2)


def test_the_contract_and_the_generator_are_the_tables_algorithm_bit_for_bit():
    expected = run_algorithm("finetune", make_tiny_problem(), lr=0.03)
    for name in ("contract", "steps"):
        assert have_same_weights(expected, run_algorithm(f"own_unlearning:{name}", make_tiny_problem(), lr=0.03))


def test_its_config_is_searched_and_set():
    config = get_algorithm("own_unlearning:steps").config
    assert {"lr": LogUniform(low=1e-3, high=0.1, source="mine")} == config.SPACE
    assert get_algorithm("own_unlearning:simple").config().SPACE == {}
    assert parse_fixed_params(["own_unlearning:steps.lr=0.5", "finetune.epochs=3"], "mlp") == {
        "own_unlearning:steps": {"lr": 0.5},
        "finetune": {"epochs": 3},
    }
    assert parse_plan("nothing>own_unlearning:steps>salun", 3) == ("original", "own_unlearning:steps", "salun")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_unlearning:absent", r"own_unlearning has no absent \(it has simple, "),
        ("own_unlearning:two", r"takes \(model, retain\); it must take the network, the retain set and the forget set"),
        ("own_unlearning:other", r"takes \(model, retain, forget, budget\); .* may take config, rng, validation"),
        ("own_unlearning:untyped", "takes config, and nothing says what it is; annotate it with a frozen dataclass"),
        ("own_unlearning:no_default", "lr of NoDefault has no default; give it one"),
        ("own_unlearning:unreadable", "layers of Unreadable must be int, float, bool, str"),
        ("own_unlearning:widths", r"SPACE of Widths must be a dict of its fields \(lr\), got \['width'\]"),
        ("own_unlearning:yields_without", "yields losses, so its config must say how the steps are taken"),
        ("finetun", r"unknown algorithm 'finetun'; did you mean 'finetune'\? \(known: .*module:function"),
    ],
)
def test_what_is_no_algorithm_is_refused_before_it_runs(name, message):
    with pytest.raises(ValueError, match=message):
        get_algorithm(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken", r"algorithm own_unlearning:broken fails in line 63 of own_unlearning\.py: TypeError: "),
        ("ends", r"algorithm own_unlearning:ends fails in line 66 of own_unlearning\.py: SystemExit: 4"),
        ("ends_its_steps", r"fails in line 71 of own_unlearning\.py: GeneratorExit"),
        ("nothing", "must return the unlearned network, got NoneType; end it with `return model`"),
        ("renamed", "must return a network like theta_o, and it lacks body"),
        ("halved", r"its body\.\S+ is torch\.float16 .* not torch\.float32"),
        ("changes_theta_o", r"changed theta_o \(its .* is another\), which is needed again; start with"),
        ("yields_numbers", "must yield losses, scalar tensors that depend on the network's weights, got float"),
    ],
)
def test_what_breaks_the_contract_is_one_line(name, message):
    problem = make_tiny_problem()
    before = copy_state(problem.theta_o)
    with pytest.raises(ValueError, match=message):
        run_algorithm(f"own_unlearning:{name}", problem)
    assert all(torch.equal(before[key], value) for key, value in copy_state(problem.theta_o).items())


def test_a_diverged_run_is_no_failure():
    with pytest.raises(TrainingDiverged):
        run_algorithm("own_unlearning:explodes", make_tiny_problem())
