"""Options of one bank, and the designs, recipe, manifest and data set that they define."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from memscore.choices import validate_choice
from memscore.cli.options import NO_DEFAULT_HINT, Maybe, Several, make_nonempty_spec
from memscore.data.datasets import load_dataset, read_published, split_published
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
from memscore.store.manifest import Manifest
from memscore.store.store import Store
from memscore.subsets.clustering import ORTHOGONAL, ClusteringSource
from memscore.subsets.designs import Arm, round_up_to_blocks
from memscore.training.recipes import (
    AUGMENTATIONS,
    Recipe,
    check_batch_size,
    get_default_recipe_name,
    get_recipe,
)

if TYPE_CHECKING:
    from memscore.proxies.storage import InversionOptions

PRESETS: dict[str, tuple[tuple[Arm, ...], int]] = {
    "fast": ((Arm(design="orthogonal", keep=0.5),), 256),
    "paper": ((Arm(design="iid", keep=0.7),), 400),
    "cscore": (tuple(Arm(design="exact", keep=tenth / 10, block=20) for tenth in range(1, 10)), 200),
}
"""Arms and models per arm; `paper` is what RUM's released code trains for CIFAR-10, `cscore` has the fractions and the
models of the C-score's reference code (Jiang et al. 2021), whose subsets are iid."""

NO_AUGMENTATION = "none"
AUTO: Literal["auto"] = "auto"
MAX_MODELS = 99_999
"""Maximum number of models of an arm: a model's name has five digits."""
MIN_RMSE = 1e-4
"""Smallest error that --until-rmse takes; MAX_MODELS models reach about .001."""

ARCHITECTURE_FOR = {"digits": "mlp", "mnist": "cnn", "fashion-mnist": "cnn"}
"""The default architecture of a data set; every other one gets resnet18."""


@dataclass(frozen=True, kw_only=True)
class BankConfig:
    """Options of one bank: data, architecture, recipe, subset design, number of models, scores."""

    data: str = "digits"
    """digits, fashion-mnist, mnist, cifar10, cifar100, svhn, an image folder, a .npz file, or module:function"""
    folder: Maybe[str] = None
    """folder of a downloadable data set, downloaded if missing (default: $MEMSCORE_DATA or ~/.cache/memscore/data)"""
    train_limit: Maybe[int] = None
    """use only so many training examples, drawn evenly from the classes (default: all)"""
    validation: Maybe[float] = None
    """share of the training set held out for validation (default: the data set's own, or 0.1); 0 is allowed"""
    label_noise: float = 0.0
    """a positive control: give this share of the training examples a wrong label and record which"""
    arch: Maybe[str] = None
    """mlp, mlp-512-256, cnn, resnet18, ..., or module:function (default: mlp for digits, cnn for MNIST and
    Fashion-MNIST, else resnet18)"""
    recipe: Maybe[str] = None
    """training recipe by name (default: by data set and architecture)"""
    epochs: Maybe[int] = None
    """epochs of training (default: the recipe's); the recipe's milestones are scaled"""
    batch: Maybe[int] = None
    """batch size (default: the recipe's)"""
    lr: Maybe[float] = None
    """learning rate (default: the recipe's)"""
    augment: Annotated[tuple[str, ...], make_nonempty_spec((*AUGMENTATIONS, NO_AUGMENTATION)), NO_DEFAULT_HINT] = ()
    """crop, flip, both or none (default: the recipe's): drawn anew for each image in each epoch"""
    precision: Literal["auto", "float32", "tf32", "bfloat16"] = AUTO
    """auto: that of the stored bank; for a new one tf32 where convolutions are trained on GPUs, else the recipe's.
    tf32: TF32 in the convolutions of a GPU, as torch has them by default; float32: exact products everywhere; bfloat16:
    all products but the last layer's"""
    preset: str = "fast"
    """fast: orthogonal subsets of one half, 256 models; paper: iid subsets of 0.7, 400 models; cscore: exact subsets of
    0.1, 0.2, ... 0.9, 200 models each"""
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
    trained again (default: the preset's). With --until-rmse the maximum (default: no maximum)"""
    until_rmse: Maybe[float] = None
    """train block by block until the root mean square error of memorization, measured on the bank, is at most this"""
    originals: int = 3
    """models trained on the whole training set, for the proxies"""
    bank_events: bool = False
    """also store learning events of the members of every bank model"""
    evaluation_events: bool = False
    """also count learning events of the originals in an evaluation pass after every epoch"""
    queries: Maybe[int] = None
    """queries per image, for LiRA: the image itself and fixed augmentations of it, flipped and shifted as the recipe
    augments, on which every bank model is evaluated (default: as stored, else 1)"""
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
    """folder or URL of the bank (default: $MEMSCORE_HOME or ~/memscore, then a name from its contents)"""
    seed: int = 0
    """root of every random stream"""

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
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"--seed must lie between 0 and 2^64 - 1, got {self.seed}; 0 is the default")
        from memscore.proxies.storage import SMALL_IMAGE_SIDE  # brings torch, which --help must not wait for

        build_inversion_options(self, (1, SMALL_IMAGE_SIDE, SMALL_IMAGE_SIDE))


def build_designs(config: BankConfig) -> tuple[list[Arm], int]:
    """Build the arms and the number of models of each; the preset decides what the options leave open.

    One arm, unless the preset is a grid of fractions and no --keep is given. The number is the maximum where an error
    is requested; it is in whole blocks, rounded up where that adds few. ValueError for an impossible design, or a
    number too far from whole blocks.
    """
    arms, count = PRESETS[validate_choice("preset", config.preset, PRESETS)]
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
    """Describe the models that build_designs added to those that the user asked for; nothing where it added none."""
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
    """Build the recipe with the user's changes, in its own precision for "auto"; return its name too."""
    name = config.recipe or get_default_recipe_name(config.data, arch)
    overrides = {"epochs": config.epochs, "batch": config.batch, "lr": config.lr}
    changes: dict[str, Any] = {field: value for field, value in overrides.items() if value is not None}
    if config.precision != AUTO:
        changes["precision"] = config.precision
    if config.augment:
        changes["augment"] = () if config.augment == (NO_AUGMENTATION,) else config.augment
    recipe = get_recipe(name)
    # the schedule keeps its shape: the learning rate falls after the same shares of the training
    if config.epochs is not None:
        changes["milestones"] = tuple(milestone * config.epochs / recipe.epochs for milestone in recipe.milestones)
    return name, replace(recipe, **changes)


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
        config.data,
        folder=config.folder,
        validation=config.validation,
        train_limit=config.train_limit,
        label_noise=config.label_noise,
        seed=config.seed,
    )


def check_network_fits(arch: str, splits: Splits, seed: int) -> None:
    """Build the network before a store is created; raise if it does not fit into memory."""
    from memscore.models.architectures import build_network  # brings torch

    # torch reports a tensor that is too large as a RuntimeError, which has many other causes, so its message decides
    try:
        build_network(arch, splits.input_shape, splits.n_classes, seed)
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not re.search(r"memory|overflow", str(error)):
            raise
        match = re.search(r"(\d+) bytes", str(error))
        size = f": one of its tensors alone takes {int(match[1]) / 1e9:.0f} GB" if match else ""
        raise ValueError(
            f"--arch {arch} does not fit into the memory of this machine{size}; use fewer or narrower layers"
        ) from error


def build_recipe_record(recipe: Recipe) -> dict[str, Any]:
    """Build the recipe's record in the manifest, which is hashed: all fields but its source."""
    return {field: value for field, value in omit_new_defaults(recipe).items() if field != "source"}


def build_manifest(config: BankConfig, splits: Splits, arms: Sequence[Arm]) -> tuple[Manifest, str]:
    """Build the bank's manifest, everything that two runs must share to extend one bank; and the recipe's name.

    `arms` are only checked, since a bank may get more of them later. ValueError if the network does not fit into
    memory, a batch does not fit into an arm's subsets, or the recipe's augmentations allow fewer than --queries.
    """
    arch = config.arch or ARCHITECTURE_FOR.get(config.data, "resnet18")
    check_network_fits(arch, splits, config.seed)
    name, recipe = build_recipe(config, arch)
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
        seed=config.seed,
    )
    return manifest, name


def reload_splits(store: Store, data: str | None = None, folder: str | None = None) -> Splits:
    """Load again the data set that a bank was made from.

    Validation share, limit, label noise and seed come from the manifest, which holds the data set's name but not the
    path of a user's folder or file; `data` and `folder` are as estimate's options. ValueError if nothing can be read by
    that name, or its fingerprint is another.
    """
    manifest = store.manifest
    name, (n_train, n_validation, _) = data or manifest.data, manifest.split_sizes
    noise = float(manifest.label_changes.get("label_noise", 0.0))
    # The manifest has the sizes of the splits but not the options that made them. The data set's default split is tried
    # first; if its fingerprint is another, the share and the limit are computed back from the sizes.
    try:
        published = read_published(name, folder)
        splits = split_published(published, label_noise=noise, seed=manifest.seed)
        total = len(splits.train) + len(splits.validation)
        if splits.fingerprint != manifest.fingerprint and n_train + n_validation <= total:
            # a publisher's own validation split cannot be asked for by a share, so a share is given only where needed
            has_default_share = len(splits.validation) == n_validation
            validation = None if has_default_share else n_validation / total
            limit = None if n_train + n_validation == total else n_train
            splits = split_published(
                published, validation=validation, train_limit=limit, label_noise=noise, seed=manifest.seed
            )
    except (ValueError, FileNotFoundError) as error:
        raise ValueError(
            f"the bank's data {name!r} cannot be read again as the bank read it: {error} (--data takes what estimate's "
            "--data was)"
        ) from error
    if splits.fingerprint != manifest.fingerprint:
        raise ValueError(
            f"the data {name!r} is not what {store.folder.display_name} was made from: its fingerprint is "
            f"{splits.fingerprint[:12]}, the bank's {manifest.fingerprint[:12]}; give --data or --folder of the same"
        )
    # the bank's own normalization, not one that is computed again
    return replace(splits, mean=manifest.mean, std=manifest.std)
