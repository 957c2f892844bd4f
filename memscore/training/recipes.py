"""Training recipes: optimizer, schedule, epochs, batch, augmentation; papers' presets.

Tables 3 and 4 of SURE and appendix B of the instance-difficulty paper give learning rates of unlearning, not of
training from scratch, so they are not here.
"""

import math
import re
from dataclasses import dataclass, field, replace

from memscore.choices import validate_choice, validate_choice_or_function
from memscore.store.json_records import SINCE
from memscore.training.user_training import call_schedule, hash_training_source
from memscore.units import format_count, format_value
from memscore.user_functions import explain_user_error, import_user_object, is_user_function

OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULES = ("constant", "cosine", "steps")
AUGMENTATIONS = ("crop", "flip")
BFLOAT16_PRODUCTS = "bfloat16-products"
"""Of fully connected networks on CPUs: bfloat16 in the products of the hidden layers while they are trained."""
PRECISIONS = ("float32", "tf32", "bfloat16", BFLOAT16_PRODUCTS)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train a model from scratch; checks itself.

    Attributes:
        epochs: visits to each example of the model's subset, on average.
        batch: examples per step; every batch is full.
        lr: the learning rate that the schedule starts from.
        momentum: of SGD; Adam and AdamW keep torch's betas.
        weight_decay: on all weights; decoupled for AdamW.
        nesterov: SGD only.
        optimizer: one of OPTIMIZERS, or module:function of (parameters, lr, recipe) that returns a torch.optim one.
        schedule: one of SCHEDULES, or module:function of the progress in [0, 1); see compute_lr.
        milestones: epochs at which "steps" multiplies the learning rate by gamma.
        gamma: that factor.
        augment: some of AUGMENTATIONS, drawn for each image anew.
        crop_padding: pixels on each side before a crop of the old size.
        precision: one of PRECISIONS: tf32 of convolutions, bfloat16 of all products, bfloat16-products of those that
            train a stack; weights and the last layer are always float32.
        warmup: epochs in which the learning rate first rises from 0, linearly; not with a schedule of the user's own.
        label_smoothing: share of the target that is spread evenly over all classes.
        optimizer_sha256: of the source of a user's own optimizer, "" for the others; read where it is left out.
        schedule_sha256: the same of a user's own schedule.
        source: paper and place, and the values taken where it states none.
    """

    epochs: int
    batch: int
    lr: float
    momentum: float = 0.9
    weight_decay: float = 5e-4
    nesterov: bool = False
    optimizer: str = "sgd"
    schedule: str = "constant"
    milestones: tuple[float, ...] = ()
    gamma: float = 0.1
    augment: tuple[str, ...] = ()
    crop_padding: int = 4
    precision: str = "float32"
    warmup: float = field(default=0.0, metadata={SINCE: "0.2"})
    label_smoothing: float = field(default=0.0, metadata={SINCE: "0.2"})
    optimizer_sha256: str = field(default="", metadata={SINCE: "0.2"})
    schedule_sha256: str = field(default="", metadata={SINCE: "0.2"})
    source: str = "the user's own"

    def __post_init__(self) -> None:
        # Lists come back from JSON, and 60 and 60.0 must not be two identities.
        object.__setattr__(self, "milestones", tuple(float(epoch) for epoch in self.milestones))
        object.__setattr__(self, "augment", tuple(self.augment))
        self._check_numbers()
        validate_choice_or_function("optimizer", self.optimizer, OPTIMIZERS)
        validate_choice_or_function("schedule", self.schedule, SCHEDULES)
        validate_choice("precision", self.precision, PRECISIONS)
        if self.precision == BFLOAT16_PRODUCTS and not self.is_plain_sgd:
            raise ValueError(
                f"precision {BFLOAT16_PRODUCTS} is of stacks, which are trained by sgd without nesterov, augment and "
                f"label_smoothing; got optimizer {self.optimizer}, nesterov {self.nesterov}, augment "
                f"{format_value(self.augment)}, label_smoothing {self.label_smoothing:g}; use precision float32"
            )
        for name in self.augment:
            validate_choice("augmentation", name, AUGMENTATIONS)
        if len(set(self.augment)) < len(self.augment):
            raise ValueError(f"augment names each augmentation once, got {format_value(self.augment)}")
        if self.nesterov and (self.optimizer != "sgd" or self.momentum == 0):
            got = f"{self.optimizer} with momentum {self.momentum}"
            raise ValueError(f"nesterov needs sgd with momentum above 0, got {got}; use nesterov=False")
        self._check_milestones()
        if self.warmup and is_user_function(self.schedule):
            raise ValueError(
                f"warmup is of the built-in schedules, and {self.schedule} gives every learning rate; let it rise there"
            )
        # What a user's function does is known by its source alone; a record that is read has the source's hash already.
        for kind in ("optimizer", "schedule"):
            name, digest = getattr(self, kind), getattr(self, f"{kind}_sha256")
            if is_user_function(name) and not digest:
                object.__setattr__(self, f"{kind}_sha256", hash_training_source(kind, name))
            elif digest and not is_user_function(name):
                raise ValueError(f"{kind}_sha256 is of a module:function, and the {kind} is {name}; leave it out")

    @property
    def is_plain_sgd(self) -> bool:
        """Whether stacks can be trained by it: SGD without Nesterov, augmentation and label smoothing."""
        return self.optimizer == "sgd" and not (self.nesterov or self.augment or self.label_smoothing)

    def _check_numbers(self) -> None:
        rules = (
            ("epochs", 1 <= self.epochs <= 10**9, "in 1 to 10^9"),
            ("batch", self.batch >= 1, "1 or more"),
            ("lr", 0 < self.lr < math.inf, "above 0 and finite"),
            ("momentum", 0 <= self.momentum < 1, "in [0, 1)"),
            ("weight_decay", 0 <= self.weight_decay < math.inf, "0 or more and finite"),
            ("gamma", 0 < self.gamma <= 1, "in (0, 1]"),
            ("warmup", 0 <= self.warmup < self.epochs, f"0 or more and below the {format_count(self.epochs, 'epoch')}"),
            ("label_smoothing", 0 <= self.label_smoothing < 1, "in [0, 1)"),
            ("crop_padding", self.crop_padding >= 1, '1 or more (leave "crop" out of augment for none)'),
        )
        for name, holds, rule in rules:
            if not holds:
                raise ValueError(f"{name} must be {rule}, got {getattr(self, name)}")

    def _check_milestones(self) -> None:
        marks = self.milestones
        if (self.schedule == "steps") != bool(marks):
            raise ValueError(
                f"milestones go with schedule 'steps', which needs some; got {format_value(marks)} with "
                f"{self.schedule!r}"
            )
        if list(marks) != sorted(set(marks)) or (marks and not 0 < marks[0] <= marks[-1] <= self.epochs):
            raise ValueError(
                f"milestones must rise, above 0 and up to the {format_count(self.epochs, 'epoch')}, got "
                f"{format_value(marks)}"
            )


def compute_lr(recipe: Recipe, progress: float) -> float:
    """Compute the learning rate of a step.

    "constant": lr. "cosine": lr (1 + cos(pi progress)) / 2. "steps": lr gamma^n, n = how many milestones / epochs are
    <= progress; both sides are quotients rounded once, so a step exactly at a milestone counts. module:function: lr
    times what it returns for the progress.

    With a warm-up of the share w = warmup / epochs: lr progress / w up to w; then "cosine" is of (progress - w) /
    (1 - w), and the others are as without one.

    Args:
        recipe: whose schedule.
        progress: step / T in [0, 1), steps counted from 0.

    Returns:
        The learning rate: above 0, but 0 in the first step of a warm-up, and where a user's own schedule is 0.

    Raises:
        ValueError: a user's own schedule fails or gives no number, or its source is not the recipe's.

    >>> compute_lr(Recipe(epochs=30, batch=256, lr=0.1, schedule="cosine"), 0.5)
    0.05
    """
    if is_user_function(recipe.schedule):
        return recipe.lr * call_schedule(recipe.schedule, recipe.schedule_sha256, progress)
    if recipe.warmup:
        share = recipe.warmup / recipe.epochs
        if progress < share:
            return recipe.lr * progress / share
        progress = (progress - share) / (1 - share) if recipe.schedule == "cosine" else progress
    if recipe.schedule == "cosine":
        return recipe.lr * (1 + math.cos(math.pi * progress)) / 2
    if recipe.schedule == "steps":
        passed = sum(milestone / recipe.epochs <= progress for milestone in recipe.milestones)
        return recipe.lr * recipe.gamma**passed
    return recipe.lr


def check_batch_size(batch: int, size: int, n_train: int, *, is_expected: bool = False) -> None:
    """Raise ValueError if a batch is larger than the smallest subset, or than an expected one before any are drawn."""
    subset, suggested = f"the smallest subset, {size}", f"{size} or less"
    if is_expected:
        # subsets of a block differ in size, so a batch just below the expected size may not fit either
        subset, suggested = f"a subset, about {size}", str(suggest_batch(size))
    if batch > size:
        raise ValueError(
            f"a batch of {batch} is larger than {subset} of {n_train} examples; "
            f"use --batch {suggested}, or a larger --keep"
        )


def fit_batch(recipe: Recipe, size: int) -> Recipe:
    """Lower a recipe's batch to the power of two that fits twice into a subset, if the batch is larger than a subset.

    Args:
        recipe: any recipe.
        size: examples in the smallest subset that a model is trained on.

    Returns:
        The recipe, changed only if its batch does not fit.
    """
    return recipe if recipe.batch <= size else replace(recipe, batch=suggest_batch(size))


def suggest_batch(size: int) -> int:
    """Suggest the largest power of two of which two batches fit into a subset, at least 1."""
    return int(2 ** max(0, (size // 2).bit_length() - 1))


def count_steps(recipe: Recipe, keep: float, n_train: int) -> int:
    """Count the training steps, T = round(epochs keep n_train / batch).

    T is the same for every model of an arm.

    Args:
        recipe: its epochs and batch.
        keep: fraction of the training set in a subset, in (0, 1]; 1 for an original.
        n_train: size of the training set.

    Returns:
        T >= 1.

    Raises:
        ValueError: keep outside (0, 1], or less than half a batch in all epochs together.

    >>> count_steps(Recipe(epochs=30, batch=32, lr=0.1), 0.5, 1200)
    562
    """
    if not 0 < keep <= 1:
        raise ValueError(f"keep must lie in (0, 1], got {keep}")
    count = round(recipe.epochs * keep * n_train / recipe.batch)
    if count < 1:
        epochs, batches = format_count(recipe.epochs, "epoch"), format_count(count, "batch", "batches")
        size = f"{epochs} of {keep:g} x {n_train} examples are {batches} of {recipe.batch}"
        raise ValueError(f"{size}; use a smaller batch, more epochs or more examples")
    return count


_CIFAR10 = Recipe(
    epochs=30,
    batch=256,
    lr=0.1,
    schedule="cosine",
    source="RUM A.2 and SCALE Table 4: CIFAR-10, ResNet-18, no augmentation",
)
_CIFAR100 = Recipe(
    epochs=150,
    batch=256,
    lr=0.1,
    schedule="steps",
    milestones=(60, 120),
    gamma=0.2,
    augment=("crop", "flip"),
    source="RUM A.2 and SCALE Table 4: CIFAR-100, ResNet-50; crop padding not stated, 4 taken",
)
_RSU_MNIST = Recipe(
    epochs=200,
    batch=256,
    lr=0.1,
    schedule="steps",
    milestones=(100, 150),
    source="RSU, training details: MNIST, 2 convolutions and 1 linear layer; batch not stated, RUM's 256 taken; "
    "augmentation not stated, none taken: a flipped digit is another sign",
)
_RSU = replace(
    _RSU_MNIST,
    augment=("crop", "flip"),
    source="RSU, training details: CIFAR-10 ResNet-18, CIFAR-100 ResNeXt-50, Tiny-ImageNet ResNet-50; batch not "
    "stated, RUM's 256 taken; augmentation not stated, crop (padding 4) and flip taken: its accuracies suggest them",
)
_INST_MNIST = Recipe(
    epochs=30,
    batch=150,
    lr=0.001,
    source="INST appendix C, Table 2: MNIST, ResNet-18, batch and rate; the rest is not stated, taken: SGD at a "
    "constant rate, RUM's 30 epochs, momentum and weight decay",
)
_SURE = Recipe(
    epochs=150,
    batch=256,
    lr=0.01,
    schedule="steps",
    milestones=(80, 150),
    source="SURE 5.1: CIFAR-10, ResNet-18, no augmentation; the drop at epoch 150 of 150 never acts; optimizer, "
    "momentum and batch not stated, SGD, 0.9 and 256 taken; CINIC-10, Tiny-ImageNet, ViT-Small: nothing of their own",
)

RECIPES: dict[str, Recipe] = {
    "rum-cifar10": _CIFAR10,
    "rum-cifar100": _CIFAR100,
    "rum-memorization": Recipe(
        epochs=30,
        batch=512,
        lr=0.01,
        schedule="steps",
        milestones=(15, 20, 25),
        source="RUM's released memorization code (not its paper): CIFAR-10, resnet18-imagenet-stem, no augmentation, "
        "400 models at keep 0.7 of all 50,000 images",
    ),
    "scale-cifar10": _CIFAR10,
    "scale-cifar100": _CIFAR100,
    "scale-tiny-imagenet": Recipe(
        epochs=100,
        batch=256,
        lr=0.1,
        schedule="cosine",
        augment=("crop", "flip"),
        source="SCALE Table 4: Tiny-ImageNet, VGG-16; crop padding not stated, 4 taken",
    ),
    "rsu-mnist": _RSU_MNIST,
    "rsu-cifar10": _RSU,
    "rsu-cifar100": _RSU,
    "rsu-tiny-imagenet": _RSU,
    "inst-mnist": _INST_MNIST,
    "inst-cifar10": replace(_INST_MNIST, lr=0.01, source=_INST_MNIST.source.replace("MNIST", "CIFAR-10")),
    "inst-svhn": replace(_INST_MNIST, batch=64, source=_INST_MNIST.source.replace("MNIST", "SVHN")),
    "sure-cifar10": _SURE,
    "sure-cinic10": _SURE,
    "sure-tiny-imagenet": _SURE,
    "digits": Recipe(
        epochs=30,
        batch=32,
        lr=0.1,
        schedule="cosine",
        source="memscore: 600 digits (keep 0.5), mlp, 10 seeds: train accuracy 1.000, test 0.970-0.985",
    ),
    "small-mlp": Recipe(
        epochs=10,
        batch=128,
        lr=0.1,
        schedule="cosine",
        source="memscore: 42,000 images of Fashion-MNIST (keep 0.7), mlp-512-256, 1 seed: train 0.938, test 0.891",
    ),
    "small-cnn": Recipe(
        epochs=25,
        batch=64,
        lr=0.05,
        schedule="cosine",
        source="memscore: 5,000 images of Fashion-MNIST (keep 0.5), cnn, 2 seeds: train 0.999 and 1.000, test 0.870; "
        "1 seed with 5 % wrong labels: train 0.994; at lr 0.1 one of two runs never learned",
    ),
    "small-resnet": Recipe(
        epochs=25,
        batch=64,
        lr=0.1,
        schedule="cosine",
        source="memscore: 3,000 images of Fashion-MNIST (keep 0.5), resnet8, 2 seeds: train accuracy 0.972, test 0.826 "
        "and 0.819; at lr 0.05 train 0.945, test 0.817 and 0.812",
    ),
    "small-vit": Recipe(
        epochs=30,
        batch=32,
        lr=0.001,
        weight_decay=0.05,
        optimizer="adamw",
        schedule="cosine",
        source="memscore: 600 digits (keep 0.5), vit-narrow, 2 seeds: train accuracy 1.000, test 0.953 and 0.958",
    ),
}
_DEFAULTS = {
    "mlp": "small-mlp",
    "cnn": "small-cnn",
    "resnet8": "small-resnet",
    "resnet18": "rum-cifar10",
    "resnet18-imagenet-stem": "rum-memorization",
    "resnet50": "rum-cifar100",
    "resnext50": "rsu-cifar100",
    "vgg16": "scale-tiny-imagenet",
    "vit-small": "sure-cifar10",
    "vit-narrow": "small-vit",
}


def get_recipe(name: str) -> Recipe:
    """Return the preset of that name, or the recipe that the user's module:function is or returns.

    Raises:
        ValueError: an unknown name, with the nearest one; a user's function that fails or returns something else.
    """
    if not is_user_function(name):
        return RECIPES[validate_choice_or_function("recipe", name, RECIPES)]
    meaning = "a memscore.training.recipes.Recipe, or a function without arguments that returns one"
    recipe = import_user_object("recipe", name, meaning)
    if callable(recipe):
        with explain_user_error("recipe", name):
            recipe = recipe()
    if not isinstance(recipe, Recipe):
        raise ValueError(f"recipe {name} must be {meaning}; got {type(recipe).__name__}")
    return recipe


def get_default_recipe_name(data: str, arch: str) -> str:
    """Return the name of the preset used when the user names none.

    Args:
        data: the data set's name; MLPs and CNNs on "digits" use the preset made for it.
        arch: an architecture, with or without widths ("mlp-512-256"), or a user's "module:function".

    Returns:
        A name of RECIPES.

    Raises:
        ValueError: the architecture has no default, such as a user's own on data other than digits.

    >>> get_default_recipe_name("digits", "mlp"), get_default_recipe_name("fashion-mnist", "mlp-512-256")
    ('digits', 'small-mlp')
    """
    family = re.sub(r"(-\d+)+$", "", arch)
    if data == "digits" and (family in {"mlp", "cnn"} or ":" in arch):
        return "digits"
    if family not in _DEFAULTS:
        raise ValueError(
            f"no default recipe for architecture {arch!r}; name one with --recipe: module:function, or one of "
            f"{', '.join(sorted(RECIPES))}"
        )
    return _DEFAULTS[family]
