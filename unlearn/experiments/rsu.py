"""RSU Tables 5 and 6, Fig. 7: sequences by ascending risk, on a class and on a tenth of the examples at random.

Five rounds by theta_o's loss, over nested sets, and GA, random labels and bad teaching in one go beside them. With ten
classes a class is a tenth too; which one, --seed says (seed modulo classes), and parameters are chosen on the next one.
The random set has --size examples, or a tenth of the training set. The paper's D_i in D_{i+1} is read as nested sets;
the class goes once more in five disjoint parts.
"""

from collections.abc import Mapping
from itertools import combinations

from memscore.store import Store
from unlearn.experiments.figures import points
from unlearn.experiments.margins import alike
from unlearn.experiments.parts import Asked, Experiment, Finding, Results, Scale, chosen_by, finding
from unlearn.pairing import contrast, paired, where
from unlearn.sweep_plan import SweepPlan
from unlearn.trials import Row

ALGORITHMS = ("gradient-ascent", "random-label", "bad-teacher")
VARIANTS = ("vanilla", "rsu", "rsu-reversed")
PARTS = {"class": "of a class", "random": "of random examples"}
APART = "class, disjoint"
NO_NUMBER = "no number printed"
TOW = {
    ("gradient-ascent", "class"): "MNIST .94 to .96, CIFAR-10 .85 to .90",
    ("gradient-ascent", "random"): "MNIST .97 to .99, CIFAR-10 .89 to .91",
    ("random-label", "class"): "MNIST .99 to .99, CIFAR-10 .89 to .94",
    ("random-label", "random"): "MNIST .97 to .98, CIFAR-10 .82 to .87",
    ("bad-teacher", "class"): "MNIST .98 to .99, CIFAR-10 .91 to .94",
    ("bad-teacher", "random"): "MNIST .96 to .96, CIFAR-10 .87 to .88",
}
MORE = {
    "gradient-ascent": "MNIST .02 against .02, CIFAR-10 .05 against .02",
    "random-label": "MNIST .00 against .01, CIFAR-10 .05 against .05",
    "bad-teacher": "MNIST .01 against .00, CIFAR-10 .03 against .01",
}
MIA_GAPS = {
    "gradient-ascent": "MNIST .050 to .023, CIFAR-10 .020 to .031",
    "random-label": "MNIST .281 to .197, CIFAR-10 .271 to .246",
    "bad-teacher": "MNIST .941 to .941, CIFAR-10 .912 to .912",
}


def plans(asked: Asked) -> Mapping[str, SweepPlan]:
    """A class and random examples in all variants; the class again in disjoint parts."""
    manifest = Store.open(asked.store).manifest
    one = f"class:{asked.seed % manifest.n_classes}"
    size = asked.scale.size or manifest.split_sizes[0] // 10
    return {
        "class": asked.plan(one, variants=VARIANTS),
        "random": asked.plan("random", variants=VARIANTS, size=size),
        APART: asked.plan(one, variants=("rsu",), schedule="partition"),
    }


def findings(results: Results, asked: Asked) -> list[Finding]:
    """RSU against one go, on a class more than at random; then the order, and disjoint parts."""
    names = asked.scale.algorithms
    by = {
        (name, part, variant): where(chosen_by(results[part], asked.judge), contender=name, variant=variant)
        for name in names
        for part in results
        for variant in VARIANTS
    }
    said = []
    for part, ending in PARTS.items():
        said += [
            finding(
                f"{name}: RSU is above one go {ending} (ToW)",
                TOW.get((name, part), NO_NUMBER),
                paired(by[name, part, "rsu"], by[name, part, "vanilla"], "tow_test"),
            )
            for name in names
        ]
        terms = [term for name in names for term in gain(by, name, part, 1 / len(names))]
        said.append(finding(f"mean of all: RSU is above one go {ending} (ToW)", NO_NUMBER, contrast(terms, "tow_test")))
    for name in names:
        terms = [*gain(by, name, "class", 1), *gain(by, name, "random", -1)]
        claim = f"{name}: RSU gains more on a class than at random (ToW)"
        said.append(finding(claim, MORE.get(name, NO_NUMBER), contrast(terms, "tow_test")))
    share = 1 / len(names)
    terms = [t for name in names for t in (*gain(by, name, "class", share), *gain(by, name, "random", -share))]
    claim = "mean of all: RSU gains more on a class than at random (ToW)"
    said.append(finding(claim, "more, in the paper's words", contrast(terms, "tow_test")))
    said += [
        finding(
            f"{name}: RSU's MIA is nearer to the oracle's at random",
            MIA_GAPS.get(name, NO_NUMBER),
            paired(by[name, "random", "vanilla"], by[name, "random", "rsu"], "mia_test_gap"),
        )
        for name in names
    ]
    said += [
        alike(
            f"{one} and {other}: one go on random examples leaves the same MIA gap",
            "not in the paper; others find that no attack tells algorithms apart there",
            paired(by[one, "random", "vanilla"], by[other, "random", "vanilla"], "mia_test_gap"),
        )
        for one, other in combinations(names, 2)
    ]
    for name in names:
        ordered = {variant: by[name, "class", variant] for variant in VARIANTS}
        said += of_order(name, ordered, by[name, APART, "rsu"])
    return said


def gain(
    by: Mapping[tuple[str, str, str], list[Row]], name: str, part: str, weight: float
) -> list[tuple[float, list[Row]]]:
    """RSU less one go, as terms of a contrast."""
    return [(weight, by[name, part, "rsu"]), (-weight, by[name, part, "vanilla"])]


def of_order(name: str, of_class: Mapping[str, list[Row]], apart: list[Row]) -> list[Finding]:
    """Fig. 7, for GA in the paper and for all here; and what disjoint parts do."""
    printed = name == "gradient-ascent"
    return [
        finding(
            f"{name}: ascending risk is above descending, of a class (ToW)",
            "on all four data sets" if printed else "not in the paper",
            paired(of_class["rsu"], of_class["rsu-reversed"], "tow_test"),
        ),
        finding(
            f"{name}: one go is above descending risk, of a class (ToW)",
            "in some cases" if printed else "not in the paper",
            paired(of_class["vanilla"], of_class["rsu-reversed"], "tow_test"),
        ),
        finding(
            f"{name}: RSU over nested sets is above RSU over disjoint parts, of a class (ToW)",
            "not in the paper",
            paired(of_class["rsu"], apart, "tow_test"),
        ),
    ]


def figure(results: Results, asked: Asked) -> bytes:
    """ToW of one go, reversed and RSU, a line an algorithm; a panel for the class, one for random examples."""
    shown = ("vanilla", "rsu-reversed", "rsu")
    panels = {
        f"forgetting {ending}": {
            f"{name}|{variant}": where(chosen_by(results[part], asked.judge), contender=name, variant=variant)
            for name in asked.scale.algorithms
            for variant in shown
        }
        for part, ending in PARTS.items()
    }
    title = f"order by risk, chosen by {asked.judge}"
    return points(panels, asked.scale.algorithms, shown, "tow_test", "ToW (test)", title)


EXPERIMENT = Experiment(
    source="RSU Tables 5 and 6, Fig. 7",
    says="whether to forget by ascending risk is better than in one go",
    plans=plans,
    findings=findings,
    figure=figure,
    small=Scale(size=0, algorithms=ALGORITHMS, budget=10, tune_seeds=2, seeds=8),
    paper=Scale(size=5000, algorithms=ALGORITHMS, budget=20, tune_seeds=1, seeds=3),
)
