"""RUM Fig. 1b, Tables 7-9, Fig. 8: the less memorized what goes, the nearer unlearning comes to retraining.

Three forget sets of one size, the lowest, nearest .5 and highest memorization; every algorithm in one go. Methods that
draw labels go the other way in the paper: they forget what is not memorized too thoroughly.
"""

from collections.abc import Mapping

from memscore.statistics.claims import Finding, finding
from unlearn.algorithms import ALGORITHMS
from unlearn.experiments.base import Asked, Experiment, Results, Scale, chosen_by, run_and_count
from unlearn.experiments.plots import DETAILS, points
from unlearn.forget_sets import LEVELS
from unlearn.trials.config import ORACLE
from unlearn.tuning.config import SweepPlan
from unlearn.tuning.results import paired, where

FALLS = {
    "finetune": "CIFAR-10 .933 to .760, CIFAR-100 .974 to .768",
    "l1-sparse": ".914 to .629, .857 to .754",
    "gradient-ascent": ".938 to .325, .680 to .270",
    "neggrad-plus": ".965 to .661, .986 to .889",
    "influence": ".986 to .381, .960 to .154",
}
RISES = {"random-label": "CIFAR-10 .709 to .877", "salun": "CIFAR-10 .774 to .886"}
MIA_AT_LOW = {"salun": "CIFAR-10 .960 against .010", "random-label": "CIFAR-10 .611 against .010"}
TABLE_7 = (*FALLS, *RISES)
SMALL = Scale(size=200, algorithms=TABLE_7, budget=10, tune_seeds=2, seeds=8)
PAPER = Scale(
    size=3000,
    algorithms=tuple(name for name in ALGORITHMS if name not in {"original", "retrain"}),
    budget=20,
    tune_seeds=1,
    seeds=3,
)


def plans(asked: Asked) -> Mapping[str, SweepPlan]:
    """A sweep a level."""
    return {level: asked.plan(f"{asked.score}:{level}") for level in LEVELS}


def findings(results: Results, asked: Asked) -> list[Finding]:
    """The oracle's trends, the original's, and each algorithm's between low and high memorization."""
    low, high = (chosen_by(results[level], asked.judge) for level in ("low", "high"))
    oracles = [where(rows, contender=ORACLE) for rows in (low, high)]
    originals = [where(rows, contender="original", select="") for rows in (low, high)]
    said = [
        finding(
            "the oracle is right more often on what is little memorized than on what is much",
            "CIFAR-10 .997 to .234, CIFAR-100 .999 to .026",
            paired(oracles[0], oracles[1], "forget_accuracy"),
        ),
        finding(
            "the oracle's MIA is higher on what is much memorized",
            "CIFAR-10 .010 to .961",
            paired(oracles[1], oracles[0], "mia_test"),
        ),
        finding(
            "to do nothing is nearer to retraining on what is little memorized (ToW)",
            "CIFAR-10 .988 to .231, CIFAR-100 .983 to .026",
            paired(originals[0], originals[1], "tow_test"),
        ),
    ]
    for name in asked.scale.algorithms:
        rows = [where(found, contender=name) for found in (low, high)]
        if name in RISES:
            said.append(
                finding(
                    f"{name}: ToW is higher on high memorization", RISES[name], paired(rows[1], rows[0], "tow_test")
                )
            )
            over = paired(rows[0], oracles[0], "mia_test")
            said.append(finding(f"{name}: MIA on low memorization is above the oracle's", MIA_AT_LOW[name], over))
        else:
            printed = FALLS.get(name, "not in the paper")
            said.append(
                finding(f"{name}: ToW is higher on low memorization", printed, paired(rows[0], rows[1], "tow_test"))
            )
    return said


def figure(results: Results, asked: Asked) -> bytes:
    """ToW, what it is made of and MIA by level, a line an algorithm, chosen with and without an oracle."""
    names = [*asked.scale.algorithms, "original", ORACLE]
    panels = {
        f"chosen by {select}": {
            f"{name}|{level}": where(chosen_by(results[level], select), contender=name)
            for name in names
            for level in LEVELS
        }
        for select in (("oracle", "blind") if asked.select == "both" else (asked.select,))
    }
    title = f"{asked.score}: {asked.scale.size} examples to forget"
    return points(panels, names, LEVELS, "tow_test", "ToW (test)", title, DETAILS)


EXPERIMENT = Experiment(
    source="RUM Fig. 1b, Tables 7-9, Fig. 8",
    says="how memorization of what goes decides how well it goes",
    plans=plans,
    findings=findings,
    figure=figure,
    small=SMALL,
    paper=PAPER,
    run=run_and_count(plans),
)
