"""A user's own recipe, optimizer and schedule by module:function, and the recipe's options."""

import importlib
import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from memscore.models.architectures import build_network
from memscore.pipeline.config import BankConfig, build_manifest, build_recipe, build_recipe_record, load_splits
from memscore.training.cuda_graphs import CudaGraphEngine
from memscore.training.device_data import to_device
from memscore.training.engines import MultiStreamEngine, select_engine
from memscore.training.loop import EagerEngine, TrainingRun, is_stackable, train
from memscore.training.recipes import Recipe, compute_lr, get_recipe
from memscore.user_functions import hash_user_source

OWN = '''"""Training of a user's own."""
import torch
from memscore.training.recipes import Recipe

def recipe():
    return Recipe(epochs=4, batch=8, lr=0.01, optimizer="adamw", schedule="cosine", warmup=1)

ready = Recipe(epochs=5, batch=8, lr=0.1)
number = 3

def sgd(parameters, lr, recipe):
    first, *others = parameters
    groups = [{"params": [first], "lr": 2 * lr}, {"params": others}]
    return torch.optim.SGD(groups, lr=lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay)

def falls(progress):
    return 1 - progress

def broken(*arguments):
    first = 1
    return first / 0

def nothing(*arguments):
    return None
'''
PLAIN = Recipe(epochs=4, batch=8, lr=0.05)


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The module own_training, importable; its path."""
    path = tmp_path / "own_training.py"
    path.write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    return path


def edit(path, monkeypatch):
    path.write_text(OWN + "# edited\n")
    monkeypatch.delitem(sys.modules, "own_training")


def train_one(recipe, *, make_engine=None, steps=12):
    """Train a small network; return its weights."""
    rng = np.random.default_rng(0)
    model = build_network("mlp-6", (1, 4, 4), 3, seed=0)
    pixels, labels = rng.integers(0, 256, (24, 1, 4, 4)).astype(np.uint8), torch.arange(24) % 3
    images = to_device(pixels, (0.5,), (0.25,), torch.device("cpu"), flat=True)
    run = TrainingRun(
        model=model,
        rows=np.arange(24),
        order_rng=np.random.default_rng(1),
        augmentation_rng=np.random.default_rng(2),
        architecture="mlp-6",
    )
    engine = make_engine(run, images, labels, recipe) if make_engine else None
    train([run], images, labels, recipe, steps, engine=engine)
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_a_warm_up_rises_in_a_line_and_a_cosine_follows_it():
    warm = Recipe(epochs=10, batch=8, lr=0.1, schedule="cosine", warmup=2)
    assert [compute_lr(warm, p) for p in (0.0, 0.1, 0.2)] == pytest.approx([0, 0.05, 0.1])
    assert compute_lr(warm, 0.6) == pytest.approx(0.05)  # the middle of what follows
    constant = replace(warm, schedule="constant")
    assert [compute_lr(constant, p) for p in (0.05, 0.2, 0.9)] == pytest.approx([0.025, 0.1, 0.1])


def test_options_make_adamw_with_warm_up_and_their_values_stand_in_the_record():
    config = BankConfig(recipe="digits", optimizer="adamw", lr=0.002, weight_decay=0.01, warmup=3, label_smoothing=0.1)
    record = build_recipe_record(build_recipe(config, "mlp")[1])
    values = {"optimizer": "adamw", "lr": 0.002, "weight_decay": 0.01, "warmup": 3, "label_smoothing": 0.1}
    assert record.items() >= (values | {"schedule": "cosine", "epochs": 30}).items()
    assert Recipe(**json.loads(json.dumps(record))) == replace(get_recipe("digits"), **values, source="the user's own")


def test_another_schedule_drops_what_was_the_old_ones():
    config = BankConfig(recipe="rum-cifar100", schedule="cosine", nesterov=True)
    recipe = build_recipe(config, "resnet50")[1]
    assert (recipe.milestones, recipe.gamma, recipe.nesterov, recipe.momentum) == ((), 0.1, True, 0.9)
    steps = BankConfig(recipe="digits", schedule="steps", milestones=(4, 6), gamma=0.5, epochs=8)
    assert build_recipe(steps, "mlp")[1].milestones == (4, 6)  # in the new epochs, not scaled


def test_options_replace_a_recipes_own_optimizer_and_its_hash(own):
    own.write_text(OWN.replace('optimizer="adamw"', 'optimizer="own_training:sgd"'))
    config = BankConfig(recipe="own_training:recipe")
    assert build_recipe(config, "mlp")[1].optimizer_sha256 == hash_user_source("optimizer", "own_training:sgd")
    assert "optimizer_sha256" not in build_recipe_record(
        build_recipe(replace(config, optimizer="adam", lr=1), "mlp")[1]
    )


def test_epochs_scale_the_warm_up_too(own):
    assert build_recipe(BankConfig(recipe="own_training:recipe", epochs=8), "mlp")[1].warmup == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "adamw"}, r"--optimizer adamw needs an --lr of its own: 0\.1 of recipe digits is for sgd"),
        ({"optimizer": "lion", "lr": 1}, r"unknown optimizer 'lion' \(known: adam, adamw, module:function, sgd\)"),
        ({"optimizer": "adam", "lr": 1e-3, "momentum": 0.5}, "--momentum is of sgd, and the optimizer is adam"),
        ({"optimizer": "adam", "lr": 1e-3, "nesterov": True}, "--nesterov is of sgd, and the optimizer is adam"),
        ({"schedule": "steps"}, "--schedule steps needs --milestones"),
        ({"milestones": (3,)}, "--milestones is of --schedule steps, and the schedule is cosine"),
        ({"gamma": 0.5}, "--gamma is of --schedule steps"),
        ({"warmup": 30}, r"warmup must be 0 or more and below the 30 epochs, got 30"),
        ({"label_smoothing": 1.0}, r"label_smoothing must be in \[0, 1\), got 1\.0"),
        ({"schedule": "own_training:falls", "warmup": 1}, "warmup is of the built-in schedules"),
        ({"recipe": "own_training:number"}, r"recipe own_training:number must be a .*Recipe.*; got int"),
        ({"recipe": "own_training:nothing"}, "got NoneType"),
        ({"recipe": "own_training:broken"}, r"fails in line 21 of own_training\.py: ZeroDivisionError"),
        ({"recipe": "own_training:absent"}, r"own_training has no absent \(it has recipe, .*\)"),
        ({"recipe": "absent:recipe"}, "there is no module absent; run the command in the folder"),
        ({"recipe": "a b:c"}, "is not module:function"),
    ],
)
def test_what_cannot_be_is_one_line_with_a_remedy(own, options, message):
    with pytest.raises(ValueError, match=message):
        build_recipe(BankConfig(**{"recipe": "digits"} | options), "mlp")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "own_training:broken", "lr": 1}, r"optimizer own_training:broken fails in line 21 of own_tr"),
        ({"optimizer": "own_training:nothing", "lr": 1}, r"must return a torch\.optim\.Optimizer, got None"),
        ({"optimizer": "own_training:number", "lr": 1}, r"must be a function of \(parameters, lr, recipe\)"),
        ({"schedule": "own_training:broken"}, r"schedule own_training:broken fails in line 21 of own_training\.py"),
        ({"schedule": "own_training:nothing"}, "schedule own_training:nothing fails"),
    ],
)
def test_a_function_that_fails_is_found_before_a_store_is_made(own, options, message):
    config = BankConfig(recipe="digits", train_limit=100, **options)
    with pytest.raises(ValueError, match=message):
        build_manifest(config, load_splits(config), [])


def test_a_recipe_of_ones_own_is_plain_values_and_needs_no_module_later(own):
    assert get_recipe("own_training:ready") == Recipe(epochs=5, batch=8, lr=0.1)
    record = build_recipe_record(get_recipe("own_training:recipe"))
    own.unlink()
    assert Recipe(**record).warmup == 1
    assert "optimizer_sha256" not in record


def test_an_edited_function_is_another_recipe_and_the_old_one_is_not_trained_on(own, monkeypatch):
    first = replace(PLAIN, optimizer="own_training:sgd", schedule="own_training:falls")
    assert first.optimizer_sha256 == first.schedule_sha256 == hash_user_source("optimizer", "own_training:sgd")
    stored = Recipe(**build_recipe_record(first))
    edit(own, monkeypatch)
    assert build_recipe_record(replace(PLAIN, optimizer="own_training:sgd")) != build_recipe_record(first)
    for recipe in (stored, replace(PLAIN, schedule="own_training:falls", schedule_sha256="0" * 64)):
        with pytest.raises(ValueError, match=r"the source of own_training is not that of the bank's recipe"):
            train_one(recipe)


def test_an_own_optimizer_and_schedule_give_the_bits_of_torchs(own):
    recipe = replace(PLAIN, optimizer="own_training:sgd", schedule="own_training:falls", weight_decay=0.01)
    model = build_network("mlp-6", (1, 4, 4), 3, seed=0)
    first, *others = model.parameters()
    sgd = torch.optim.SGD([{"params": [first]}, {"params": others}], lr=0.05, momentum=0.9, weight_decay=0.01)
    rng, order = np.random.default_rng(0), np.random.default_rng(1)
    pixels = torch.from_numpy(rng.integers(0, 256, (24, 1, 4, 4)).astype(np.uint8))
    images, labels = (pixels / 255 - 0.5) / 0.25, torch.arange(24) % 3
    batches = torch.from_numpy(np.concatenate([order.permutation(np.arange(24)) for _ in range(4)])).view(12, 8)
    for step, batch in enumerate(batches):
        for group, share in zip(sgd.param_groups, (2, 1), strict=True):
            group["lr"] = share * 0.05 * (1 - step / 12)
        sgd.zero_grad()
        torch.nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
        sgd.step()
    expected = torch.cat([p.detach().flatten() for p in model.parameters()])
    torch.testing.assert_close(train_one(recipe), expected)


def test_only_the_eager_engine_takes_an_own_optimizer_and_says_so(own):
    recipe = replace(PLAIN, optimizer="own_training:sgd")
    model = build_network("mlp-6", (1, 4, 4), 3, seed=0)
    assert is_stackable(model, PLAIN)
    assert not is_stackable(model, recipe)
    run = TrainingRun(model=model, rows=np.arange(8), order_rng=None, augmentation_rng=None, architecture="mlp-6")
    choice = select_engine([run], None, torch.zeros(8), recipe, capture=False)
    assert choice.receipt_fields["engine"] == "eager, because the optimizer own_training:sgd is the user's own"


def test_label_smoothing_is_the_same_training_in_the_graph_engine():
    smooth = replace(PLAIN, label_smoothing=0.2)

    def make_graph_engine(run, images, labels, recipe):
        engine = CudaGraphEngine(run.model, images, labels, recipe, capture=False)
        return MultiStreamEngine([engine], [run])

    eager, graph = train_one(smooth, make_engine=EagerEngine), train_one(smooth, make_engine=make_graph_engine)
    torch.testing.assert_close(eager, graph)
    assert not is_stackable(build_network("mlp-6", (1, 4, 4), 3, seed=0), smooth)
    assert not torch.allclose(eager, train_one(PLAIN, make_engine=EagerEngine))
