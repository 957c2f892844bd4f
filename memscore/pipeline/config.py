"""What a user asks of one bank: data, architecture, recipe, design, how many models."""

import re
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal

import tyro

from memscore.choices import validate_choice
from memscore.cli.options import Maybe, Several, make_nonempty_spec
from memscore.data.datasets import load_dataset
from memscore.data.splits import Splits
from memscore.models.architectures import build_network
from memscore.proxies.registry import ALL_PROXIES, PROXIES, select_proxies
from memscore.proxies.storage import SMALL_IMAGE_SIDE, InversionOptions, choose_total_variation
from memscore.store.manifest import Manifest
from memscore.store.store import Store
from memscore.subsets.clustering import ORTHOGONAL, ClusteringSource
from memscore.subsets.designs import Arm, count_whole_blocks
from memscore.training.augmentation import list_test_time_augmentations
from memscore.training.recipes import AUGMENTATIONS, Recipe, get_default_recipe_name
from memscore.training.recipes import get_recipe as recipe_named

PRESETS: dict[str, tuple[tuple[Arm, ...], int]] = {
    "fast": ((Arm(design="orthogonal", keep=0.5),), 256),
    "paper": ((Arm(design="iid", keep=0.7),), 400),
    "cscore": (tuple(Arm(design="exact", keep=tenth / 10, block=20) for tenth in range(1, 10)), 200),
}
"""Arms and models of each; `paper` is what RUM's released code trains for CIFAR-10, `cscore` has the fractions and the
models of the C-score's reference code (Jiang et al. 2021), whose subsets are iid."""

NO_AUGMENTATION = "none"
MAX_MODELS = 99_999
"""Models of an arm at most: a model's name has five digits."""
FINEST = 1e-4
"""The smallest error that can be asked for; MOST models reach about .001."""

ARCHITECTURE_FOR = {"digits": "mlp", "mnist": "cnn", "fashion-mnist": "cnn"}
"""The default architecture of a data set; every other one gets resnet18."""


@dataclass(frozen=True, kw_only=True)
class BankConfig:
    """One bank and what to read from it."""

    data: str = "digits"
    """digits, fashion-mnist, mnist, cifar10, cifar100, svhn, an image folder, a .npz file, or module:function"""
    folder: Maybe[str] = None
    """where a downloadable data set lies or is to be put (default: $MEMSCORE_DATA or ~/.cache/memscore/data)"""
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
    """instead of the recipe's; its milestones move along"""
    batch: Maybe[int] = None
    """instead of the recipe's"""
    lr: Maybe[float] = None
    """instead of the recipe's"""
    augment: Annotated[
        tuple[str, ...], make_nonempty_spec((*AUGMENTATIONS, NO_AUGMENTATION)), tyro.conf.arg(help_behavior_hint="")
    ] = ()
    """crop, flip or both, or none, instead of the recipe's: drawn anew for each image in each epoch"""
    precision: Maybe[Literal["float32", "bfloat16"]] = None
    """instead of the recipe's"""
    preset: str = "fast"
    """fast: orthogonal subsets of one half, 256 models; paper: iid subsets of 0.7, 400 models; cscore: exact subsets of
    0.1, 0.2, ... 0.9, 200 models each"""
    design: Maybe[str] = None
    """iid, exact or orthogonal: how subsets are drawn, instead of the preset's"""
    keep: Maybe[float] = None
    """share of the training set that a model sees, instead of the preset's"""
    block: Maybe[int] = None
    """models a block of the design, instead of the design's own"""
    clusters: Maybe[ClusteringSource] = None
    """what the clusters of orthogonal subsets are made from: pixels, or a pilot, which is the embeddings of original 0
    (default: as on file, else pixels)"""
    models: Maybe[int] = None
    """how many models an arm has in all, in whole blocks; what is already in the store is not trained again (default:
    the preset's). With --until-rmse at most so many (default: no ceiling)"""
    until_rmse: Maybe[float] = None
    """train block after block until the root mean square error of memorization, measured on the bank, is no more"""
    originals: int = 3
    """models trained on everything, for the proxies"""
    bank_events: bool = False
    """also keep learning events of the members of every bank model"""
    evaluation_events: bool = False
    """also count learning events of the originals in an evaluation pass after every epoch"""
    queries: Maybe[int] = None
    """fixed augmentations that every bank model is asked about, the image itself included, for LiRA: mirrored and
    shifted as the recipe augments (default: as on file, else 1)"""
    attacks: Several = ("lira",)
    """membership attacks of the bank's models on each other: lira (Student-t), lira-gap, lira-top-gap (RSU),
    lira-paper, lira-released, lira-released-fixed, lira-advanced-mia-fixed, rmia, rmia-offline"""
    proxies: Annotated[Several, make_nonempty_spec((*PROXIES, ALL_PROXIES))] = ()
    """stand-ins for memorization to compute on the originals beside learning events: holdout, curvature-sign,
    curvature-rademacher, aum, el2n, grand, centroid-distance, inversion, or all of these; holdout-test spends the test
    set and is not in all"""
    inversion_candidates: int = 1000
    """training examples, drawn at random, that --proxies inversion attacks"""
    inversion_iterations: int = 250
    """of the attack on each of them"""
    inversion_tv: Maybe[float] = None
    """weight of the total variation in the attack (default: 0.1, or 0.001 for images below 16 pixels a side)"""
    dry_run: bool = False
    """only say how many models, how much time and how much disk it would take; nothing is written"""
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
        if self.until_rmse is not None and not FINEST <= self.until_rmse < 1:
            raise ValueError(
                f"--until-rmse must lie between {FINEST:g} and 1, got {self.until_rmse}; "
                "0.02 took 64 to 400 models in the banks tried"
            )
        if select_proxies(self.proxies) and not self.originals:
            raise ValueError("--proxies are computed on the originals, and --originals is 0; use 1 or more")
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"--seed must lie between 0 and 2^64 - 1, got {self.seed}; 0 is the default")
        build_inversion_options(self, (1, SMALL_IMAGE_SIDE, SMALL_IMAGE_SIDE))


def build_designs(plan: BankConfig) -> tuple[list[Arm], int]:
    """The arms and the number of models of each that a plan asks for.

    Args:
        plan: the user's wishes; what it leaves open comes from its preset.

    Returns:
        The arms, one unless the preset is a grid of fractions and no --keep is given; a count of whole blocks, which is
        a ceiling where a precision is wanted.

    Raises:
        ValueError: a design that cannot be, or a count that is not whole blocks.
    """
    arms, count = PRESETS[validate_choice("preset", plan.preset, PRESETS)]
    design = plan.design or arms[0].design
    if plan.clusters and design != ORTHOGONAL:
        raise ValueError(f"--clusters {plan.clusters} is for orthogonal subsets, and {design} ones need no clusters")
    block = arms[0].block if plan.block is None and len(arms) > 1 and plan.design is None else plan.block
    keeps = [arm.keep for arm in arms] if plan.keep is None else [plan.keep]
    wanted = [Arm(design=design, keep=keep, block=block) for keep in keeps]
    if plan.until_rmse is not None and len(wanted) > 1:
        raise ValueError(f"--until-rmse fills one arm, and --preset {plan.preset} has {len(wanted)}; give a --keep")
    if plan.models is None and plan.until_rmse is not None:
        return wanted, MAX_MODELS // wanted[0].models_per_block * wanted[0].models_per_block
    count = count if plan.models is None else plan.models
    for arm in wanted:
        count_whole_blocks(count, arm)
    return wanted, count


def build_recipe(plan: BankConfig, arch: str) -> tuple[str, Recipe]:
    """The recipe's name and the recipe with the user's changes."""
    name = plan.recipe or get_default_recipe_name(plan.data, arch)
    wishes = {"epochs": plan.epochs, "batch": plan.batch, "lr": plan.lr, "precision": plan.precision}
    changes: dict[str, Any] = {field: value for field, value in wishes.items() if value is not None}
    if plan.augment:
        changes["augment"] = () if plan.augment == (NO_AUGMENTATION,) else plan.augment
    known = recipe_named(name)
    if plan.epochs is not None:  # the schedule keeps its shape
        changes["milestones"] = tuple(mark * plan.epochs / known.epochs for mark in known.milestones)
    return name, replace(known, **changes)


def build_inversion_options(plan: BankConfig, input_shape: tuple[int, int, int]) -> InversionOptions:
    """The settings of gradient inversion for images of this shape."""
    weight = choose_total_variation(input_shape) if plan.inversion_tv is None else plan.inversion_tv
    return InversionOptions(
        candidates=plan.inversion_candidates, iterations=plan.inversion_iterations, total_variation=weight
    )


def load_splits(plan: BankConfig) -> Splits:
    """The plan's data set."""
    return load_dataset(
        plan.data,
        folder=plan.folder,
        validation=plan.validation,
        train_limit=plan.train_limit,
        label_noise=plan.label_noise,
        seed=plan.seed,
    )


def refuse_large_batch(recipe: Recipe, arm: Arm, n_train: int) -> None:
    """Stop before a store is begun if a batch cannot be filled; training checks each subset itself."""
    about = round(arm.keep * n_train)
    if recipe.batch > about:
        fits = 2 ** max(0, (about // 2).bit_length() - 1)  # subsets of a block differ in size, so not just below about
        raise ValueError(
            f"a batch of {recipe.batch} is larger than a subset, about {about} of {n_train} examples; "
            f"use --batch {fits}, or a larger --keep"
        )


def refuse_huge(arch: str, splits: Splits, seed: int) -> None:
    """Build the network once, before a store is begun: one that cannot be, or not in this memory, is refused."""
    try:
        build_network(arch, splits.input_shape, splits.n_classes, seed)
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not re.search(r"memory|overflow", str(error)):
            raise
        asked = re.search(r"(\d+) bytes", str(error))
        size = f": one of its tensors alone takes {int(asked[1]) / 1e9:.0f} GB" if asked else ""
        raise ValueError(
            f"--arch {arch} does not fit into the memory of this machine{size}; use fewer or narrower layers"
        ) from error


def build_manifest(plan: BankConfig, splits: Splits) -> tuple[Manifest, str]:
    """The identity of the bank, and the name of its recipe for the folder.

    Args:
        plan: the user's wishes.
        splits: its data set.

    Returns:
        Everything that two banks must have in common to be one, and the recipe's name.
    """
    arch = plan.arch or ARCHITECTURE_FOR.get(plan.data, "resnet18")
    refuse_huge(arch, splits, plan.seed)
    name, recipe = build_recipe(plan, arch)
    list_test_time_augmentations(recipe, 1 if plan.queries is None else plan.queries)
    for arm in build_designs(plan)[0]:
        refuse_large_batch(recipe, arm, len(splits.train))
    fields: dict[str, Any] = {field: value for field, value in asdict(recipe).items() if field != "source"}
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
        recipe=fields,
        precision=recipe.precision,
        seed=plan.seed,
    )
    return manifest, name


def reload_splits(store: Store, data: str | None = None, folder: str | None = None) -> Splits:
    """The data set that a bank was made from, read once more.

    Validation share, limit, label noise and seed come from the manifest, which knows the data set's name but not where
    a user's own folder or file lay.

    Args:
        store: open.
        data: name or path, as estimate's --data; None for the manifest's.
        folder: as estimate's --folder.

    Returns:
        Splits with the bank's fingerprint.

    Raises:
        ValueError: it cannot be read by that name, or it is other data.
    """
    manifest = store.manifest
    name, (n_train, n_validation, _) = data or manifest.data, manifest.split_sizes
    noise = float(manifest.label_changes.get("label_noise", 0.0))
    try:
        splits = load_dataset(name, folder=folder, label_noise=noise, seed=manifest.seed)
        total = len(splits.train) + len(splits.validation)
        if splits.fingerprint != manifest.fingerprint and n_train + n_validation <= total:
            own = len(splits.validation) == n_validation
            validation = None if own else n_validation / total
            limit = None if n_train + n_validation == total else n_train
            splits = load_dataset(
                name, folder=folder, validation=validation, train_limit=limit, label_noise=noise, seed=manifest.seed
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
    return replace(splits, mean=manifest.mean, std=manifest.std)
