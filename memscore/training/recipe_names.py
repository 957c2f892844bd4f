"""Name a stored recipe, which is a record of values: a recipe of the table and what was changed, or the user's own."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from memscore.store.manifest import Manifest, split_architecture
from memscore.training.recipe_changes import change_recipe
from memscore.training.recipes import RECIPES, get_default_recipe_name
from memscore.units import format_count, format_value
from memscore.user_functions import is_user_function

MAX_CHANGED = 2
"""Values that may differ from a recipe of the table for a record without a name of its own to be named by it."""
MAX_SHOWN = 4
"""Values that are listed in a name."""
NO_OPTIONS = {"precision", "crop_padding", "optimizer_sha256", "schedule_sha256"}
"""Fields that follow from the device or a function, or that no option sets."""


class NamedRecipe(NamedTuple):
    """A recipe as the options that give it.

    Attributes:
        name: of the table, or module:function.
        changes: option -> value, in the place of the recipe's.
    """

    name: str
    changes: dict[str, Any]


def find_named_recipe(manifest: Manifest, origin: Mapping[str, Any]) -> NamedRecipe:
    """Find the options that give the recipe of a bank.

    Args:
        manifest: of the bank, with the recipe's values.
        origin: of data.json: "recipe" is the recipe's name, if it is known, "recipe_options" are the options.

    Returns:
        The recipe of that name, else the one of the table that differs least; of equal ones the default, or the first.
    """
    name = origin.get("recipe")
    if name and is_user_function(name):  # code, which is not run to find out what it gives
        return NamedRecipe(name, dict(origin.get("recipe_options") or {}))
    known = {each: find_changes(manifest.recipe, each) for each in ([name] if name in RECIPES else RECIPES)}
    with suppress(ValueError):  # a network without a default
        default = get_default_recipe_name(manifest.data, split_architecture(manifest.architecture)[0])
        known = {default: known[default], **known} if default in known else known
    # min takes the first of equals
    nearest = min(known, key=lambda each: len(known[each]))
    return NamedRecipe(nearest, known[nearest])


def find_changes(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Find the options that make a record's values of a recipe of the table: option -> value."""
    same_epochs = record.get("epochs") in {None, RECIPES[name].epochs}
    changes = {} if same_epochs else {"epochs": record["epochs"]}
    # what other epochs scale is no change of its own
    base = change_recipe(RECIPES[name], name, changes)
    for field, value in record.items():
        plain = tuple(value) if isinstance(value, list) else value
        if field not in NO_OPTIONS and getattr(base, field, None) != plain:
            changes[field] = plain
    # --optimizer needs a learning rate of its own, also where it is the recipe's
    if "optimizer" in changes and "lr" in record:
        changes["lr"] = record["lr"]
    # these say nothing of another optimizer or schedule, and are no options of it
    unused = {"momentum", "nesterov"} if record.get("optimizer") in {"adam", "adamw"} else set()
    unused |= set() if record.get("schedule") == "steps" else {"milestones", "gamma"}
    return {field: value for field, value in changes.items() if field not in unused}


def format_recipe_name(manifest: Manifest, origin: Mapping[str, Any]) -> str:
    """Format the recipe of a bank in a few words: its name, and the values that were changed.

    Args:
        manifest: of the bank.
        origin: of data.json, as for find_named_recipe.

    Returns:
        Such as "digits with lr 0.2"; "own (adam, 60 epochs)" for one without a name that differs much from the table.
    """
    name, changes = find_named_recipe(manifest, origin)
    if not origin.get("recipe") and len(changes) > MAX_CHANGED:
        return f"own ({manifest.recipe.get('optimizer')}, {format_count(manifest.recipe.get('epochs', 0), 'epoch')})"
    words = [f"{option} {format_value(value, ' ')}" for option, value in changes.items()]
    rest = f" and {len(words) - MAX_SHOWN} more" if len(words) > MAX_SHOWN else ""
    return f"{name} with {', '.join(words[:MAX_SHOWN])}{rest}" if words else name
