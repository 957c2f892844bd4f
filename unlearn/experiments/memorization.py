"""RUM Fig. 1b, Tables 7-9, Fig. 8: the less memorized the forget set, the nearer unlearning comes to retraining.

Three forget sets of one size, with the lowest, nearest .5 and highest memorization; every algorithm on the whole set.
Methods that draw labels do the opposite in the paper: they forget examples of low memorization too thoroughly.
"""

from collections.abc import Mapping, Sequence

from memscore.statistics.claims import Claim, judge_claim
from unlearn.algorithms import ALGORITHMS
from unlearn.experiments.base import (
    Experiment,
    Results,
    select_by_selection,
)
from unlearn.experiments.config import ExperimentConfig, Preset
from unlearn.experiments.plots import DETAIL_COLUMNS, render_points
from unlearn.experiments.questions import QUESTIONS
from unlearn.forget_sets import LEVELS
from unlearn.trials.config import ORACLE, Row
from unlearn.tuning.config import SweepConfig
from unlearn.tuning.results import paired_difference, paired_mean_difference, select_rows

PAPER_FALLS = {
    "finetune": "CIFAR-10 .933 to .760, CIFAR-100 .974 to .768",
    "l1-sparse": ".914 to .629, .857 to .754",
    "gradient-ascent": ".938 to .325, .680 to .270",
    "neggrad-plus": ".965 to .661, .986 to .889",
    "influence": ".986 to .381, .960 to .154",
}
PAPER_RISES = {"random-label": "CIFAR-10 .709 to .877", "salun": "CIFAR-10 .774 to .886"}
PAPER_MIA_AT_LOW = {"salun": "CIFAR-10 .960 against .010", "random-label": "CIFAR-10 .611 against .010"}
TABLE_7 = (*PAPER_FALLS, *PAPER_RISES)
SMALL = Preset(size=200, algorithms=TABLE_7, budget=6, tune_seeds=2, seeds=9, tunings=3)
PAPER = Preset(
    size=3000,
    algorithms=tuple(name for name in ALGORITHMS if name not in {"original", "retrain"}),
    budget=7,
    tune_seeds=2,
    seeds=3,
    tunings=3,
)


def make_sweeps(config: ExperimentConfig) -> Mapping[str, SweepConfig]:
    """Configure a sweep for each level."""
    return {level: config.make_sweep_config(f"{config.score}:{level}") for level in LEVELS}


def check_claims(results: Results, config: ExperimentConfig) -> list[Claim]:
    """Judge the claims on the oracle, the original, and each algorithm between low and high memorization."""
    low, high = (select_by_selection(results[level], config.selection) for level in ("low", "high"))
    oracles = [select_rows(rows, contender=ORACLE) for rows in (low, high)]
    originals = [select_rows(rows, contender="original", select="") for rows in (low, high)]
    family = "the oracle and doing nothing by memorization"
    claims = [
        judge_claim(
            "the oracle is right more often on what is little memorized than on what is much",
            "CIFAR-10 .997 to .234, CIFAR-100 .999 to .026",
            paired_difference(oracles[0], oracles[1], "forget_accuracy"),
            family=family,
        ),
        judge_claim(
            "the oracle's MIA is higher on what is much memorized",
            "CIFAR-10 .010 to .961",
            paired_difference(oracles[1], oracles[0], "mia_test"),
            family=family,
        ),
        judge_claim(
            "to do nothing is nearer to retraining on what is little memorized (ToW)",
            "CIFAR-10 .988 to .231, CIFAR-100 .983 to .026",
            paired_difference(originals[0], originals[1], "tow_test"),
            family=family,
        ),
    ]
    family, rows_by_method = "ToW by memorization", {}
    for name in config.algorithms:
        rows = [select_rows(level_rows, contender=name) for level_rows in (low, high)]
        rows_by_method[name] = rows
        if name in PAPER_RISES:
            claims.append(
                judge_claim(
                    f"{name}: ToW is higher on high memorization",
                    PAPER_RISES[name],
                    paired_difference(rows[1], rows[0], "tow_test"),
                    family=family,
                )
            )
            excess = paired_difference(rows[0], oracles[0], "mia_test")
            claims.append(
                judge_claim(
                    f"{name}: MIA on low memorization is above the oracle's",
                    PAPER_MIA_AT_LOW[name],
                    excess,
                    family="MIA at low memorization",
                )
            )
        else:
            paper = PAPER_FALLS.get(name, "not in the paper")
            claims.append(
                judge_claim(
                    f"{name}: ToW is higher on low memorization",
                    paper,
                    paired_difference(rows[0], rows[1], "tow_test"),
                    family=family,
                )
            )
    return [*claims, *check_means(rows_by_method)]


def check_means(rows_by_method: Mapping[str, Sequence[list[Row]]]) -> list[Claim]:
    """Judge the two trends by the means over the paper's algorithms, where several take part.

    `rows_by_method` has the rows at low and at high memorization.
    """
    claims = []
    for paper_values, kind, level, sides in (
        (PAPER_FALLS, "that draw no labels", "low", (0, 1)),
        (PAPER_RISES, "that draw labels", "high", (1, 0)),
    ):
        # the mean of one algorithm would be its own claim once more
        names = [name for name in rows_by_method if name in paper_values]
        if len(names) > 1:
            ours, theirs = ([rows_by_method[name][side] for name in names] for side in sides)
            claims.append(
                judge_claim(
                    f"mean of the paper's algorithms {kind}: ToW is higher on {level} memorization",
                    "no mean printed",
                    paired_mean_difference(ours, theirs, "tow_test"),
                    family=f"ToW by memorization, mean of those {kind}",
                )
            )
    return claims


def draw_figure(results: Results, config: ExperimentConfig) -> bytes:
    """Draw ToW, its parts and MIA by level, a line per algorithm, chosen with and without an oracle."""
    names = [*config.algorithms, "original", ORACLE]
    panels = {
        f"chosen by {selection}": {
            f"{name}|{level}": select_rows(select_by_selection(results[level], selection), contender=name)
            for name in names
            for level in LEVELS
        }
        for selection in config.selections
    }
    title = f"{config.score}: {config.size} examples to forget"
    return render_points(panels, names, LEVELS, "tow_test", "ToW (test)", title, DETAIL_COLUMNS)


EXPERIMENT = Experiment(
    source="RUM Fig. 1b, Tables 7-9, Fig. 8",
    question=QUESTIONS["memorization"],
    make_sweeps=make_sweeps,
    check_claims=check_claims,
    draw_figure=draw_figure,
    small_preset=SMALL,
    paper_preset=PAPER,
)
