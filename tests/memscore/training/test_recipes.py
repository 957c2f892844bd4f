"""Recipes: the schedules in closed form, and every preset against its paper's numbers typed anew."""

import json
import math
from dataclasses import asdict, replace

import pytest

from memscore.models.architectures import ARCHITECTURES
from memscore.pipeline.config import BankConfig, build_recipe
from memscore.training.recipes import RECIPES, Recipe, compute_lr, count_steps, get_default_recipe_name, get_recipe

PLAIN = Recipe(epochs=30, batch=256, lr=0.1)
BOTH = ("crop", "flip")


def test_a_constant_rate_stays():
    assert {compute_lr(PLAIN, progress) for progress in (0.0, 0.3, 0.999)} == {0.1}


def test_a_cosine_starts_at_lr_halves_at_the_middle_and_ends_near_0():
    cosine = replace(PLAIN, schedule="cosine")
    assert compute_lr(cosine, 0.0) == pytest.approx(0.1, rel=1e-12)
    assert compute_lr(cosine, 0.5) == pytest.approx(0.05, rel=1e-12)
    assert compute_lr(cosine, 1 / 3) == pytest.approx(0.075, rel=1e-12)  # cos 60 degrees is 1/2
    assert 0 < compute_lr(cosine, 0.999) < 1e-5 * 0.1
    learning_rates = [compute_lr(cosine, step / 100) for step in range(100)]
    assert sum(learning_rates) / 100 == pytest.approx(
        0.05 + 0.1 / 200, rel=1e-12
    )  # symmetric about the middle but for step 0


def test_steps_drop_exactly_at_the_milestones():
    dropping = replace(PLAIN, schedule="steps", milestones=(10, 20), gamma=0.2)
    total = 300  # ten steps an epoch
    learning_rates = [compute_lr(dropping, step / total) for step in range(total)]
    assert learning_rates == [0.1] * 100 + [0.1 * 0.2] * 100 + [0.1 * 0.2**2] * 100


@pytest.mark.parametrize("total", [7, 300, 3281, 3691])
def test_a_milestone_acts_on_the_first_step_at_or_after_its_share_of_all_steps(total):
    dropping = replace(PLAIN, schedule="steps", milestones=(10, 15, 29), gamma=0.5)
    drops = [s for s in range(1, total) if compute_lr(dropping, s / total) < compute_lr(dropping, (s - 1) / total)]
    assert drops == sorted({-(-mark * total // 30) for mark in (10, 15, 29)} - {total})


@pytest.mark.parametrize(
    ("keep", "n_train", "expected"),
    [(0.5, 45_000, 2637), (0.7, 45_000, 3691), (1.0, 45_000, 5273), (0.5, 9, 1)],  # 2636.7, 3691.4, 5273.4, 0.53
)
def test_steps_are_epochs_of_the_expected_subset_in_full_batches(keep, n_train, expected):
    assert count_steps(PLAIN, keep, n_train) == expected


def test_fewer_than_one_step_is_refused():
    with pytest.raises(ValueError, match=r"30 epochs of 0\.5 x 8 examples are 0 batches of 256; use a smaller batch"):
        count_steps(PLAIN, 0.5, 8)


@pytest.mark.parametrize("keep", [0.0, -0.5, 1.01, math.nan])
def test_a_share_outside_0_to_1_is_refused(keep):
    with pytest.raises(ValueError, match=r"keep must lie in \(0, 1\], got"):
        count_steps(PLAIN, keep, 1000)


# epochs, batch, lr, schedule, milestones, gamma where it acts, augmentation: read off the papers, not off the module
PUBLISHED = {
    "rum-cifar10": (30, 256, 0.1, "cosine", (), None, ()),
    "scale-cifar10": (30, 256, 0.1, "cosine", (), None, ()),
    "rum-cifar100": (150, 256, 0.1, "steps", (60, 120), 0.2, BOTH),
    "scale-cifar100": (150, 256, 0.1, "steps", (60, 120), 0.2, BOTH),
    "scale-tiny-imagenet": (100, 256, 0.1, "cosine", (), None, BOTH),
    "rum-memorization": (30, 512, 0.01, "steps", (15, 20, 25), 0.1, ()),
    "rsu-mnist": (200, None, 0.1, "steps", (100, 150), 0.1, None),
    "rsu-cifar10": (200, None, 0.1, "steps", (100, 150), 0.1, None),
    "rsu-cifar100": (200, None, 0.1, "steps", (100, 150), 0.1, None),
    "rsu-tiny-imagenet": (200, None, 0.1, "steps", (100, 150), 0.1, None),
    "inst-mnist": (None, 150, 0.001, None, None, None, None),
    "inst-cifar10": (None, 150, 0.01, None, None, None, None),
    "inst-svhn": (None, 64, 0.001, None, None, None, None),
    "sure-cifar10": (150, None, 0.01, "steps", (80, 150), 0.1, ()),
    "sure-cinic10": (150, None, 0.01, "steps", (80, 150), 0.1, ()),
    "sure-tiny-imagenet": (150, None, 0.01, "steps", (80, 150), 0.1, ()),
}
OURS = {"digits", "small-mlp", "small-cnn", "small-resnet", "small-vit"}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_preset_has_the_papers_numbers(name):
    preset = get_recipe(name)
    recipe_name = (
        preset.epochs, preset.batch, preset.lr, preset.schedule, preset.milestones, preset.gamma, preset.augment
    )  # fmt: skip
    assert [f for f, p in zip(recipe_name, PUBLISHED[name], strict=True) if p is not None] == [
        p for p in PUBLISHED[name] if p is not None
    ]
    assert (preset.optimizer, preset.momentum, preset.weight_decay, preset.nesterov) == ("sgd", 0.9, 5e-4, False)
    assert preset.precision == "float32"


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_preset_names_its_paper_and_says_what_was_not_stated(name):
    paper = name.split("-", 1)[0].upper()
    assert paper in RECIPES[name].source
    unstated = None in (*PUBLISHED[name][:4], PUBLISHED[name][6])
    assert unstated <= ("not stated" in RECIPES[name].source)


@pytest.mark.parametrize(
    ("name", "data_set"), [("inst-mnist", "MNIST"), ("inst-cifar10", "CIFAR-10"), ("inst-svhn", "SVHN")]
)
def test_a_shared_source_names_the_right_data_set(name, data_set):
    assert [word for word in ("MNIST", "CIFAR-10", "SVHN") if word in RECIPES[name].source] == [data_set]


def test_every_preset_is_published_or_ours():
    assert set(RECIPES) == set(PUBLISHED) | OURS


def test_one_recipe_shared_by_two_papers_is_one_object():
    assert RECIPES["rum-cifar10"] is RECIPES["scale-cifar10"]
    assert RECIPES["rum-cifar100"] is RECIPES["scale-cifar100"]
    assert RECIPES["rsu-cifar10"] is RECIPES["rsu-tiny-imagenet"]


def test_augmentation_may_be_other_than_the_recipes():
    def requested(recipe, *names):
        return build_recipe(BankConfig(recipe=recipe, augment=names), "resnet18")[1]

    plain, augmented = "rum-cifar10", "rum-cifar100"
    assert requested(plain).augment == requested(augmented, "none").augment == ()
    assert requested(plain, "crop", "flip").augment == requested(augmented).augment == ("crop", "flip")
    assert replace(requested(plain, "flip"), augment=()) == requested(plain)
    with pytest.raises(ValueError, match="none"):
        requested(plain, "none", "flip")


def test_an_unknown_recipe_offers_the_nearest():
    with pytest.raises(ValueError, match="unknown recipe 'rum-cifar-10'; did you mean 'rum-cifar10'"):
        get_recipe("rum-cifar-10")


@pytest.mark.parametrize("data", ["digits", "cifar10", "/some/folder"])
@pytest.mark.parametrize("arch", [*ARCHITECTURES, "mlp-512-256", "cnn-32-64", "resnet8-16-32-64"])
def test_every_architecture_has_a_default(data, arch):
    assert get_default_recipe_name(data, arch) in RECIPES


@pytest.mark.parametrize(
    ("data", "arch", "expected"),
    [
        ("digits", "mlp", "digits"),
        ("digits", "cnn-8", "digits"),
        ("digits", "my.nets:small", "digits"),
        ("fashion-mnist", "mlp-512-256", "small-mlp"),
        ("fashion-mnist", "cnn", "small-cnn"),
        ("fashion-mnist", "resnet8-16-32-64", "small-resnet"),
        ("cifar10", "resnet18", "rum-cifar10"),
        ("cifar10", "resnet18-imagenet-stem", "rum-memorization"),
        ("cifar100", "resnet50", "rum-cifar100"),
    ],
)
def test_defaults(data, arch, expected):
    assert get_default_recipe_name(data, arch) == expected


def test_a_users_network_on_other_data_needs_a_recipe_by_name():
    with pytest.raises(
        ValueError, match=r"no default recipe for architecture 'my.nets:small'; name one with --recipe: .*small-cnn"
    ):
        get_default_recipe_name("cifar10", "my.nets:small")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, r"epochs must be in 1 to 10\^9, got 0"),
        ({"epochs": 10**400}, r"epochs must be in 1 to 10\^9, got 10"),
        ({"batch": 0}, "batch must be 1 or more, got 0"),
        ({"lr": 0.0}, "lr must be above 0 and finite, got 0.0"),
        ({"lr": math.nan}, "lr must be above 0 and finite, got nan"),
        ({"lr": math.inf}, "lr must be above 0 and finite, got inf"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1.0"),
        ({"weight_decay": -1e-4}, "weight_decay must be 0 or more and finite, got -0.0001"),
        ({"crop_padding": 0}, 'crop_padding must be 1 or more .leave "crop" out of augment for none.'),
        ({"gamma": 0.0}, r"gamma must be in \(0, 1\], got 0.0"),
        ({"optimizer": "sdg"}, "unknown optimizer 'sdg'; did you mean 'sgd'"),
        ({"schedule": "cosin"}, "unknown schedule 'cosin'; did you mean 'cosine'"),
        ({"precision": "float16"}, "unknown precision 'float16'; did you mean"),
        ({"augment": ("flipp",)}, "unknown augmentation 'flipp'; did you mean 'flip'"),
        ({"augment": ("flip", "flip")}, "each augmentation once"),
        ({"optimizer": "adam", "nesterov": True}, "got adam with momentum 0.9; use nesterov=False"),
        ({"momentum": 0.0, "nesterov": True}, "got sgd with momentum 0.0; use nesterov=False"),
        ({"schedule": "steps"}, r"which needs some; got none with 'steps'"),
        ({"milestones": (10,)}, r"go with schedule 'steps'.*got 10 with 'constant'"),
        (
            {"schedule": "steps", "milestones": (20, 10)},
            r"must rise, above 0 and up to the 30 epochs, got 20, 10",
        ),
        ({"schedule": "steps", "milestones": (10, 10)}, "must rise"),
        ({"schedule": "steps", "milestones": (0, 10)}, "must rise"),
        ({"schedule": "steps", "milestones": (10, 31)}, "up to the 30 epochs"),
    ],
)
def test_a_recipe_refuses_bad_values_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        replace(PLAIN, **change)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipe_survives_json(name):
    again = Recipe(**json.loads(json.dumps(asdict(RECIPES[name]))))
    assert again == RECIPES[name]
    assert hash(again) == hash(RECIPES[name])


def test_other_epochs_keep_the_shape_of_the_schedule():
    whole = get_recipe("rum-cifar100")
    _, short = build_recipe(BankConfig(recipe="rum-cifar100", epochs=10), "resnet18")
    assert short.epochs == 10
    assert short.milestones == tuple(mark * 10 / whole.epochs for mark in whole.milestones)
    assert compute_lr(short, 0.35) == compute_lr(whole, 0.35)
