"""The one optimisation loop that algorithms share: an algorithm yields losses, the loop takes a step for each.

    theta = copy_model(theta_o)

    def losses():
        for images, labels in batches:
            yield cross_entropy(theta(images), labels)

    return Descent(theta, config, watch=watch).run(losses())

What algorithms get wrong in the reference codes is settled here once: what is frozen stays bit for bit what it was
(momentum and weight decay move it otherwise), batch-norm statistics follow a stated policy, a loss that is no number
ends the run by name, and theta_o is never touched.
"""

import copy
import math
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from memscore.training.loop import keep_gradient_layout
from memscore.training.numerics import is_finite

StepCallback = Callable[[int, nn.Module], object]
"""Called after each step with its number, from 1, and the network; a true answer ends the run."""


@dataclass(frozen=True, kw_only=True)
class UnlearningLoopConfig:
    """What every algorithm that takes steps has; checks itself.

    Attributes:
        epochs: passes, over what the algorithm says.
        lr: constant unless the algorithm says otherwise.
        batch: examples a batch.
        optimizer: "sgd" or "adam".
        momentum: of SGD.
        weight_decay: L2, on all trained weights.
        batch_norm: "train": running statistics follow the batches, as in the released codes; "frozen": they stay
            theta_o's, and batches are normalised by them.
    """

    epochs: int = 10
    lr: float = 0.01
    batch: int = 256
    optimizer: Literal["sgd", "adam"] = "sgd"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_norm: Literal["train", "frozen"] = "train"

    def __post_init__(self) -> None:
        rules = (
            ("epochs", self.epochs >= 1, "1 or more"),
            ("lr", 0 < self.lr < math.inf, "above 0 and finite"),
            ("batch", self.batch >= 1, "1 or more"),
            ("optimizer", self.optimizer in {"sgd", "adam"}, "sgd or adam"),
            ("momentum", 0 <= self.momentum < 1, "in [0, 1)"),
            ("weight_decay", 0 <= self.weight_decay < math.inf, "0 or more and finite"),
            ("batch_norm", self.batch_norm in {"train", "frozen"}, "train or frozen"),
        )
        for name, holds, rule in rules:
            require(type(self).__name__, name, getattr(self, name), rule, holds=holds)


def require(config: str, name: str, value: object, rule: str, *, holds: bool) -> None:
    """Refuse a value of a config that breaks its rule."""
    if not holds:
        raise ValueError(f"{name} of {config} must be {rule}, got {value}")


class TrainingDiverged(ArithmeticError):
    """A loss, or at the end a weight, was not a finite number.

    Attributes:
        step: the step with that loss, which was not taken, or the last one; counted from 1.
    """

    def __init__(self, step: int, loss: float, way_out: str = "try a smaller lr") -> None:
        super().__init__(f"the loss of step {step} is {loss}; {way_out}")
        self.step = step


class UnlearningLoop:
    """One optimizer over a network's weights, and the loop.

    Args:
        theta: a copy of theta_o; changed in place.
        config: rate, optimizer, batch-norm policy.
        watch: sees each step.
        trained: names of the parameters that may change; None for all. Batch norms none of whose parameters may change
            keep their running statistics.
        mask: for some parameters, by name, bool of their shape: False coordinates stay bit for bit what they are now.
        beside: another network that learns from the same losses, with its own rate (SURE's discriminator).

    Attributes:
        lr: the rate of the next step, which an algorithm may change between two losses.
    """

    def __init__(
        self,
        theta: nn.Module,
        config: UnlearningLoopConfig,
        *,
        watch: StepCallback | None = None,
        trained: Collection[str] | None = None,
        mask: Mapping[str, Tensor] | None = None,
        beside: tuple[nn.Module, float] | None = None,
    ) -> None:
        self.theta, self.config, self.watch, self.lr = theta, config, watch, config.lr
        named = dict(theta.named_parameters())
        self.trained = set(named if trained is None else trained)
        masked = {name: kept for name, kept in (mask or {}).items() if name in self.trained and not bool(kept.all())}
        self.masked = [(named[name], ~kept, named[name].detach().clone()) for name, kept in masked.items()]
        groups = [{"params": [named[name] for name in named if name in self.trained], "lr": config.lr}]
        if beside:
            groups.append({"params": list(beside[0].parameters()), "lr": beside[1]})
        if config.optimizer == "adam":
            self.optimizer: torch.optim.Optimizer = torch.optim.Adam(
                groups, weight_decay=config.weight_decay, fused=True
            )
        else:
            self.optimizer = torch.optim.SGD(
                groups, momentum=config.momentum, weight_decay=config.weight_decay, fused=True
            )
        self.beside = beside[0] if beside else None

    def run(self, losses: Iterator[Tensor]) -> nn.Module:
        """Take one step down each loss, until there are no more or the watch has seen enough.

        Args:
            losses: scalars with their graph; the next is asked for when the step on the last one is done.

        Returns:
            theta, in evaluation mode.

        Raises:
            TrainingDiverged: a loss is not finite, and theta's weights are as they were before it; or the last step
                left a weight or a running statistic that is not.
        """
        step = 0
        with self._training():
            for loss in losses:
                step += 1
                value = float(loss.detach())
                if not math.isfinite(value):
                    raise TrainingDiverged(step, value)
                self._step(loss)
                if self.watch is not None and self.watch(step, self.theta):
                    break
        if isinstance(losses, Generator):
            losses.close()
        if not is_finite(self.theta):
            raise TrainingDiverged(step, math.nan)
        return self.theta.eval()

    def _step(self, loss: Tensor) -> None:
        """One step of the optimizer; what is masked does not move, and has no momentum that could move it later."""
        self.optimizer.param_groups[0]["lr"] = self.lr
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        for parameter, frozen, _ in self.masked:
            if parameter.grad is not None:
                parameter.grad[frozen] = 0
        self.optimizer.step()
        with torch.no_grad():
            for parameter, frozen, before in self.masked:
                parameter[frozen] = before[frozen]
                for moment in self.optimizer.state[parameter].values():
                    if isinstance(moment, Tensor) and moment.shape == frozen.shape:
                        moment[frozen] = 0

    @contextmanager
    def _training(self) -> Generator[None, None, None]:
        """Training mode, with gradients for what may change, and batch norms as the policy has them."""
        wanted = {name: parameter.requires_grad for name, parameter in self.theta.named_parameters()}
        for name, parameter in self.theta.named_parameters():
            parameter.requires_grad_(name in self.trained)
        four = any(parameter.ndim == 4 for parameter in self.theta.parameters())
        if four:
            self.theta.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.theta.train()
        if self.beside is not None:
            self.beside.train()
        hooks = [
            layer.register_forward_pre_hook(self._batch_norm_rule(name, layer))
            for name, layer in self.theta.named_modules()
            if isinstance(layer, _BatchNorm)
        ]
        try:
            with keep_gradient_layout(self.theta) if four else nullcontext():
                yield
        finally:
            for hook in hooks:
                hook.remove()
            self.optimizer.zero_grad(set_to_none=True)
            for name, parameter in self.theta.named_parameters():
                parameter.requires_grad_(wanted[name])

    def _batch_norm_rule(self, name: str, own: nn.Module) -> Callable[[nn.Module, tuple[Tensor]], None]:
        """Whether this layer normalises by the batch: by policy, if it is trained, and if the batch has a variance."""
        follows = self.config.batch_norm == "train" and any(t.startswith(f"{name}.") for t in self.trained)

        def settle(layer: nn.Module, given: tuple[Tensor]) -> None:
            several = given[0].numel() > given[0].shape[1]  # one value a channel has no variance
            if layer is own:  # a copy that the watch made has this hook too, and a mode of its own
                layer.training = self.theta.training and follows and several

        return settle


def finish_one_shot(theta: nn.Module, watch: StepCallback | None, way_out: str) -> nn.Module:
    """The end of an algorithm whose one change has been made: the watch sees it as the first and last step.

    Args:
        theta: a changed copy of theta_o.
        watch: called once, with step 1 and theta in training mode, as Descent calls it.
        way_out: what to try if theta is not finite.

    Returns:
        theta, in evaluation mode.

    Raises:
        TrainingDiverged: a weight is not finite.
    """
    if not is_finite(theta):
        raise TrainingDiverged(1, math.nan, way_out)
    if watch is not None:
        watch(1, theta.train())
    return theta.eval()


def copy_model(theta: nn.Module) -> nn.Module:
    """A deep copy: no weight and no running statistic is shared."""
    return copy.deepcopy(theta)


def copy_frozen(theta: nn.Module) -> nn.Module:
    """A deep copy that only answers: evaluation mode, no gradients."""
    return copy_model(theta).eval().requires_grad_(False)
