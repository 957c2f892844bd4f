"""Names of stored recipes: the options that they say give the record again."""

import json
import shlex
from dataclasses import replace

import pytest

from memscore.cli.options import format_flags
from memscore.pipeline.config import BankConfig, build_recipe, build_recipe_record
from memscore.training.recipe_changes import change_recipe
from memscore.training.recipe_names import find_named_recipe, format_recipe_name
from memscore.training.recipes import RECIPES, get_recipe
from tests.fixtures import banks

OPTIONS = (
    {"lr": 0.2},
    {"epochs": 10},
    {"epochs": 12, "milestones": (3.0, 6.0), "schedule": "steps"},
    {"optimizer": "adam", "lr": 0.001},
    {"optimizer": "sgd", "lr": 0.1, "nesterov": True, "momentum": 0.8},
    {"augment": ("flip",), "batch": 16, "weight_decay": 0.0},
    {"augment": ()},
    {"schedule": "constant", "warmup": 2.0, "label_smoothing": 0.1},
)


def make_manifest(recipe):
    """A bank's manifest, as it is read from its file."""
    record = json.loads(json.dumps(build_recipe_record(recipe)))
    return replace(banks.manifest(), data="own", architecture="mine:net", recipe=record)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", ["digits", "rum-cifar100", "small-vit"])
def test_the_options_of_a_named_recipe_give_its_record_again(name, options):
    recipe = change_recipe(RECIPES[name], name, options)
    bank = make_manifest(recipe)
    for origin in ({}, {"recipe": name}):
        named = find_named_recipe(bank, origin)
        assert build_recipe_record(
            change_recipe(RECIPES[named.name], named.name, named.changes)
        ) == build_recipe_record(recipe)
    assert find_named_recipe(bank, {"recipe": name}).name == name


@pytest.mark.parametrize(
    ("changes", "origin", "text"),
    [
        ({}, {}, "digits"),
        ({"lr": 0.2}, {}, "digits with lr 0.2"),
        ({"epochs": 60}, {}, "digits with epochs 60"),
        ({"lr": 0.2, "batch": 7}, {"recipe": "digits"}, "digits with batch 7, lr 0.2"),
        ({"lr": 0.2, "batch": 7, "weight_decay": 0.0}, {}, "own (sgd, 30 epochs)"),
        (
            {"lr": 0.2, "batch": 7, "weight_decay": 0.0},
            {"recipe": "digits"},
            "digits with batch 7, lr 0.2, weight_decay 0",
        ),
        (
            {"lr": 0.2, "batch": 7, "weight_decay": 0.0, "momentum": 0.8, "augment": ("flip",)},
            {"recipe": "digits"},
            "digits with augment flip, batch 7, lr 0.2, momentum 0.8 and 1 more",
        ),
        ({}, {"recipe": "mine:recipe"}, "mine:recipe"),
        ({"lr": 0.2}, {"recipe": "mine:recipe", "recipe_options": {"lr": 0.2}}, "mine:recipe with lr 0.2"),
    ],
)
def test_a_recipe_is_named_with_what_was_changed(changes, origin, text):
    bank = make_manifest(replace(RECIPES["digits"], **changes))
    assert format_recipe_name(bank, origin) == text


def test_of_equal_recipes_the_user_s_own_name_is_taken():
    bank = make_manifest(get_recipe("scale-cifar10"))
    assert format_recipe_name(bank, {"recipe": "scale-cifar10"}) == "scale-cifar10"
    assert format_recipe_name(bank, {}) == "rum-cifar10"


def test_of_equally_near_recipes_the_default_is_taken():
    bank = make_manifest(replace(RECIPES["digits"], batch=7, lr=0.2))
    assert format_recipe_name(bank, {}) == "rum-cifar10 with batch 7, lr 0.2"
    digits = replace(bank, data="digits", architecture="mlp-32")
    assert format_recipe_name(digits, {}) == "digits with batch 7, lr 0.2"


def test_flags_are_read_as_the_options_that_they_were_made_of():
    assert shlex.join(
        format_flags({"recipe": "digits", "augment": (), "skip_bad": False, "milestones": (1.5, 2.0)})
    ) == ("--recipe digits --augment none --milestones 1.5 2.0")
    config = BankConfig(recipe="rum-cifar100", epochs=30, augment=("none",))
    _, recipe = build_recipe(config, "mlp")
    named = find_named_recipe(make_manifest(recipe), {})
    assert named == ("rum-cifar100", {"epochs": 30, "augment": ()})
