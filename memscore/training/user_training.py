"""A recipe's optimizer and schedule where they are functions of the user's own.

Their source is part of the recipe: a bank is never continued with another one. Imports torch only to build an
optimizer, since recipes are read where torch is not needed.
"""

import math
from functools import cache
from typing import TYPE_CHECKING, Any

from memscore.user_functions import (
    explain_user_error,
    hash_user_source,
    import_user_function,
    require_same_source,
)

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

MEANINGS = {
    "optimizer": "a function of (parameters, lr, recipe) that returns a torch.optim.Optimizer",
    "schedule": "a function of the progress in [0, 1) that returns the factor of lr",
}


def hash_training_source(kind: str, name: str) -> str:
    """Hash the source of a user's optimizer or schedule; ValueError if it cannot be imported or is no function."""
    import_user_function(kind, name, MEANINGS[kind])
    return hash_user_source(kind, name)


@cache
def load_training_function(kind: str, name: str, recorded: str) -> Any:
    """Import a user's optimizer or schedule; ValueError if its source is not the recorded one."""
    function = import_user_function(kind, name, MEANINGS[kind])
    require_same_source(kind, name, recorded, "the bank's recipe")
    return function


def call_schedule(name: str, recorded: str, progress: float) -> float:
    """Return the factor of a user's schedule at this progress, 0 or more.

    Raises:
        UserFunctionError: it fails.
        ValueError: it gives something else, or its source is not the recorded one.
    """
    function = load_training_function("schedule", name, recorded)
    with explain_user_error("schedule", name):
        factor = function(progress)
        valid = 0 <= float(factor) < math.inf
    if not valid:
        raise ValueError(f"schedule {name} must return a finite factor of 0 or more, got {factor} at {progress:g}")
    return float(factor)


class UserOptimizer:
    """A user's torch.optim.Optimizer whose groups follow the recipe's schedule.

    Args:
        name: module:function, for messages.
        optimizer: the user's; a group whose rate is twice the recipe's keeps twice the rate throughout.
        lr: of the recipe.

    Attributes:
        optimizer: the user's.
    """

    def __init__(self, name: str, optimizer: "Optimizer", lr: float) -> None:
        self.name, self.optimizer = name, optimizer
        self.shares = [(group, float(group["lr"]) / lr) for group in optimizer.param_groups]

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of all groups for the next step, each in its share of the recipe's."""
        for group, share in self.shares:
            group["lr"] = lr * share

    def zero_grad(self) -> None:
        """Set the gradients of all parameters to None."""
        self.optimizer.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Take one step; ValueError with the user's line if it fails."""
        with explain_user_error("optimizer", self.name):
            self.optimizer.step()


def build_user_optimizer(model: "nn.Module", recipe: Any) -> UserOptimizer:
    """Return the optimizer of a recipe over all weights.

    The recipe is a memscore.training.recipes.Recipe, whose file imports this one.

    Raises:
        UserFunctionError: the user's function fails.
        ValueError: it returns no optimizer with a learning rate, or is not the recorded one.
    """
    from torch.optim import Optimizer  # the first import in a process takes most of a second

    function = load_training_function("optimizer", recipe.optimizer, recipe.optimizer_sha256)
    with explain_user_error("optimizer", recipe.optimizer):
        optimizer = function(model.parameters(), recipe.lr, recipe)
    if not isinstance(optimizer, Optimizer):
        raise ValueError(f"optimizer {recipe.optimizer} must return a torch.optim.Optimizer, got {optimizer!r:.80}")
    if not all("lr" in group for group in optimizer.param_groups):
        raise ValueError(f"optimizer {recipe.optimizer} has a group without lr, which the schedule sets; give it one")
    return UserOptimizer(recipe.optimizer, optimizer, recipe.lr)
