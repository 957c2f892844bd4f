"""Numbers of epochs and batches that follow from the data, and the steps that are counted."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from memscore.training.recipes import RECIPES, Recipe
from tests.fixtures.problems import make_tiny_problem, run_algorithm
from unlearn.algorithms import ALGORITHMS, get_algorithm
from unlearn.optimization.step_count import count_torch_steps, read_step_count
from unlearn.optimization.steps import get_paper_values, resolve_steps
from unlearn.problem import BatchSampler

RUM = RECIPES["rum-cifar10"]
LOOPS = [name for name, entry in ALGORITHMS.items() if "epochs" in get_paper_values(entry.config)]
OVER_FORGET = [name for name in LOOPS if ALGORITHMS[name].config.FORGET_ONLY]
OVER_RETAIN = [name for name in LOOPS if name not in OVER_FORGET]


def resolve(name, n_retain, n_forget, recipe, rounds=1, **params):
    return resolve_steps(get_algorithm(name).config(**params), n_retain, n_forget, recipe, rounds)


@pytest.mark.parametrize("name", LOOPS)
def test_in_rums_setting_the_epochs_are_the_papers(name):
    config = resolve(name, 42_000, 3000, RUM)
    assert config.epochs == ALGORITHMS[name].config.PAPER["epochs"]
    assert config.batch == (250 if name in OVER_FORGET else 256)


@pytest.mark.parametrize("name", OVER_RETAIN)
@pytest.mark.parametrize("recipe", ["digits", "small-mlp", "small-cnn", "inst-svhn"])
def test_passes_over_what_is_kept_take_the_papers_share_of_the_steps_of_retraining(name, recipe):
    recipe, n_retain = RECIPES[recipe], 2000
    config = resolve(name, n_retain, 60, recipe)
    assert config.batch == recipe.batch
    share = ALGORITHMS[name].config.PAPER["epochs"] / 30
    assert abs(config.epochs - share * recipe.epochs) <= 0.5 or config.epochs == getattr(config, "MIN_EPOCHS", 1)


def test_recipes_of_many_epochs_on_much_data_get_no_more_steps_than_the_paper_and_small_data_get_the_share():
    long = replace(RUM, epochs=150)
    assert resolve("finetune", 42_000, 3000, long).epochs == 10
    assert resolve("finetune", 1000, 60, long).epochs == 50  # 200 of 600 steps
    assert resolve("finetune", 10_500, 60, long).epochs == 39  # 1,638 steps, RUM's


def test_a_batch_is_at_most_256_and_the_epochs_keep_the_share_of_steps():
    config = resolve("finetune", 42_000, 3000, Recipe(epochs=30, batch=512, lr=0.1))
    assert (config.epochs, config.batch) == (5, 256)


def test_there_is_at_least_one_epoch_and_scrub_has_one_to_descend_and_one_to_climb():
    short = Recipe(epochs=1, batch=8, lr=0.1)
    assert [resolve(name, 100, 10, short).epochs for name in ("finetune", "bad-teacher")] == [1, 1]
    config = resolve("scrub", 100, 10, short)
    assert (config.epochs, config.msteps, config.decay_after, config.forget_batch) == (2, 1, (1,), 1)


@pytest.mark.parametrize("name", OVER_FORGET)
@pytest.mark.parametrize(("n_forget", "batch"), [(1, 1), (12, 1), (13, 2), (60, 5), (5000, 32)])
def test_a_pass_over_what_goes_has_twelve_steps_or_more_where_it_has_the_examples(name, n_forget, batch):
    config = resolve(name, 1000, n_forget, RECIPES["digits"])
    assert (config.epochs, config.batch) == (10, batch)


def test_what_is_given_is_not_changed():
    assert resolve("finetune", 1000, 60, RUM, epochs=3, batch=7).batch == 7
    config = resolve("finetune", 1000, 60, replace(RUM, epochs=90), batch=7)
    assert config.epochs == pytest.approx(10 * 3 * 7 / 256, abs=0.5)  # more steps an epoch
    given = get_algorithm("influence").config()
    assert resolve_steps(given, 1000, 60, RUM) == given


def test_rounds_divide_the_epochs_and_keep_the_batch():
    config = resolve("finetune", 1000, 60, RUM, rounds=3)
    assert (config.epochs, config.batch) == (4, 256)
    scrub = resolve("scrub", 1000, 60, RUM, rounds=5)
    assert (scrub.epochs, scrub.msteps) == (2, 1)


def test_the_forget_batches_of_plus_forms_keep_the_papers_proportion():
    assert resolve("sure", 1000, 60, RECIPES["digits"]).forget_batch == 32
    assert resolve("boundary-expand-plus", 1000, 60, RECIPES["digits"]).forget_batch == 16
    assert resolve("boundary-expand-plus", 42_000, 3000, RUM).forget_batch == 128


def test_a_config_of_the_users_own_may_leave_them_to_the_data():
    @dataclass(frozen=True)
    class Own:
        epochs: int | None = None
        batch: int | None = None

    assert resolve_steps(Own(), 1000, 60, RECIPES["digits"]) == Own(epochs=10, batch=32)
    assert get_paper_values(Own) == {"epochs": 10, "batch": 256}


def test_a_config_without_numbers_is_refused_by_name():
    problem, config = make_tiny_problem(), get_algorithm("finetune").config()
    with pytest.raises(ValueError, match=r"take unlearn\.optimization\.steps\.resolve_steps"):
        BatchSampler(problem.retain, config.batch, np.random.default_rng(0))


def count(name, **params):
    before = read_step_count()
    run_algorithm(name, make_tiny_problem(), **params)
    return read_step_count() - before


def test_steps_are_counted_as_they_are_taken():
    assert count("finetune") == 2 * 4  # 54 examples in batches of 16
    assert count("gradient-ascent") == 2
    assert count("scrub") == 2 * 4 + 1
    assert count("original") == 0
    assert count("retrain") == 27
    assert count("ssd", batch=16) == 4 + 1
    assert count("influence") == 4 + 1 + 54  # WoodFisher's gradients of single examples
    assert count("finetune", step_callback=lambda step, theta: step == 3) == 3


def test_steps_of_a_users_own_optimizer_are_counted_in_its_context_only():
    weight = torch.nn.Parameter(torch.ones(1))
    sgd, before = torch.optim.SGD([weight], lr=0.1), read_step_count()
    with count_torch_steps():
        weight.sum().backward()
        sgd.step()
        sgd.step()
    sgd.step()
    assert read_step_count() - before == 2
