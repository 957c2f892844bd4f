"""RSU Tables 5 and 6, Fig. 7: sequences by ascending risk, on a tenth of the classes and of the examples at random.

Five rounds by theta_o's loss, over nested sets, and GA, random labels and bad teaching in one go beside them. A tenth
of ten classes is one, of fewer one too, and claims say "a class" of any number; --seed says from which one on (seed
times their number, modulo classes), and parameters are chosen on as many that follow. The random set has --size
examples, or a tenth of the training set. The paper's D_i in D_{i+1} is read as nested sets; the classes go once more in
five disjoint parts.

What is compared does not cost the same, and a remark gives the examples read beside one go's. With T rounds of
ceil(E / T) epochs each, an algorithm that reads R too pays for T ceil(E / T) passes over R in place of E: as many where
T divides E, T of them where E is 1, as bad teaching's. One that reads only F, as GA, pays for
ceil(E / T) (T + 1) / 2 passes over F nested, which is 3 in place of 5 at E = T = 5, and for ceil(E / T) over disjoint
parts; so there each disjoint round of it has ceil(E / T) (T + 1) / 2 epochs, and nested and disjoint sets differ in
what a round sees, not in how much is read. Where R is read, disjoint rounds read (T - 1) / 2 ceil(E / T) |F| less, a
few percent here. Ranking reads F once more.
"""

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations

from cluster.pool import Pool
from memscore.statistics.claims import Claim, judge_claim, judge_equivalent
from memscore.store.store import Store
from unlearn.algorithms import get_algorithm
from unlearn.experiments.base import (
    Experiment,
    ExperimentContext,
    ExperimentResult,
    Results,
    Scale,
    run_sweeps,
    select_by_selection,
)
from unlearn.experiments.plots import render_points
from unlearn.trials.config import Row, build_algorithm_config
from unlearn.trials.setup import ShowProgress
from unlearn.trials.tables import mean_with_interval
from unlearn.tuning.config import SweepConfig
from unlearn.tuning.results import paired_contrast, paired_difference, select_rows
from unlearn.tuning.search import SearchBackend

ALGORITHMS = ("gradient-ascent", "random-label", "bad-teacher")
FORGET_ONLY = ("gradient-ascent", "boundary-shrink", "boundary-expand")
"""Algorithms with epochs that do not read what stays."""
VARIANTS = ("vanilla", "rsu", "rsu-reversed")
ROUNDS = 5
PARTS = {"class": "of a class", "random": "of random examples"}
DISJOINT = "class, disjoint"
NOT_PRINTED = "no number printed"
PAPER_TOW = {
    ("gradient-ascent", "class"): "MNIST .94 to .96, CIFAR-10 .85 to .90",
    ("gradient-ascent", "random"): "MNIST .97 to .99, CIFAR-10 .89 to .91",
    ("random-label", "class"): "MNIST .99 to .99, CIFAR-10 .89 to .94",
    ("random-label", "random"): "MNIST .97 to .98, CIFAR-10 .82 to .87",
    ("bad-teacher", "class"): "MNIST .98 to .99, CIFAR-10 .91 to .94",
    ("bad-teacher", "random"): "MNIST .96 to .96, CIFAR-10 .87 to .88",
}
PAPER_CLASS_GAINS = {
    "gradient-ascent": "MNIST .02 against .02, CIFAR-10 .05 against .02",
    "random-label": "MNIST .00 against .01, CIFAR-10 .05 against .05",
    "bad-teacher": "MNIST .01 against .00, CIFAR-10 .03 against .01",
}
PAPER_MIA_GAPS = {
    "gradient-ascent": "MNIST .050 to .023, CIFAR-10 .020 to .031",
    "random-label": "MNIST .281 to .197, CIFAR-10 .271 to .246",
    "bad-teacher": "MNIST .941 to .941, CIFAR-10 .912 to .912",
}


def make_sweeps(asked: ExperimentContext) -> Mapping[str, SweepConfig]:
    """A tenth of the classes and of the examples in all variants; the classes again in disjoint parts."""
    manifest = Store.open(asked.store).manifest
    n, size = manifest.n_classes, asked.scale.size or manifest.split_sizes[0] // 10
    tenth = max(1, n // 10)
    classes = "class:" + ",".join(str((asked.seed * tenth + number) % n) for number in range(tenth))
    epochs = {name: compute_disjoint_epochs(name, manifest.architecture) for name in asked.scale.algorithms}
    given = tuple(f"{name}.epochs={number}" for name, number in epochs.items() if number)
    return {
        "class": asked.plan(classes, variants=VARIANTS, rounds=ROUNDS),
        "random": asked.plan("random", variants=VARIANTS, rounds=ROUNDS, size=size),
        DISJOINT: asked.plan(
            classes, variants=("rsu",), rounds=ROUNDS, schedule="partition", rsu_epochs="whole", set=given
        ),
    }


def compute_disjoint_epochs(name: str, architecture: str) -> int:
    """The epochs of a disjoint round by which all of them read what nested ones do; 0 of what has no epochs."""
    each = -(-getattr(build_algorithm_config(get_algorithm(name), {}, architecture), "epochs", 0) // ROUNDS)
    return each * (ROUNDS + 1) // 2 if name in FORGET_ONLY else each


def run(
    asked: ExperimentContext, pool: Pool, search: SearchBackend, device: str, phase: ShowProgress
) -> ExperimentResult:
    """The sweeps, with a remark on what their arms cost; see parts.swept."""
    carried = run_sweeps(asked, make_sweeps(asked), pool, search, device, phase)
    return replace(carried, remarks=[*carried.remarks, *describe_costs(carried.results, asked)])


def describe_costs(results: Results, asked: ExperimentContext) -> list[str]:
    """Examples that each sequence read, as a multiple of what one go read of the same originals; a line an algorithm.

    Args:
        results: judged rows.
        asked: what was asked for.

    Returns:
        The lines; nan where all runs of an arm diverged, whose examples say nothing, or one go reads none.
    """
    rows = {part: select_rows(select_by_selection(own, asked.judge), status="ok") for part, own in results.items()}
    arms = (
        ("class", "rsu"),
        ("class", "rsu-reversed"),
        (DISJOINT, "rsu"),
        ("random", "rsu"),
        ("random", "rsu-reversed"),
    )
    said = []
    for name in asked.scale.algorithms:
        found = []
        for part, variant in arms:
            once = select_rows(rows["class" if part == DISJOINT else part], contender=name, variant="vanilla")
            ours = select_rows(rows[part], contender=name, variant=variant)
            base = mean_examples_read(once, ours)
            ratio = mean_examples_read(ours, once) / base if base else float("nan")
            found.append(f"{ratio:.2f} {variant} ({part})")
        said.append(f"{name}: examples read, as a multiple of one go's: {', '.join(found)}")
    return said


def mean_examples_read(rows: list[Row], others: list[Row]) -> float:
    """Mean rrt_examples over the originals that both have."""
    shared = {row["index"] for row in others}
    return mean_with_interval([row["rrt_examples"] for row in rows if row["index"] in shared]).value


def check_claims(results: Results, asked: ExperimentContext) -> list[Claim]:
    """RSU against one go, on a class more than at random; then the order, and disjoint parts."""
    names = asked.scale.algorithms
    by = {
        (name, part, variant): select_rows(
            select_by_selection(results[part], asked.judge), contender=name, variant=variant
        )
        for name in names
        for part in results
        for variant in VARIANTS
    }
    said = []
    for part, ending in PARTS.items():
        said += [
            judge_claim(
                f"{name}: RSU is above one go {ending} (ToW)",
                PAPER_TOW.get((name, part), NOT_PRINTED),
                paired_difference(by[name, part, "rsu"], by[name, part, "vanilla"], "tow_test"),
            )
            for name in names
        ]
        terms = [term for name in names for term in make_gain_terms(by, name, part, 1 / len(names))]
        said.append(
            judge_claim(
                f"mean of all: RSU is above one go {ending} (ToW)", NOT_PRINTED, paired_contrast(terms, "tow_test")
            )
        )
    for name in names:
        terms = [*make_gain_terms(by, name, "class", 1), *make_gain_terms(by, name, "random", -1)]
        claim = f"{name}: RSU gains more on a class than at random (ToW)"
        said.append(judge_claim(claim, PAPER_CLASS_GAINS.get(name, NOT_PRINTED), paired_contrast(terms, "tow_test")))
    share = 1 / len(names)
    terms = [
        t
        for name in names
        for t in (*make_gain_terms(by, name, "class", share), *make_gain_terms(by, name, "random", -share))
    ]
    claim = "mean of all: RSU gains more on a class than at random (ToW)"
    said.append(judge_claim(claim, "more, in the paper's words", paired_contrast(terms, "tow_test")))
    said += [
        judge_claim(
            f"{name}: RSU's MIA is nearer to the oracle's at random",
            PAPER_MIA_GAPS.get(name, NOT_PRINTED),
            paired_difference(by[name, "random", "vanilla"], by[name, "random", "rsu"], "mia_test_gap"),
        )
        for name in names
    ]
    said += [
        judge_equivalent(
            f"{one} and {other}: one go on random examples leaves the same MIA gap",
            "not in the paper; others find that no attack tells algorithms apart there",
            paired_difference(by[one, "random", "vanilla"], by[other, "random", "vanilla"], "mia_test_gap"),
        )
        for one, other in combinations(names, 2)
    ]
    for name in names:
        ordered = {variant: by[name, "class", variant] for variant in VARIANTS}
        said += check_order(name, ordered, by[name, DISJOINT, "rsu"])
    return said


def make_gain_terms(
    by: Mapping[tuple[str, str, str], list[Row]], name: str, part: str, weight: float
) -> list[tuple[float, list[Row]]]:
    """RSU less one go, as terms of a contrast."""
    return [(weight, by[name, part, "rsu"]), (-weight, by[name, part, "vanilla"])]


def check_order(name: str, of_class: Mapping[str, list[Row]], apart: list[Row]) -> list[Claim]:
    """Fig. 7, for GA in the paper and for all here; and what disjoint parts do."""
    printed = name == "gradient-ascent"
    return [
        judge_claim(
            f"{name}: ascending risk is above descending, of a class (ToW)",
            "on all four data sets" if printed else "not in the paper",
            paired_difference(of_class["rsu"], of_class["rsu-reversed"], "tow_test"),
        ),
        judge_claim(
            f"{name}: one go is above descending risk, of a class (ToW)",
            "in some cases" if printed else "not in the paper",
            paired_difference(of_class["vanilla"], of_class["rsu-reversed"], "tow_test"),
        ),
        judge_claim(
            f"{name}: RSU over nested sets is above RSU over disjoint parts, of a class (ToW)",
            "not in the paper",
            paired_difference(of_class["rsu"], apart, "tow_test"),
        ),
    ]


def draw_figure(results: Results, asked: ExperimentContext) -> bytes:
    """ToW of one go, reversed and RSU, a line an algorithm; a panel for the class, one for random examples."""
    shown = ("vanilla", "rsu-reversed", "rsu")
    panels = {
        f"forgetting {ending}": {
            f"{name}|{variant}": select_rows(
                select_by_selection(results[part], asked.judge), contender=name, variant=variant
            )
            for name in asked.scale.algorithms
            for variant in shown
        }
        for part, ending in PARTS.items()
    }
    title = f"order by risk, chosen by {asked.judge}"
    return render_points(panels, asked.scale.algorithms, shown, "tow_test", "ToW (test)", title)


EXPERIMENT = Experiment(
    source="RSU Tables 5 and 6, Fig. 7",
    question="whether to forget by ascending risk is better than in one go",
    plans=make_sweeps,
    findings=check_claims,
    figure=draw_figure,
    small=Scale(size=0, algorithms=ALGORITHMS, budget=10, tune_seeds=2, seeds=8),
    paper=Scale(size=5000, algorithms=ALGORITHMS, budget=20, tune_seeds=1, seeds=3),
    run=run,
)
