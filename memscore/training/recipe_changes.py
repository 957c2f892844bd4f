"""Replace values of a recipe by a user's options, and keep what belongs together in step."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from memscore.choices import validate_choice_or_function
from memscore.training.recipes import OPTIMIZERS, SCHEDULES, Recipe
from memscore.user_functions import is_user_function


def change_recipe(recipe: Recipe, name: str, changes: Mapping[str, Any]) -> Recipe:
    """Replace values of a recipe.

    With other epochs the schedule keeps its shape: milestones and warm-up that are not given are scaled. What belongs
    to the old optimizer or schedule alone, such as milestones, goes with it.

    Args:
        recipe: the recipe.
        name: its name, for messages.
        changes: field -> value, of the options that the user gave.

    Returns:
        The changed recipe.

    Raises:
        ValueError: a value out of its range; another optimizer without a learning rate of its own; an option that has
            no effect on the optimizer or schedule, each by the name of its flag.
    """
    optimizer, schedule = changes.get("optimizer", recipe.optimizer), changes.get("schedule", recipe.schedule)
    _check_options_used(changes, optimizer, schedule)
    if optimizer != recipe.optimizer and "lr" not in changes:
        raise ValueError(
            f"--optimizer {optimizer} needs an --lr of its own: {recipe.lr:g} of recipe {name} is for "
            f"{recipe.optimizer}; sgd often takes 0.1, adam and adamw 0.001"
        )
    kept: dict[str, Any] = {}
    if "epochs" in changes:
        scale = changes["epochs"], recipe.epochs
        kept["milestones"] = tuple(milestone * scale[0] / scale[1] for milestone in recipe.milestones)
        kept["warmup"] = recipe.warmup * scale[0] / scale[1]
    # What says nothing of the new optimizer or schedule gets its default, so that equal trainings have equal records.
    if optimizer != recipe.optimizer:
        kept |= {"optimizer_sha256": "", "nesterov": False}
    if schedule != recipe.schedule:
        kept |= {"schedule_sha256": "", "milestones": (), "gamma": Recipe.gamma}
        kept |= {"warmup": 0.0} if is_user_function(schedule) else {}
    if schedule == "steps" and not {**kept, **changes}.get("milestones", recipe.milestones):
        raise ValueError(
            "--schedule steps needs --milestones, the epochs at which the learning rate drops, as --milestones 15 25"
        )
    return replace(recipe, **{**kept, **changes})


def _check_options_used(changes: Mapping[str, Any], optimizer: str, schedule: str) -> None:
    """Raise ValueError for an unknown optimizer or schedule, and for options that have no effect on them."""
    validate_choice_or_function("optimizer", optimizer, OPTIMIZERS)
    validate_choice_or_function("schedule", schedule, SCHEDULES)
    for option in ("momentum", "nesterov"):
        # A user's own optimizer may read them from the recipe.
        if changes.get(option) and optimizer != "sgd" and not is_user_function(optimizer):
            raise ValueError(f"--{option} is of sgd, and the optimizer is {optimizer}; leave it out")
    for option in ("milestones", "gamma"):
        if changes.get(option) and schedule != "steps":
            raise ValueError(f"--{option} is of --schedule steps, and the schedule is {schedule}; leave it out")
