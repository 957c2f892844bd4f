"""What a step does without a wait of the host for the device, and that masks give the bits of indices."""

from collections import Counter

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests.fixtures.problems import copy_state, make_tiny_problem, run_algorithm
from unlearn.algorithms import ALGORITHMS
from unlearn.optimization import loop as loop_module
from unlearn.optimization.loop import TrainingDiverged, UnlearningLoop, UnlearningLoopConfig, copy_to_host

WAITING = {"nonzero", "_local_scalar_dense", "masked_select"}
STEPPING = [
    name
    for name, entry in ALGORITHMS.items()
    if "epochs" in entry.config.__dataclass_fields__ and name != "scrub-rewind"
]
"""Algorithms with epochs; scrub-rewind evaluates the forget set after each, for which it waits."""


class CountWaits(TorchDispatchMode):
    """Count operations for whose result or size the host waits on a GPU."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        indices = args[1] if name.startswith("index") and isinstance(args[1], (list, tuple)) else ()
        if name in WAITING or any(index is not None and index.dtype == torch.bool for index in indices):
            self.counts[name] += 1
        return function(*args, **kwargs or {})


class IndexedLoop(UnlearningLoop):
    """The loop with masks as indices."""

    def _backpropagate(self, loss):
        self.optimizer.zero_grad()
        loss.backward()
        for parameter, fixed, _ in self.masked:
            parameter.grad[fixed] = 0

    @torch.no_grad()
    def _update(self):
        self.optimizer.param_groups[0]["lr"] = self.lr
        self.optimizer.step()
        for parameter, fixed, initial in self.masked:
            parameter[fixed] = initial[fixed]
            for moment in self.optimizer.state[parameter].values():
                if moment.shape == fixed.shape:
                    moment[fixed] = 0


def train_masked(kind, optimizer, loop_class=UnlearningLoop, steps=5):
    problem = make_tiny_problem(kind)
    theta, rng = problem.theta_o, torch.Generator().manual_seed(0)
    mask = {name: torch.rand(p.shape, generator=rng) < 0.5 for name, p in theta.named_parameters()}
    config = UnlearningLoopConfig(lr=0.1, weight_decay=0.1, optimizer=optimizer)
    loop = loop_class(theta, config, mask=mask)
    images, labels = problem.retain.take(torch.arange(16)), problem.retain.labels[:16]
    loop.run(nn.functional.cross_entropy(theta(images), labels) for _ in range(steps))
    return loop


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("kind", ["cnn", "batch-norm"])
def test_masked_steps_have_the_bits_of_indices(kind, optimizer):
    masked, indexed = (train_masked(kind, optimizer, loop_class) for loop_class in (UnlearningLoop, IndexedLoop))
    state, expected = copy_state(masked.theta), copy_state(indexed.theta)
    assert all(torch.equal(value, expected[name]) for name, value in state.items())
    for (ours, _, _), (theirs, _, _) in zip(masked.masked, indexed.masked, strict=True):
        moments = indexed.optimizer.state[theirs]
        assert moments
        assert all(torch.equal(value, moments[name]) for name, value in masked.optimizer.state[ours].items())


def count_waits(run, monkeypatch):
    # The value of the loss is read once a step, by a copy that waits for the forward pass alone.
    monkeypatch.setattr(loop_module, "copy_to_host", lambda value: lambda: 0.0)
    with CountWaits() as waits:
        run()
    return waits.counts


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_masked_steps_wait_for_nothing(optimizer, monkeypatch):
    one, nine = (count_waits(lambda n=n: train_masked("cnn", optimizer, steps=n), monkeypatch) for n in (1, 9))
    assert one == nine
    assert "nonzero" not in one


@pytest.mark.parametrize("name", STEPPING)
def test_no_algorithm_waits_at_each_step(name, monkeypatch):
    problem = make_tiny_problem("cnn")
    two, four = (count_waits(lambda n=n: run_algorithm(name, problem, epochs=n), monkeypatch) for n in (2, 4))
    assert two == four


def test_the_loss_is_read_after_the_backward_pass_and_before_the_step(monkeypatch):
    noted, theta = [], nn.Linear(2, 1)

    def note_copy(value):
        noted.append("copy")

        def read():
            noted.append("read")
            return value.item()

        return read

    def losses():
        for number in range(2):
            loss = theta(torch.ones(1, 2)).sum() * (1.0 if number == 0 else torch.nan)
            loss.register_hook(lambda _: noted.append("backward"))
            yield loss

    monkeypatch.setattr(loop_module, "copy_to_host", note_copy)
    with pytest.raises(TrainingDiverged) as error:
        UnlearningLoop(theta, UnlearningLoopConfig(), step_callback=lambda *_: noted.append("step")).run(losses())
    assert noted == ["copy", "backward", "read", "step", "copy", "backward", "read"]
    assert error.value.step == 2
    assert all(p.isfinite().all() and p.grad is None for p in theta.parameters())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here")
def test_a_value_is_copied_from_a_gpu_without_synchronizing_it():
    value = torch.full((), 0.1, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        read = copy_to_host(value)
        value.fill_(2)  # launched later, so it is not what is read
        assert read() == pytest.approx(0.1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
