"""RSU Tables 5 and 6, Fig. 7: sequences by ascending risk, on a tenth of the classes and of the examples at random.

Five rounds by theta_o's loss, or by the score of --risk, over nested sets, compared with a single run of GA, random
labels and bad teaching. A tenth of ten classes is one, of fewer also one, and claims say "a class" for any number;
--seed gives the first one (seed times their number, modulo classes), and parameters are chosen on as many that follow.
The random set has --size examples, or a tenth of the training set. The paper's D_i in D_{i+1} is read as nested sets;
the classes are forgotten once more in five disjoint parts.

What is compared reads the same: an algorithm that reads R too has a multiple of T epochs in one go and ceil(E / T) in
each of T rounds, bad teaching 5, as in the paper, random labels 10. One that reads only F, as GA, reads F
ceil(E / T) (T + 1) / 2 times in nested rounds, and ceil(E / T) times over disjoint parts: it has 6 epochs in one go
where the paper has 5, so 2 in each nested round, which read F 6 times too, and 6 in each disjoint one. Nested and
disjoint sets so differ in what a round sees, not in how much is read. Where R is read, disjoint rounds read
(T - 1) / 2 ceil(E / T) |F| less, a few percent here. Ranking reads F once more; a remark gives the examples read as a
multiple of a single run.
"""

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from typing import Any

from memscore.analysis.trial_rows import estimate_column
from memscore.statistics.claims import Claim, judge_claim, judge_equivalent
from memscore.store.store import Store
from unlearn.algorithms import get_algorithm
from unlearn.experiments.base import (
    Experiment,
    ExperimentResult,
    Results,
    SweepRunner,
    select_by_selection,
)
from unlearn.experiments.config import ExperimentConfig, Preset
from unlearn.experiments.plots import render_points
from unlearn.experiments.questions import QUESTIONS
from unlearn.optimization.steps import get_paper_numbers
from unlearn.trials.config import Row
from unlearn.tuning.config import SweepConfig
from unlearn.tuning.methods import has_epochs, name_ranked_variant
from unlearn.tuning.results import (
    paired_contrast,
    paired_difference,
    paired_mean_difference,
    select_rows,
)

ALGORITHMS = ("gradient-ascent", "random-label", "bad-teacher")
FORGET_ONLY_EPOCHS = 6
"""Of algorithms that do not read the retain set: 5 rounds of 2 epochs over nested sets read it 6 times too."""
VARIANTS = ("vanilla", "rsu", "rsu-reversed")
ROUNDS = 5
PARTS = {"class": "of a class", "random": "of random examples"}
DISJOINT = "class, disjoint"
NOT_PRINTED = "no number printed"
GAIN_FAMILY, ORDER_FAMILY = "RSU on a class against at random", "ascending against descending risk"
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


def make_sweeps(config: ExperimentConfig) -> Mapping[str, SweepConfig]:
    """Configure a tenth of the classes and of the examples in all variants; the classes again in disjoint parts."""
    manifest = Store.open(config.store).manifest
    n, size = manifest.n_classes, config.size or manifest.split_sizes[0] // 10
    tenth = max(1, n // 10)
    classes = "class:" + ",".join(str((config.seed * tenth + number) % n) for number in range(tenth))
    # See the module: numbers of epochs with which every arm of an algorithm reads as much.
    whole = {name: number for name in config.algorithms if (number := choose_epochs(name))}
    disjoint = {name: compute_disjoint_epochs(name, number) for name, number in whole.items()}
    fixed, fixed_disjoint = (
        tuple(f"{name}.epochs={number}" for name, number in epochs.items()) for epochs in (whole, disjoint)
    )
    common: dict[str, Any] = {"rounds": ROUNDS, "risk": config.risk}
    return {
        "class": config.make_sweep_config(classes, variants=VARIANTS, set=fixed, **common),
        "random": config.make_sweep_config("random", variants=VARIANTS, set=fixed, size=size, **common),
        DISJOINT: config.make_sweep_config(
            classes,
            variants=("rsu",),
            schedule="partition",
            rsu_epochs="whole",
            set=fixed_disjoint,
            **common,
        ),
    }


def choose_epochs(name: str) -> int:
    """Choose an algorithm's epochs so that one go reads as much as nested rounds do; 0 without epochs."""
    if not has_epochs(name):
        return 0
    config = get_algorithm(name).config
    if getattr(config, "FORGET_ONLY", False):
        # Nested rounds read a multiple of (T + 1) / 2 = 3 times F, so 5 epochs would have no equal.
        return FORGET_ONLY_EPOCHS
    return -(-int(get_paper_numbers(config)["epochs"]) // ROUNDS) * ROUNDS


def compute_disjoint_epochs(name: str, epochs: int) -> int:
    """Compute the epochs of a disjoint round so that all rounds read what nested ones do."""
    round_epochs = -(-epochs // ROUNDS)
    reads_forget_only = getattr(get_algorithm(name).config, "FORGET_ONLY", False)
    return round_epochs * (ROUNDS + 1) // 2 if reads_forget_only else round_epochs


def run(config: ExperimentConfig, runner: SweepRunner) -> ExperimentResult:
    """Run the sweeps, and add a remark on the cost of each arm; see base.run_sweeps."""
    result = runner.run(make_sweeps(config))
    return replace(result, remarks=[*result.remarks, *describe_costs(result.results, config)])


def describe_costs(results: Results, config: ExperimentConfig) -> list[str]:
    """Describe the examples that each sequence read, as a multiple of a single run; a line per algorithm.

    nan where all runs of an arm diverged, or a single run reads no examples.
    """
    rows = {
        part: select_rows(select_by_selection(part_rows, config.selection), status="ok")
        for part, part_rows in results.items()
    }
    arms = (
        ("class", "rsu"),
        ("class", "rsu-reversed"),
        (DISJOINT, "rsu"),
        ("random", "rsu"),
        ("random", "rsu-reversed"),
    )
    lines = []
    for name in config.algorithms:
        ratios = []
        for part, variant in arms:
            single_run = select_rows(rows["class" if part == DISJOINT else part], contender=name, variant="vanilla")
            in_rounds = select_rows(rows[part], contender=name, variant=name_ranked_variant(variant, config.risk))
            n_single = mean_examples_read(single_run, in_rounds)
            ratio = mean_examples_read(in_rounds, single_run) / n_single if n_single else float("nan")
            ratios.append(f"{ratio:.2f} {variant} ({part})")
        lines.append(f"{name}: examples read, as a multiple of one go's: {', '.join(ratios)}")
    return lines


def mean_examples_read(rows: list[Row], others: list[Row]) -> float:
    """Compute the mean of rrt_examples over the originals that both have."""
    shared = {row["index"] for row in others}
    return estimate_column([row for row in rows if row["index"] in shared], "rrt_examples").value


def check_claims(results: Results, config: ExperimentConfig) -> list[Claim]:
    """Judge RSU against a single run, more on a class than at random; then the order, and disjoint parts."""
    names = config.algorithms
    rows_by_method = {
        (name, part, variant): select_rows(
            select_by_selection(results[part], config.selection),
            contender=name,
            variant=name_ranked_variant(variant, config.risk),
        )
        for name in names
        for part in results
        for variant in VARIANTS
    }
    claims = []
    for part, suffix in PARTS.items():
        claims += [
            judge_claim(
                f"{name}: RSU is above one go {suffix} (ToW)",
                PAPER_TOW.get((name, part), NOT_PRINTED),
                paired_difference(rows_by_method[name, part, "rsu"], rows_by_method[name, part, "vanilla"], "tow_test"),
                family="RSU against one go",
            )
            for name in names
        ]
        terms = [term for name in names for term in make_gain_terms(rows_by_method, name, part, 1 / len(names))]
        claims.append(
            judge_claim(
                f"mean of all: RSU is above one go {suffix} (ToW)",
                NOT_PRINTED,
                paired_contrast(terms, "tow_test"),
                family="RSU against one go, mean",
            )
        )
    for name in names:
        terms = [
            *make_gain_terms(rows_by_method, name, "class", 1),
            *make_gain_terms(rows_by_method, name, "random", -1),
        ]
        claim = f"{name}: RSU gains more on a class than at random (ToW)"
        paper, value = PAPER_CLASS_GAINS.get(name, NOT_PRINTED), paired_contrast(terms, "tow_test")
        claims.append(judge_claim(claim, paper, value, family=GAIN_FAMILY))
    share = 1 / len(names)
    terms = [
        t
        for name in names
        for t in (
            *make_gain_terms(rows_by_method, name, "class", share),
            *make_gain_terms(rows_by_method, name, "random", -share),
        )
    ]
    claim = "mean of all: RSU gains more on a class than at random (ToW)"
    value = paired_contrast(terms, "tow_test")
    claims.append(judge_claim(claim, "more, in the paper's words", value, family=f"{GAIN_FAMILY}, mean"))
    claims += [
        judge_claim(
            f"{name}: RSU's MIA is nearer to the oracle's at random",
            PAPER_MIA_GAPS.get(name, NOT_PRINTED),
            paired_difference(
                rows_by_method[name, "random", "vanilla"], rows_by_method[name, "random", "rsu"], "mia_test_gap"
            ),
            family="RSU's MIA gap at random",
        )
        for name in names
    ]
    claims += [
        judge_equivalent(
            f"{first} and {second}: one go on random examples leaves the same MIA gap",
            "not in the paper; others find that no attack tells algorithms apart there",
            paired_difference(
                rows_by_method[first, "random", "vanilla"], rows_by_method[second, "random", "vanilla"], "mia_test_gap"
            ),
            family="equal MIA gaps at random",
        )
        for first, second in combinations(names, 2)
    ]
    for name in names:
        class_rows = {variant: rows_by_method[name, "class", variant] for variant in VARIANTS}
        claims += check_order(name, class_rows, rows_by_method[name, DISJOINT, "rsu"])
    ascending, descending = (
        [rows_by_method[name, "class", variant] for name in names] for variant in ("rsu", "rsu-reversed")
    )
    claims.append(
        judge_claim(
            "mean of all: ascending risk is above descending, of a class (ToW)",
            NOT_PRINTED,
            paired_mean_difference(ascending, descending, "tow_test"),
            family=f"{ORDER_FAMILY}, mean",
        )
    )
    return claims


def make_gain_terms(
    rows_by_method: Mapping[tuple[str, str, str], list[Row]], name: str, part: str, weight: float
) -> list[tuple[float, list[Row]]]:
    """Make the terms of a contrast of RSU against a single run."""
    return [(weight, rows_by_method[name, part, "rsu"]), (-weight, rows_by_method[name, part, "vanilla"])]


def check_order(name: str, class_rows: Mapping[str, list[Row]], disjoint_rows: list[Row]) -> list[Claim]:
    """Judge Fig. 7, for GA in the paper and for all algorithms here; and disjoint parts."""
    in_paper = name == "gradient-ascent"
    return [
        judge_claim(
            f"{name}: ascending risk is above descending, of a class (ToW)",
            "on all four data sets" if in_paper else "not in the paper",
            paired_difference(class_rows["rsu"], class_rows["rsu-reversed"], "tow_test"),
            family=ORDER_FAMILY,
        ),
        judge_claim(
            f"{name}: one go is above descending risk, of a class (ToW)",
            "in some cases" if in_paper else "not in the paper",
            paired_difference(class_rows["vanilla"], class_rows["rsu-reversed"], "tow_test"),
            family="one go against descending risk",
        ),
        judge_claim(
            f"{name}: RSU over nested sets is above RSU over disjoint parts, of a class (ToW)",
            "not in the paper",
            paired_difference(class_rows["rsu"], disjoint_rows, "tow_test"),
            family="nested against disjoint parts",
        ),
    ]


def draw_figure(results: Results, config: ExperimentConfig) -> bytes:
    """Draw ToW of a single run, reversed and RSU, a line per algorithm; a panel for the class, one for random."""
    variants = ("vanilla", "rsu-reversed", "rsu")
    panels = {
        f"forgetting {suffix}": {
            f"{name}|{variant}": select_rows(
                select_by_selection(results[part], config.selection),
                contender=name,
                variant=name_ranked_variant(variant, config.risk),
            )
            for name in config.algorithms
            for variant in variants
        }
        for part, suffix in PARTS.items()
    }
    title = f"order by {config.risk or 'risk'}, chosen by {config.selection}"
    return render_points(panels, config.algorithms, variants, "tow_test", "ToW (test)", title)


EXPERIMENT = Experiment(
    source="RSU Tables 5 and 6, Fig. 7",
    question=QUESTIONS["rsu"],
    make_sweeps=make_sweeps,
    check_claims=check_claims,
    draw_figure=draw_figure,
    small_preset=Preset(size=0, algorithms=ALGORITHMS, budget=6, tune_seeds=2, seeds=9, tunings=3),
    paper_preset=Preset(size=5000, algorithms=ALGORITHMS, budget=7, tune_seeds=2, seeds=3, tunings=3),
    run=run,
    ranks_by_risk=True,
)
