"""Test-time augmentation: its effect on an image, its columns in a bank, and that LiRA averages over it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cluster.launch import PoolOptions
from memscore import estimate
from memscore.estimators.lira import combine_prior_sums, compute_prior_sums, lira_scores
from memscore.pipeline.attack_runs import run_attack
from memscore.pipeline.attacks import ATTACKS
from memscore.pipeline.cards import CardOptions
from memscore.pipeline.config import BankConfig
from memscore.store.store import Store
from memscore.training.augmentation import TestTimeAugmentation as Augmentation
from memscore.training.augmentation import describe_wide_crop, list_test_time_augmentations, with_augmentation
from memscore.training.recipes import Recipe, get_recipe
from tests.fixtures.whole_banks import compare_models

BOTH = replace(get_recipe("digits"), augment=("crop", "flip"), crop_padding=1)


def apply(image, query):
    return with_augmentation(lambda shown: shown, query, torch.tensor([9.0]))(torch.tensor(image)[None, None].float())[
        0, 0
    ].tolist()


def test_an_image_is_mirrored_then_moved_and_black_comes_in():
    image = [[1, 2, 3], [4, 5, 6], [7, 8, 10]]
    assert apply(image, Augmentation(False, 0, 0)) == image
    assert apply(image, Augmentation(True, 0, 0)) == [[3, 2, 1], [6, 5, 4], [10, 8, 7]]
    assert apply(image, Augmentation(False, 1, 0)) == [[9, 9, 9], [1, 2, 3], [4, 5, 6]]
    assert apply(image, Augmentation(False, 0, -1)) == [[2, 3, 9], [5, 6, 9], [8, 10, 9]]
    assert apply(image, Augmentation(True, -1, 1)) == [[9, 6, 5], [9, 10, 8], [9, 9, 9]]


def test_test_time_augmentations_are_those_of_training_the_plain_image_first():
    assert list_test_time_augmentations(BOTH, 2) == [
        Augmentation(False, 0, 0),
        Augmentation(True, 0, 0),
    ]
    assert len(set(list_test_time_augmentations(BOTH, 18))) == 18
    assert list_test_time_augmentations(replace(BOTH, augment=("flip",)), 2)[1] == Augmentation(True, 0, 0)
    assert not any(query.mirror for query in list_test_time_augmentations(replace(BOTH, augment=("crop",)), 9))
    with pytest.raises(ValueError, match=r"--queries must lie in 1 to 1 for a recipe that augments by nothing, got 2"):
        list_test_time_augmentations(get_recipe("digits"), 2)
    with pytest.raises(ValueError, match=r"1 to 18 .* crop and flip, got 0"):
        list_test_time_augmentations(BOTH, 0)


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("queries") / "bank")
    plan = BankConfig(
        store=folder, queries=3, recipe="rum-cifar100", arch="cnn-4", train_limit=200, epochs=2, batch=32, lr=0.05,
        design="exact", block=8, models=8, originals=0, attacks=("lira", "lira-paper"),
    )  # fmt: skip
    assert estimate.estimate_bank(plan, PoolOptions(pool="serial"), CardOptions()) == 0
    return folder, plan


def test_a_bank_stores_predictions_per_augmentation_and_lira_is_their_mean(bank):
    store = Store.open(bank[0])
    arm = next(iter(store.arms()))
    assert store.arms()[arm]["queries"] == 3
    columns = ["member", *("logit_confidence" + ending for ending in ("", "_q1", "_q2"))]
    outputs = next(store.read_blocks(arm, list(range(8)), columns)).columns
    assert not np.array_equal(outputs["logit_confidence"], outputs["logit_confidence_q1"])
    assert np.corrcoef(outputs["logit_confidence"].ravel(), outputs["logit_confidence_q1"].ravel())[0, 1] > 0.2
    member = outputs.pop("member")
    # all queries are compared as the models are by the first one
    shadows = compare_models([(next(iter(outputs.values())), member)])
    priors = [combine_prior_sums([compute_prior_sums(phi, member, shadows)], shadows) for phi in outputs.values()]
    each = [lira_scores(phi, member, prior)[0] for phi, prior in zip(outputs.values(), priors, strict=True)]
    expected = np.where(member, np.mean(each, axis=0), 0).sum(0) / member.sum(0)
    tables = run_attack(store, arm, list(range(8)), ATTACKS["lira"]).tables
    np.testing.assert_allclose(tables["lira"]["value"], expected, rtol=1e-9)


def test_the_number_of_queries_belongs_to_the_arm_and_does_not_change(bank, capsys):
    folder, plan = bank
    assert estimate.estimate_bank(replace(plan, queries=None), PoolOptions(pool="serial"), CardOptions()) == 0
    assert Store.open(folder).arms()["exact-k0.500-b8"]["queries"] == 3
    with pytest.raises(ValueError, match=r"queries is 3, requested 2"):
        estimate.estimate_bank(replace(plan, queries=2), PoolOptions(pool="serial"), CardOptions())


@pytest.mark.parametrize(
    ("shape", "padding", "share"),
    [((3, 32, 32), 4, ""), ((3, 64, 64), 4, ""), ((1, 28, 28), 4, "1/7"), ((1, 8, 8), 4, "1/2"), ((1, 8, 8), 1, ""),
     ((3, 64, 24), 4, "1/6"), ((3, 24, 64), 4, "1/6"), ((3, 32, 32), 5, "5/32"), ((1, 3, 3), 4, "4/3")],
)  # fmt: skip
def test_a_crop_that_pads_more_than_an_eighth_of_the_shorter_side_is_described(shape, padding, share):
    recipe = Recipe(epochs=1, batch=1, lr=0.1, augment=("flip", "crop"), crop_padding=padding)
    line = describe_wide_crop(recipe, shape)
    assert line.startswith(f"crop pads {padding} pixels, {share} of") if share else line == ""
    assert describe_wide_crop(replace(recipe, augment=("flip",)), shape) == ""
