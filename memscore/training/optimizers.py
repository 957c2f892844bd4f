"""SGD, Adam and AdamW by torch's fused kernels, without torch.optim's classes.

The first optimizer of torch.optim in a process imports torch's compiler, which takes most of a second in every worker
and every trial; its steps do more on the host, too. The functions behind the classes import nothing.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adam import adam
from torch.optim.sgd import sgd


class FusedOptimizer:
    """An optimizer with the bits of torch.optim.SGD, Adam or AdamW, `fused=True`.

    Args:
        groups: parameters and the learning rate of each group, a number or a tensor [] on the parameters' device.
        kind: "sgd", "adam" (L2 added to the gradient) or "adamw" (decoupled weight decay).
        momentum: of SGD.
        nesterov: of SGD.
        weight_decay: of all parameters.

    Attributes:
        param_groups: "params" and "lr" of each group; "lr" may be changed between steps.
        state: for each parameter that has taken a step its moments, tensors that each step changes in place.
    """

    def __init__(
        self,
        groups: Sequence[tuple[Iterable[nn.Parameter], float | Tensor]],
        kind: str,
        *,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        self.param_groups: list[dict[str, Any]] = [{"params": list(params), "lr": lr} for params, lr in groups]
        self.kind, self.momentum, self.nesterov, self.weight_decay = kind, momentum, nesterov, weight_decay
        self.state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of all groups for the next step."""
        for group in self.param_groups:
            group["lr"] = lr

    def zero_grad(self) -> None:
        """Set the gradients of all parameters to None, as torch.optim does by default."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Take one step on each parameter that has a gradient; the others keep value and moments."""
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if self.kind == "sgd":
                self._step_sgd(parameters, group["lr"])
            else:
                self._step_adam(parameters, group["lr"])

    def _step_sgd(self, parameters: Sequence[nn.Parameter], lr: float | Tensor) -> None:
        # The kernel takes one flag for all tensors: whether their momentum starts as the gradient. So parameters with
        # their first gradient go apart from those with a momentum; torch.optim.SGD fails on such a mixture.
        for is_first in (False, True):
            part = [parameter for parameter in parameters if (parameter not in self.state) == is_first]
            moments = [None if is_first else self.state[parameter]["momentum_buffer"] for parameter in part]
            sgd(
                part,  # type: ignore[arg-type]
                [parameter.grad for parameter in part],  # type: ignore[misc]
                moments if self.momentum else [],
                fused=True,
                weight_decay=self.weight_decay,
                momentum=self.momentum,
                lr=lr,
                dampening=0.0,
                nesterov=self.nesterov,
                maximize=False,
            )
            # On a first step sgd has put the new momenta into the list.
            if is_first and self.momentum:
                for parameter, moment in zip(part, moments, strict=True):
                    self.state[parameter]["momentum_buffer"] = moment

    def _step_adam(self, parameters: Sequence[nn.Parameter], lr: float | Tensor) -> None:
        for parameter in parameters:
            if parameter not in self.state:
                # The count of steps is on the device, where a CUDA graph can increment it.
                self.state[parameter] = {
                    "step": torch.zeros((), device=parameter.device),
                    "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                    "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                }
        states = [self.state[parameter] for parameter in parameters]
        adam(
            list(parameters),
            [parameter.grad for parameter in parameters],  # type: ignore[misc]
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            decoupled_weight_decay=self.kind == "adamw",
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=lr,
            weight_decay=self.weight_decay,
            eps=1e-8,
            maximize=False,
        )
