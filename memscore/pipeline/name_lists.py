"""Names that options of a bank take, with what each is, from the tables that define them."""

from memscore.data.published import TORCHVISION_CLASSES
from memscore.data.published_folders import PUBLISHED_FOLDERS
from memscore.estimators.registry import STATISTICS
from memscore.models.architectures import ARCHITECTURES, WIDTH_EXAMPLES
from memscore.pipeline.attacks import ATTACKS
from memscore.pipeline.config import ARCHITECTURE_FOR, PRESETS
from memscore.proxies.registry import ALL_PROXIES, PROXIES
from memscore.score_registry import SCORES
from memscore.training.recipes import RECIPES, Recipe, get_default_recipe_name
from memscore.units import format_count

OWN_FUNCTION = "module:function"


def describe_names(kind: str) -> tuple[str, dict[str, str]]:
    """Return a title and the names of one kind, each with what it is."""
    titles_and_names = {
        "data": ("--data", describe_data_sets()),
        "architectures": ("--arch", describe_architectures()),
        "recipes": ("--recipe", {name: describe_recipe(recipe) for name, recipe in RECIPES.items()}),
        "presets": ("--preset", describe_presets()),
        "attacks": ("--attacks", {name: f"gives {', '.join(attack.scores)}" for name, attack in ATTACKS.items()}),
        "proxies": ("--proxies", describe_proxies()),
        "scores": ("scores, as NAME_k0.500 for models trained on one half", describe_scores()),
    }
    return titles_and_names[kind]


def describe_data_sets() -> dict[str, str]:
    """Describe what --data takes."""
    downloaded = {name: f"torchvision's {published}" for name, published in TORCHVISION_CLASSES.items()}
    downloaded |= dict.fromkeys(PUBLISHED_FOLDERS, "the publisher's folder of images, not downloaded")
    own = {
        "./FOLDER": "images in one folder a class, or beside metadata.csv; .parquet files",
        "FILE.csv, FILE.parquet": "a table of files, or of images, with their labels",
        "FILE.npz": "arrays of images and labels",
        OWN_FUNCTION: "a function of yours that returns arrays or torch data sets",
    }
    return {"digits": "scikit-learn's 1,797 digits of 8x8 pixels", **downloaded, **own}


def describe_architectures() -> dict[str, str]:
    """Describe each architecture: its default recipe, and the data that it is the default of."""
    names = {}
    for name in ARCHITECTURES:
        data = [each for each, default in ARCHITECTURE_FOR.items() if default == name]
        data += ["all other data"] * (name == "resnet18")
        default = f"; the default of {', '.join(data)}" if data else ""
        names[name] = f"recipe {get_default_recipe_name('', name)}{default}"
    # As many letters as the example has widths, since some families take any number of them and some do not.
    widths = {
        family
        + "".join(f"-{letter}" for letter in "NMK"[: example.count("-")]): f"{family} of these widths, as {example}"
        for family, example in WIDTH_EXAMPLES.items()
    }
    return {**names, **widths, OWN_FUNCTION: "a function of (input_shape, n_classes) that returns a torch module"}


def describe_recipe(recipe: Recipe) -> str:
    """Describe a recipe in a line."""
    augment = f", {' and '.join(recipe.augment)}" if recipe.augment else ""
    return (
        f"{format_count(recipe.epochs, 'epoch')}, batch {recipe.batch}, {recipe.optimizer} {recipe.lr:g} "
        f"{recipe.schedule}{augment}; "
        f"{recipe.source}"
    )


def describe_presets() -> dict[str, str]:
    """Describe each preset: design, keep fractions and models."""
    names = {}
    for name, (arms, count) in PRESETS.items():
        keeps = f"{arms[0].keep:g}" + (f" to {arms[-1].keep:g}" if len(arms) > 1 else "")
        names[name] = f"{arms[0].design} subsets of {keeps}, {count} models{' each' * (len(arms) > 1)}"
    return names


def describe_proxies() -> dict[str, str]:
    """Describe each proxy: when it is computed, and its scores."""
    names = {}
    for name, proxy in PROXIES.items():
        images = f"; trains on {proxy.trains_on} images" if proxy.trains_on else ""
        names[name] = f"{proxy.stage}; gives {', '.join(proxy.scores)}{images}"
    return {**names, ALL_PROXIES: "all but those that train on test images"}


def describe_scores() -> dict[str, str]:
    """Describe each score by its source."""
    statistics = {name: entry.info.source for name, entry in STATISTICS.items()}
    return statistics | {name: info.source for name, info in SCORES.items()}
