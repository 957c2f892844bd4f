"""Options of one bank, and the designs, recipe, manifest and data set that they define."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from memscore.choices import validate_choice
from memscore.cli.options import NO_DEFAULT_HINT, Maybe, Several, make_nonempty_spec
from memscore.data.datasets import NAMED_DATASETS, load_dataset
from memscore.data.splits import Splits
from memscore.proxies.registry import (
    ALL_PROXIES,
    DEFAULT_PROXIES,
    INVERSION_GAIN,
    MIN_HOLDOUT_VALIDATION,
    NO_PROXIES,
    PROXIES,
    select_proxies,
)
from memscore.store.json_records import omit_new_defaults
from memscore.store.manifest import Manifest, split_architecture
from memscore.store.store import Store
from memscore.subsets.clustering import ORTHOGONAL, ClusteringSource
from memscore.subsets.designs import Arm, round_up_to_blocks
from memscore.training.recipe_changes import change_recipe
from memscore.training.recipes import (
    AUGMENTATIONS,
    Recipe,
    check_batch_size,
    compute_lr,
    fit_batch,
    get_default_recipe_name,
    get_recipe,
)
from memscore.user_functions import is_user_function

if TYPE_CHECKING:
    from torch import nn

    from memscore.proxies.storage import InversionOptions

PRESETS: dict[str, tuple[tuple[Arm, ...], int]] = {
    "fast": ((Arm(design="orthogonal", keep=0.5),), 256),
    "paper": ((Arm(design="iid", keep=0.7),), 400),
    "cscore": (tuple(Arm(design="exact", keep=tenth / 10, block=20) for tenth in range(1, 10)), 200),
}
"""Arms and models per arm; `paper` is what RUM's released code trains for CIFAR-10, `cscore` has the fractions and the
models of the C-score's reference code (Jiang et al. 2021), whose subsets are iid."""

DEFAULT_DATA, DEFAULT_PRESET = "digits", "fast"
"""Of a new bank; options of BankConfig are None where they are left out, since those of a stored bank come first."""
STORED_RECIPE = "stored"
"""In place of a recipe's name: that of the bank at --store, whose network has no default recipe."""
NO_AUGMENTATION = "none"
AUTO: Literal["auto"] = "auto"
RECIPE_OPTIONS = (
    *("epochs", "batch", "lr", "optimizer", "momentum", "weight_decay"),
    *("schedule", "milestones", "gamma", "warmup", "label_smoothing"),
)
"""Options that replace the recipe's field of their name where they are given."""
MAX_MODELS = 99_999
"""Maximum number of models of an arm: a model's name has five digits."""
MIN_RMSE = 1e-4
"""Smallest error that --until-rmse takes; MAX_MODELS models reach about .001."""

ARCHITECTURE_FOR = {"digits": "mlp", "mnist": "cnn", "fashion-mnist": "cnn"}
DEFAULT_ARCHITECTURE = "resnet18"
"""The default architecture of a data set, and that of every other one."""


@dataclass(frozen=True, kw_only=True)
class BankConfig:
    """Options of one bank: data, architecture, recipe, subset design, number of models, scores."""

    data: Maybe[str] = None
    """digits, fashion-mnist, mnist, cifar10, cifar100, svhn, cinic10, tiny-imagenet, an image folder, a .csv of files
    and labels, Parquet with images, a .npz file, or module:function (default: as stored, else digits)"""
    folder: Maybe[str] = None
    """folder of a data set that is given by name (default: $MEMSCORE_DATA or ~/.cache/memscore/data); downloaded if
    missing, but for cinic10 and tiny-imagenet"""
    train_limit: Maybe[int] = None
    """use only so many training examples, drawn evenly from the classes (default: all)"""
    without: Annotated[tuple[str, ...], NO_DEFAULT_HINT] = ()
    """leave these training examples out: a file of ids, or ids (default: as stored, else none)"""
    validation: Maybe[float] = None
    """share of the training set held out for validation (default: the data set's own, or 0.1); 0 is allowed"""
    test: Maybe[float] = None
    """share of all images that becomes the test set, where the data set has no test split (default: 0.2)"""
    image_size: Maybe[str] = None
    """scale and crop every image to this size: 64, or HEIGHTxWIDTH such as 32x48 (default: as they are)"""
    skip_bad: bool = False
    """leave out image files that cannot be used, and list them in the store's data.json"""
    follow_links: bool = False
    """read images behind links in the data's folder that lead out of it; without it they are refused"""
    label_noise: Maybe[float] = None
    """a positive control: give this share of the training examples a wrong label and record which (default: as stored,
    else none)"""
    arch: Maybe[str] = None
    """mlp, mlp-512-256, cnn, cnn-32-64, resnet8, resnet8-16-32-64, resnet18, resnet18-imagenet-stem, resnet50,
    resnext50, vgg16, vit-small, vit-narrow, or module:Class or module:function of your own (default: mlp for digits,
    cnn for MNIST and Fashion-MNIST, else resnet18)"""
    pretrained: Maybe[str] = None
    """weights that every model starts from, for transfer learning: .safetensors, or a state dict in a .pt, .pth, .bin
    or .ckpt file; a last layer of other classes starts from the seed (default: all layers do)"""
    recipe: Maybe[str] = None
    """training recipe by name, which `memscore list recipes` lists, or module:function (default: by data set and
    architecture)"""
    epochs: Maybe[int] = None
    """epochs of training (default: the recipe's); the recipe's milestones and warm-up are scaled"""
    batch: Maybe[int] = None
    """batch size (default: the recipe's)"""
    lr: Maybe[float] = None
    """learning rate (default: the recipe's)"""
    optimizer: Maybe[str] = None
    """sgd, adam, adamw, or module:function of (parameters, lr, recipe) that returns a torch.optim.Optimizer (default:
    the recipe's); another one than the recipe's needs --lr"""
    momentum: Maybe[float] = None
    """of sgd (default: the recipe's)"""
    nesterov: bool = False
    """Nesterov's momentum, of sgd"""
    weight_decay: Maybe[float] = None
    """on all weights, decoupled for adamw (default: the recipe's)"""
    schedule: Maybe[str] = None
    """learning rate: constant, cosine, steps (with --milestones), or module:function from progress in [0, 1) to a
    factor (default: the recipe's)"""
    milestones: Maybe[tuple[float, ...]] = None
    """epochs at which --schedule steps multiplies the learning rate by --gamma (default: the recipe's)"""
    gamma: Maybe[float] = None
    """that factor (default: the recipe's, else 0.1)"""
    warmup: Maybe[float] = None
    """epochs in which the learning rate first rises from 0 (default: the recipe's; no built-in recipe has any)"""
    label_smoothing: Maybe[float] = None
    """share of the target spread evenly over all classes (default: the recipe's; no built-in recipe has any)"""
    augment: Annotated[tuple[str, ...], make_nonempty_spec((*AUGMENTATIONS, NO_AUGMENTATION)), NO_DEFAULT_HINT] = ()
    """crop, flip, both or none (default: the recipe's): drawn anew for each image in each epoch"""
    precision: Literal["auto", "float32", "tf32", "bfloat16", "bfloat16-products"] = AUTO
    """auto: that of the stored bank; for a new one tf32 where convolutions are trained on GPUs, else the recipe's.
    tf32: TF32 in the convolutions of a GPU, as torch has them by default; float32: exact products everywhere; bfloat16:
    all products but the last layer's; bfloat16-products: those of an MLP's training on CPUs, which --dry-run times"""
    preset: Maybe[str] = None
    """fast: orthogonal subsets of one half, 256 models; paper: iid subsets of 0.7, 400 models; cscore: exact subsets of
    0.1, 0.2, ... 0.9, 200 models each (default: as stored, else fast)"""
    design: Maybe[str] = None
    """iid, exact or orthogonal: how subsets are drawn (default: the preset's)"""
    keep: Maybe[float] = None
    """share of the training set that a model is trained on (default: the preset's)"""
    block: Maybe[int] = None
    """models per block of the design (default: the design's)"""
    clusters: Maybe[ClusteringSource] = None
    """what the clusters of orthogonal subsets are made from: pixels, or a pilot, which is the embeddings of original 0
    (default: as stored, else pixels)"""
    models: Maybe[int] = None
    """models per arm in total, in whole blocks: rounded up where that adds at most a fifth; stored models are not
    trained again (default: as requested for the stored bank, else the preset's). With --until-rmse the maximum
    (default: no maximum)"""
    until_rmse: Maybe[float] = None
    """train block by block until the root mean square error of memorization_blend, measured on the bank, is at most
    this; of the counts, memorization, where halves of the models define no blend"""
    originals: int = 3
    """models trained on the whole training set, for the proxies"""
    bank_events: bool = False
    """also store learning events of the members of every bank model"""
    evaluation_events: bool = False
    """also count learning events of the originals in an evaluation pass after every epoch"""
    queries: Maybe[int] = None
    """queries per image, for LiRA: the image itself and fixed augmentations of it, flipped and shifted as the recipe
    augments, on which every bank model is evaluated (default: as stored, else 1)"""
    stacked: bool = False
    """also estimate memorization by a regression over examples, memorization_stacked: the smallest RMSE over the bank,
    but the most memorized examples are underestimated by .004 to .11 and ranked worse than by memorization_blend; 500
    examples and 16 models or more"""
    attacks: Several = ("lira",)
    """membership attacks of the bank's models on each other: lira (Student-t, BaVarIA-t), lira-gap, lira-top-gap (RSU),
    lira-paper (offline equation 4, one-sided cdf), lira-released, lira-released-fixed, lira-advanced-mia-fixed (offline
    the released code's two-sided density), rmia, rmia-offline (both by RMIA's ratio, whose log is BASE)"""
    proxies: Annotated[tuple[str, ...], make_nonempty_spec((*PROXIES, ALL_PROXIES, NO_PROXIES)), NO_DEFAULT_HINT] = ()
    """proxies of memorization to compute on the originals in addition to learning events: holdout, curvature-sign,
    curvature-rademacher, aum, el2n, grand, centroid-distance, inversion, inversion-gain, all of these, or none;
    holdout-test uses the test set and is not in all (default: holdout, where there are validation images)"""
    inversion_candidates: int = 1000
    """training examples, drawn at random, that --proxies inversion and inversion-gain attack"""
    inversion_iterations: int = 250
    """iterations of the attack on each of them"""
    inversion_tv: Maybe[float] = None
    """weight of the total variation in the attack (default: 0.1, or 0.001 for images below 16 pixels per side)"""
    dry_run: bool = False
    """only print how many models, how much time and how much disk the run would take; nothing is written"""
    store: Maybe[str] = None
    """folder or URL of the bank (default: $MEMSCORE_HOME or ~/memscore, then a name from its contents); options that
    are left out are those of the bank that is stored there"""
    seed: Maybe[int] = None
    """root of every random stream (default: as stored, else 0)"""

    def __post_init__(self) -> None:
        if self.originals < 0:
            raise ValueError(f"--originals must be 0 or more, got {self.originals}")
        if self.models is not None and self.models < 1:
            raise ValueError(f"--models must be at least one block, got {self.models}; `fast` trains 256")
        if self.models is not None and self.models > MAX_MODELS:
            raise ValueError(
                f"--models must be at most {MAX_MODELS}, got {self.models}: a model's name has five digits"
            )
        if self.until_rmse is not None and not MIN_RMSE <= self.until_rmse < 1:
            raise ValueError(
                f"--until-rmse must lie between {MIN_RMSE:g} and 1, got {self.until_rmse}; "
                "0.02 took 64 to 400 models in the banks tried"
            )
        if select_proxies(self.proxies) and not self.originals:
            raise ValueError("--proxies are computed on the originals, and --originals is 0; use 1 or more")
        if self.seed is not None and not 0 <= self.seed < 2**64:
            raise ValueError(f"--seed must lie between 0 and 2^64 - 1, got {self.seed}; 0 is the default")
        from memscore.proxies.storage import SMALL_IMAGE_SIDE  # brings torch, which --help must not wait for

        build_inversion_options(self, (1, SMALL_IMAGE_SIDE, SMALL_IMAGE_SIDE))


def build_designs(config: BankConfig) -> tuple[list[Arm], int]:
    """Build the arms and the number of models of each; the preset decides what the options leave open.

    One arm, unless the preset is a grid of fractions and no --keep is given. The number is the maximum where an error
    is requested; it is in whole blocks, rounded up where that adds few. ValueError for an impossible design, or a
    number too far from whole blocks.
    """
    arms, count = PRESETS[validate_choice("preset", config.preset or DEFAULT_PRESET, PRESETS)]
    design = config.design or arms[0].design
    if config.clusters and design != ORTHOGONAL:
        raise ValueError(
            f"--clusters {config.clusters} is for orthogonal subsets, and {design} subsets need no clusters"
        )
    # A grid's block size belongs to the grid's design. With another --design, and in presets of one arm, None means the
    # default of the design.
    block = arms[0].block if config.block is None and len(arms) > 1 and config.design is None else config.block
    keep_fractions = [arm.keep for arm in arms] if config.keep is None else [config.keep]
    designs = [Arm(design=design, keep=keep, block=block) for keep in keep_fractions]
    if config.until_rmse is not None and len(designs) > 1:
        raise ValueError(f"--until-rmse trains one arm, and --preset {config.preset} has {len(designs)}; give a --keep")
    # the largest number of whole blocks that five digits can name
    if config.models is None and config.until_rmse is not None:
        return designs, MAX_MODELS // designs[0].models_per_block * designs[0].models_per_block
    count = count if config.models is None else config.models
    rounded = max(round_up_to_blocks(count, arm) for arm in designs)  # the arms of a grid have equal blocks
    if rounded > MAX_MODELS:
        raise ValueError(
            f"--models {count} in whole blocks of {designs[0].block} is {rounded}, at most {MAX_MODELS} are possible; "
            f"use {rounded - designs[0].models_per_block}"
        )
    return designs, rounded


def describe_rounding(config: BankConfig, arms: Sequence[Arm], count: int) -> list[str]:
    """Describe the models that build_designs added to those that the user requested; nothing where it added none."""
    if config.models is None or config.models == count:
        return []
    return [f"--models {config.models} is rounded up to {count}: {arms[0].name} trains whole blocks of {arms[0].block}"]


def resolve_proxies(config: BankConfig, n_validation: int) -> tuple[BankConfig, list[str]]:
    """Resolve the proxies that a user left out: holdout, where originals and validation images allow it.

    Returns the options with the proxies that will be computed, and a line if the default cannot be.
    """
    if config.proxies:
        return config, []
    if config.originals and n_validation >= MIN_HOLDOUT_VALIDATION:
        return replace(config, proxies=DEFAULT_PROXIES), []
    without = replace(config, proxies=(NO_PROXIES,))
    # who asks for no originals asks for nothing that is computed on them
    if not config.originals:
        return without, []
    reason = f"it fine-tunes on half of the validation images, and this bank has {n_validation}"
    return without, [f"the proxy holdout is left out: {reason}"]


def build_recipe(config: BankConfig, arch: str) -> tuple[str, Recipe]:
    """Build the recipe with the user's changes, in its own precision for "auto"; return its name too.

    Where the user names none and a bank is stored at --store, it is the stored one, in the precision of its name's.
    """
    stored = None if config.recipe else read_stored_recipe(config)
    try:
        name = config.recipe or get_default_recipe_name(config.data or DEFAULT_DATA, arch)
    except ValueError:
        if stored is None:
            raise
        name = STORED_RECIPE  # a network of the user's own has no default, and its bank has a recipe
    changes = list_recipe_changes(config)
    # of a stored recipe without a name only source and precision are the placeholder's
    base = Recipe(epochs=1, batch=1, lr=1) if name == STORED_RECIPE else get_recipe(name)
    if stored is not None:
        base = complete_stored_recipe(config, stored, base)
    return name, change_recipe(base, name, changes)


def list_recipe_changes(config: BankConfig) -> dict[str, Any]:
    """List the recipe's fields that options replace: field -> value."""
    given = {option: getattr(config, option) for option in RECIPE_OPTIONS}
    changes: dict[str, Any] = {option: value for option, value in given.items() if value is not None}
    if config.nesterov:
        changes["nesterov"] = True
    if config.precision != AUTO:
        changes["precision"] = config.precision
    if config.augment:
        changes["augment"] = () if config.augment == (NO_AUGMENTATION,) else config.augment
    return changes


def read_stored_recipe(config: BankConfig) -> dict[str, Any] | None:
    """Read the record of the recipe of the bank at --store; None without a bank, and for an imported one."""
    if config.store is None:
        return None
    try:
        manifest = Store.open(config.store).manifest
    except FileNotFoundError:
        return None
    return None if manifest.imported else dict(manifest.recipe)


def complete_stored_recipe(config: BankConfig, record: dict[str, Any], base: Recipe) -> Recipe:
    """Make a recipe of its record; source and precision are the base's: the store's is found when it is located."""
    try:
        return Recipe(**record | {"precision": base.precision}, source=base.source)
    except TypeError as error:
        raise ValueError(
            f"the recipe of {config.store} cannot be read by this version ({error}); use the memscore that wrote it"
        ) from None


def build_inversion_options(config: BankConfig, input_shape: tuple[int, int, int]) -> "InversionOptions":
    """Build the options of gradient inversion for images of this shape."""
    from memscore.proxies.storage import InversionOptions, choose_total_variation  # brings torch

    weight = choose_total_variation(input_shape) if config.inversion_tv is None else config.inversion_tv
    return InversionOptions(
        candidates=config.inversion_candidates, iterations=config.inversion_iterations, total_variation=weight
    )


def load_splits(config: BankConfig) -> Splits:
    """Load and split the data set that the options name, with their label noise."""
    return load_dataset(
        config.data or DEFAULT_DATA,
        folder=config.folder,
        validation=config.validation,
        test=config.test,
        train_limit=config.train_limit,
        label_noise=config.label_noise or 0.0,
        seed=config.seed or 0,
        resize=config.image_size,
        skip_bad=config.skip_bad,
        follow_links=config.follow_links,
        without=config.without,
    )


def check_network_fits(arch: str, splits: Splits, seed: int) -> "nn.Module":
    """Build the network before a store is created, and return it; raise if it does not fit into memory."""
    from memscore.models.architectures import build_network  # brings torch

    # torch reports a tensor that is too large as a RuntimeError, which has many other causes, so its message decides
    try:
        return build_network(arch, splits.input_shape, splits.n_classes, seed)
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not re.search(r"memory|overflow", str(error)):
            raise
        match = re.search(r"(\d+) bytes", str(error))
        size = f": one of its tensors alone takes {int(match[1]) / 1e9:.0f} GB" if match else ""
        raise ValueError(
            f"--arch {arch} does not fit into the memory of this machine{size}; use fewer or narrower layers"
        ) from error


def check_user_training(recipe: Recipe, network: "nn.Module") -> None:
    """Call a user's own optimizer and schedule before a store is created; ValueError if they fail or give nothing."""
    from memscore.training.user_training import build_user_optimizer

    if is_user_function(recipe.optimizer):
        build_user_optimizer(network, recipe)
    for progress in (0.0, 0.5, 0.999):
        compute_lr(recipe, progress)


def build_recipe_record(recipe: Recipe) -> dict[str, Any]:
    """Build the recipe's record in the manifest, which is hashed: all fields but its source."""
    return {field: value for field, value in omit_new_defaults(recipe).items() if field != "source"}


def build_manifest(config: BankConfig, splits: Splits, arms: Sequence[Arm]) -> tuple[Manifest, str]:
    """Build the bank's manifest, everything that two runs must share to extend one bank; and the recipe's name.

    `arms` are only checked, since a bank may get more of them later. ValueError if the network does not fit into
    memory, a batch does not fit into an arm's subsets, or the recipe's augmentations allow fewer than --queries.
    """
    arch = config.arch or ARCHITECTURE_FOR.get(config.data or DEFAULT_DATA, DEFAULT_ARCHITECTURE)
    base, _ = split_architecture(arch)  # a stored bank's name may have the hash of its start weights
    network = check_network_fits(base, splits, config.seed or 0)
    name, recipe = build_recipe(config, base)
    if config.pretrained is not None:
        from memscore.pipeline.start_weights import read_start_weights  # brings torch

        arch = read_start_weights(config.pretrained, arch, splits.input_shape, splits.n_classes)
    subsets = [round(arm.keep * len(splits.train)) for arm in arms]
    if INVERSION_GAIN in select_proxies(config.proxies):  # trains on halves of the training set
        subsets.append(len(splits.train) // 2)
    if config.batch is None and (config.data or DEFAULT_DATA) not in NAMED_DATASETS:
        recipe = fit_batch(recipe, min(subsets, default=len(splits.train)))
    check_user_training(recipe, network)
    from memscore.training.augmentation import list_test_time_augmentations  # brings torch

    # both only check, before a store is created: that there are as many augmentations as queries, and that a batch fits
    # into the subsets
    list_test_time_augmentations(recipe, 1 if config.queries is None else config.queries)
    for arm in arms:
        check_batch_size(recipe.batch, round(arm.keep * len(splits.train)), len(splits.train), is_expected=True)
    if INVERSION_GAIN in select_proxies(config.proxies):  # trains on halves of the training set
        check_batch_size(recipe.batch, len(splits.train) // 2, len(splits.train))
    manifest = Manifest(
        fingerprint=splits.fingerprint,
        data=splits.name,
        split_sizes=(len(splits.train), len(splits.validation), len(splits.test)),
        n_classes=splits.n_classes,
        input_shape=splits.input_shape,
        mean=splits.mean,
        std=splits.std,
        label_changes=splits.label_changes,
        architecture=arch,
        recipe=build_recipe_record(recipe),
        precision=recipe.precision,
        seed=config.seed or 0,
    )
    return manifest, name


def describe_fitted_batch(config: BankConfig, manifest: Manifest, recipe_name: str) -> list[str]:
    """Say that the recipe's batch did not fit into a subset of a small data set of the user's own."""
    if recipe_name == STORED_RECIPE:
        return []
    batch, default = manifest.recipe["batch"], get_recipe(recipe_name).batch
    if config.batch is not None or batch == default:
        return []
    return [f"batch {batch}, as {recipe_name}'s {default} is larger than a subset; --batch sets it"]
