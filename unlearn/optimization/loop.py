"""The optimization loop that algorithms share: an algorithm yields losses, the loop takes a step for each.

    theta = copy_model(theta_o)

    def losses():
        for images, labels in batches:
            yield cross_entropy(theta(images), labels)

    return UnlearningLoop(theta, config, step_callback=step_callback).run(losses())

The loop avoids errors of the reference codes: frozen weights do not change in any bit (otherwise momentum and weight
decay move them), batch-norm statistics follow a stated policy, a loss that is not finite raises TrainingDiverged, and
theta_o is never changed.
"""

import copy
import math
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from memscore.training.loop import keep_gradient_layout
from memscore.training.numerics import is_finite
from memscore.training.optimizers import FusedOptimizer
from unlearn.optimization.step_count import count_steps_taken

FROM_DATA: Any = None
"""Default of a number that follows from the data: `unlearn.optimization.steps.resolve_steps` puts it in its place."""
StepCallback = Callable[[int, nn.Module], object]
"""Called after each step with its number, from 1, and the network; returning a true value ends the run."""


@dataclass(frozen=True, kw_only=True)
class UnlearningLoopConfig:
    """Options that all algorithms with optimizer steps share.

    PAPER are the paper's numbers of an algorithm, in place of those that follow from the data; FORGET_ONLY says that
    its passes are over the forget set alone.

    Attributes:
        epochs: number of passes; each algorithm defines over which set.
        lr: learning rate, constant unless the algorithm defines a schedule.
        batch: examples per batch.
        optimizer: "sgd" or "adam".
        momentum: of SGD.
        weight_decay: L2, on all trainable weights.
        batch_norm: "train": running statistics follow the batches, as in the released codes; "frozen": theta_o's
            running statistics do not change and normalise the batches.
    """

    epochs: int = FROM_DATA
    lr: float = 0.01
    batch: int = FROM_DATA
    optimizer: Literal["sgd", "adam"] = "sgd"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_norm: Literal["train", "frozen"] = "train"

    PAPER: ClassVar[Mapping[str, Any]] = {}
    FORGET_ONLY: ClassVar[bool] = False

    def __post_init__(self) -> None:
        rules = (
            ("epochs", self.epochs is None or self.epochs >= 1, "1 or more"),
            ("lr", 0 < self.lr < math.inf, "above 0 and finite"),
            ("batch", self.batch is None or self.batch >= 1, "1 or more"),
            ("optimizer", self.optimizer in {"sgd", "adam"}, "sgd or adam"),
            ("momentum", 0 <= self.momentum < 1, "in [0, 1)"),
            ("weight_decay", 0 <= self.weight_decay < math.inf, "0 or more and finite"),
            ("batch_norm", self.batch_norm in {"train", "frozen"}, "train or frozen"),
        )
        for name, holds, rule in rules:
            require(type(self).__name__, name, getattr(self, name), rule, holds=holds)


def require(config: str, name: str, value: object, rule: str, *, holds: bool) -> None:
    """Raise ValueError that names config, field, rule and value, unless the rule holds."""
    if not holds:
        raise ValueError(f"{name} of {config} must be {rule}, got {value}")


class TrainingDiverged(ArithmeticError):
    """A loss, or at the end a weight, was not a finite number.

    Attributes:
        step: the step with that loss, which was not taken, or the last step; counted from 1.
    """

    def __init__(self, step: int, loss: float, hint: str = "try a smaller lr") -> None:
        super().__init__(f"the loss of step {step} is {loss}; {hint}")
        self.step = step


class UnlearningLoop:
    """An optimizer over a network's weights and its training loop.

    Args:
        theta: a copy of theta_o; changed in place.
        config: learning rate, optimizer, batch-norm policy.
        step_callback: called after each step.
        trainable: names of the parameters that may change; None for all. Batch norms none of whose parameters may
            change keep their running statistics.
        mask: for some parameters, by name, bool of their shape: where False, a weight does not change in any bit.
        adversary: another network trained on the same losses, and its learning rate (SURE's discriminator).

    Attributes:
        lr: learning rate of the next step; an algorithm may change it between two losses.
    """

    def __init__(
        self,
        theta: nn.Module,
        config: UnlearningLoopConfig,
        *,
        step_callback: StepCallback | None = None,
        trainable: Collection[str] | None = None,
        mask: Mapping[str, Tensor] | None = None,
        adversary: tuple[nn.Module, float] | None = None,
    ) -> None:
        self.theta, self.config, self.step_callback, self.lr = theta, config, step_callback, config.lr
        parameters = dict(theta.named_parameters())
        self.trainable = set(parameters if trainable is None else trainable)
        # A mask without a False changes nothing and would cost copies in each step; nor does a weight that does not
        # train need one. Kept for each of the others: the parameter, which of its weights stay, their initial values.
        masked = {name: free for name, free in (mask or {}).items() if name in self.trainable and not bool(free.all())}
        self.masked = [(parameters[name], ~free, parameters[name].detach().clone()) for name, free in masked.items()]
        # Group 0 is theta's, whose learning rate _update sets; an adversary is group 1 and keeps its constant learning
        # rate.
        groups = [([parameters[name] for name in parameters if name in self.trainable], config.lr)]
        if adversary:
            groups.append((list(adversary[0].parameters()), adversary[1]))
        self.optimizer = FusedOptimizer(
            groups, config.optimizer, momentum=config.momentum, weight_decay=config.weight_decay
        )
        self.adversary = adversary[0] if adversary else None

    def run(self, losses: Iterator[Tensor]) -> nn.Module:
        """Take one optimizer step per loss until the iterator ends or the callback returns true.

        Args:
            losses: scalars with their graph; the next loss is drawn after the step on the previous one.

        Returns:
            theta, in evaluation mode.

        Raises:
            TrainingDiverged: a loss is not finite, and theta has the weights before that step; or the last step left a
                weight or a running statistic that is not finite.
        """
        step = 0
        with self._training():
            for loss in losses:
                step += 1
                read_value = copy_to_host(loss.detach())
                self._backpropagate(loss)
                # Checked before the step: theta keeps its last finite weights, which the caller may still inspect.
                if not math.isfinite(value := read_value()):
                    raise TrainingDiverged(step, value)
                self._update()
                count_steps_taken()
                if self.step_callback is not None and self.step_callback(step, self.theta):
                    break
        # After a break the generator is suspended at its yield: close it now, so that its `finally` blocks run here and
        # not when it is collected.
        if isinstance(losses, Generator):
            losses.close()
        # No later loss shows what the last step did, so the weights are checked themselves.
        if not is_finite(self.theta):
            raise TrainingDiverged(step, math.nan)
        return self.theta.eval()

    def _backpropagate(self, loss: Tensor) -> None:
        """Compute the gradients, 0 for masked weights."""
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for parameter, fixed, _ in self.masked:
            if parameter.grad is not None:
                parameter.grad.masked_fill_(fixed, 0)

    @torch.no_grad()
    def _update(self) -> None:
        """Take one optimizer step; masked weights do not move and get no momentum that could move them later."""
        self.optimizer.param_groups[0]["lr"] = self.lr
        self.optimizer.step()
        # Zero gradients are not enough: weight decay and moments move a weight without one. So the initial values are
        # written back, bit for bit, and the moments set to 0. Adam's step count, of shape [], is left as it is. No mask
        # is an index: the number of elements that it selects is known on the device only, and the host would wait.
        for parameter, fixed, initial in self.masked:
            torch.where(fixed, initial, parameter, out=parameter)
            for moment in self.optimizer.state[parameter].values():
                if moment.shape == fixed.shape:
                    moment.masked_fill_(fixed, 0)

    @contextmanager
    def _training(self) -> Generator[None, None, None]:
        """Set training mode, gradients of trainable weights only, and the batch-norm policy, within the context."""
        requires_grad = {name: parameter.requires_grad for name, parameter in self.theta.named_parameters()}
        # A frozen weight gets no gradient, which saves its part of the backward pass.
        for name, parameter in self.theta.named_parameters():
            parameter.requires_grad_(name in self.trainable)
        has_convolutions = any(parameter.ndim == 4 for parameter in self.theta.parameters())
        # Images come in channels last; convolutions are fast if their weights and gradients have that layout too.
        if has_convolutions:
            self.theta.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        # One layout: an operation on two takes ten times as long. preserve_format gives a copy the weight's strides.
        self.masked = [
            (p, torch.empty_like(p, dtype=torch.bool).copy_(fixed), torch.empty_like(p).copy_(initial).detach())
            for p, fixed, initial in self.masked
        ]
        self.theta.train()
        if self.adversary is not None:
            self.adversary.train()
        # Hooks, not layer.eval(): algorithms and callbacks switch modes of the whole network between steps, and the
        # policy must hold in every forward pass.
        hooks = [
            layer.register_forward_pre_hook(self._batch_norm_rule(name, layer))
            for name, layer in self.theta.named_modules()
            if isinstance(layer, _BatchNorm)
        ]
        try:
            with keep_gradient_layout(self.theta) if has_convolutions else nullcontext():
                yield
        finally:
            for hook in hooks:
                hook.remove()
            self.optimizer.zero_grad()
            for name, parameter in self.theta.named_parameters():
                parameter.requires_grad_(requires_grad[name])

    def _batch_norm_rule(self, name: str, norm: nn.Module) -> Callable[[nn.Module, tuple[Tensor]], None]:
        """Build the hook that sets a batch norm's mode: by policy, by its being trainable, by the size of the batch."""
        updates_statistics = self.config.batch_norm == "train" and any(t.startswith(f"{name}.") for t in self.trainable)

        def set_mode(layer: nn.Module, inputs: tuple[Tensor]) -> None:
            # One value per channel, as in a last batch of one example, has no variance, and torch raises ValueError:
            # it is normalised by the running statistics instead.
            has_variance = inputs[0].numel() > inputs[0].shape[1]
            # A deep copy that a callback makes has this hook too; a copy in evaluation mode must stay in it.
            if layer is norm:
                layer.training = self.theta.training and updates_statistics and has_variance

        return set_mode


def copy_to_host(value: Tensor) -> Callable[[], float]:
    """Start to copy a scalar to the host, and return a function that waits for the copy and gives it."""
    if value.device.type != "cuda":
        return value.item
    # Not item(): it waits for all that has been launched by the time it is called. The copy follows what computes the
    # value and comes before what is launched next, so that the GPU computes while the host waits for the copy alone.
    on_host = torch.empty_like(value, device="cpu", pin_memory=True).copy_(value, non_blocking=True)
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record()  # type: ignore[no-untyped-call]

    def read() -> float:
        copied.synchronize()  # type: ignore[no-untyped-call]
        return float(on_host)

    return read


def finish_one_shot(theta: nn.Module, step_callback: StepCallback | None, hint: str) -> nn.Module:
    """Raise TrainingDiverged if theta is not finite, else call the callback as step 1; return it in evaluation mode."""
    if not is_finite(theta):
        raise TrainingDiverged(1, math.nan, hint)
    if step_callback is not None:
        # In training mode, as UnlearningLoop calls it, so that a callback need not know which kind of algorithm runs.
        step_callback(1, theta.train())
    return theta.eval()


def copy_model(theta: nn.Module) -> nn.Module:
    """Return a deep copy that shares no weight and no running statistic."""
    return copy.deepcopy(theta)


def copy_frozen(theta: nn.Module) -> nn.Module:
    """Return a deep copy in evaluation mode without gradients."""
    return copy_model(theta).eval().requires_grad_(False)
