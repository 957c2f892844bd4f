"""Names that options of trials, sweeps and experiments take, with what each is, from the tables that define them."""

from unlearn.algorithms import ALGORITHMS
from unlearn.experiments.registry import EXPERIMENTS
from unlearn.forget_sets import FORGET_SETS
from unlearn.measures import MEASURES
from unlearn.tuning.methods import VARIANTS

VARIANT_MEANINGS = {
    "vanilla": "the algorithm on the whole forget set",
    "vanilla-long": "as vanilla with as many times the epochs as there are --parts: the cost of refinement without it",
    "shuffle": "the algorithm on random parts, one after the other",
    "rum": "on parts refined by a score, from the lowest to the highest (RUM)",
    "rsu": "in rounds of ascending risk (RSU)",
    "auto": "as rum, with the best of the algorithms for each part",
}
"""What each variant does; one that ends in -reversed takes the other order."""


def describe_names(kind: str) -> tuple[str, dict[str, str]]:
    """Return a title and the names of one kind, each with what it is."""
    titles_and_names = {
        "algorithms": ("--algorithm", {name: f"{a.summary} ({a.paper})" for name, a in ALGORITHMS.items()}),
        "measures": ("--measures, besides those that are always computed", describe_measures()),
        "forget-sets": ("--forget", describe_forget_sets()),
        "variants": ("--variants of a sweep", {name: describe_variant(name) for name in VARIANTS}),
        "experiments": ("experiments", {name: f"{e.question} ({e.source})" for name, e in EXPERIMENTS.items()}),
    }
    return titles_and_names[kind]


def describe_measures() -> dict[str, str]:
    """Describe each measure, and whether it is always computed."""
    return {name: entry.summary + ", always computed" * entry.core for name, entry in MEASURES.items()}


def describe_forget_sets() -> dict[str, str]:
    """Describe each form of --forget."""
    return {
        written: meaning.replace("`", "")
        for entry in FORGET_SETS.values()
        for written, meaning in entry.meanings.items()
    }


def describe_variant(name: str) -> str:
    """Describe a variant by the one whose order it reverses."""
    base, reverses, _ = name.partition("-reversed")
    return VARIANT_MEANINGS[base] + ", in the other order" * bool(reverses)
