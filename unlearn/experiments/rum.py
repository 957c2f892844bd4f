"""RUM Table 1, Tables 10 and 11, Fig. 3: does it help to refine what goes by memorization, and to choose for each part?

The forget set is the union of the lowest, the middle and the highest; algorithms in one go, on random parts and on
refined ones in both orders; and three plans that do nothing to what is little memorized. Random labels stand beside
the paper's four, so that automatic RUM chooses among five and nothing.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from memscore.statistics.claims import Finding, alike, finding, not_lower
from unlearn.algorithms import algorithm
from unlearn.experiments.base import Asked, Experiment, Results, Scale, chosen_by, run_and_count
from unlearn.experiments.plots import points
from unlearn.trials.config import Row
from unlearn.tuning.config import SweepPlan
from unlearn.tuning.methods import AUTOMATIC, named_by
from unlearn.tuning.results import last_step, mean_of, paired, where

ALGORITHMS = ("finetune", "l1-sparse", "neggrad-plus", "salun", "random-label")
PLANS = ("nothing>finetune>salun", "nothing>salun>finetune", "nothing>salun>salun")
VARIANTS = ("vanilla", "shuffle", "rum", "rum-reversed", "auto", "auto-reversed")
PRINTED = {  # vanilla, shuffle, RUM^F on CIFAR-10
    "finetune": (0.849, 0.712, 0.937),
    "l1-sparse": (0.794, 0.716, 0.900),
    "neggrad-plus": (0.802, 0.632, 0.879),
    "salun": (0.731, 0.727, 0.887),
}
MIA_GAPS = {"salun": "CIFAR-10 .031 against .221"}
UNION, GAP = "union", "mia_test_gap"
FULL = "original>finetune>salun"
Of = Callable[[str, str], list[Row]]
"""Contender and variant -> judged rows."""


def plans(asked: Asked) -> Mapping[str, SweepPlan]:
    """One sweep over the union."""
    given = {"variants": VARIANTS, "plans": PLANS, "scores": (asked.score,)}
    return {UNION: asked.plan(f"{asked.score}:union", **given)}


def findings(results: Results, asked: Asked) -> list[Finding]:
    """RUM^F against vanilla and shuffle, one order against the other, plans against RUM^F and each other."""
    rows = last_step(chosen_by(results[UNION], asked.judge))

    def of(contender: str, variant: str) -> list[Row]:
        return where(rows, contender=contender, variant=named_by(variant, asked.score))

    names = [name for name in asked.scale.algorithms if of(name, "rum")]
    plans_too = of_plans(of, names) if of(FULL, "rum") else []
    return [*of_refinement(of, names), *of_order(of, names), *plans_too]


def of_refinement(of: Of, names: Sequence[str]) -> list[Finding]:
    """RUM^F, vanilla and shuffle of each algorithm, and of the paper's together."""
    said = []
    for name in names:
        printed = PRINTED.get(name)
        numbers = [f"{value:.3f}" for value in printed] if printed else ["not printed"] * 3
        vanilla, shuffle, refined = (of(name, variant) for variant in ("vanilla", "shuffle", "rum"))
        said += [
            finding(
                f"{name}: RUM^F has a higher ToW than vanilla",
                f"{numbers[2]} against {numbers[0]}",
                paired(refined, vanilla, "tow_test"),
            ),
            finding(
                f"{name}: RUM^F has a higher ToW than shuffle",
                f"{numbers[2]} against {numbers[1]}",
                paired(refined, shuffle, "tow_test"),
            ),
            finding(
                f"{name}: vanilla has a higher ToW than shuffle",
                f"{numbers[0]} against {numbers[1]}",
                paired(vanilla, shuffle, "tow_test"),
            ),
        ]
    papers = [name for name in names if name in PRINTED]
    if papers:
        vanilla_mean, _, refined_mean = np.mean([PRINTED[name] for name in papers], axis=0)
        value = mean_of([of(name, "rum") for name in papers], [of(name, "vanilla") for name in papers], "tow_test")
        claim = "RUM^F has a higher ToW than vanilla, mean of the paper's algorithms"
        said.append(finding(claim, f"{refined_mean:.3f} against {vanilla_mean:.3f}", value))
    return said


def of_order(of: Of, names: Sequence[str]) -> list[Finding]:
    """RUM^F in ascending order against descending: MIA where labels are drawn, ToW of fine-tuning, MIA of all."""
    said = [
        finding(
            f"{name}: RUM^F has a smaller MIA gap ascending than descending",
            MIA_GAPS.get(name, "not printed"),
            paired(of(name, "rum-reversed"), of(name, "rum"), GAP),
        )
        for name in names
        if algorithm(name).random_labels
    ]
    if "finetune" in names:
        value = paired(of("finetune", "rum"), of("finetune", "rum-reversed"), "tow_test")
        said.append(alike("finetune: RUM^F has a similar ToW in both orders", "CIFAR-10 .937 and .942", value))
    papers = [name for name in names if name in PRINTED]
    if papers:
        said.append(
            finding(
                "RUM^F: ascending has a smaller MIA gap than descending, mean of the paper's algorithms",
                "no mean printed",
                mean_of([of(name, "rum-reversed") for name in papers], [of(name, "rum") for name in papers], GAP),
            )
        )
    return said


def of_plans(of: Of, names: Sequence[str]) -> list[Finding]:
    """Plans that do nothing to what is little memorized: against RUM^F, each other, and automatic RUM."""
    full, salun = of(FULL, "rum"), of("salun", "rum")
    said = [
        finding(
            f"nothing, fine-tuning, SalUn has a higher ToW than RUM^F of {name}",
            ".965 against " + (f"{PRINTED[name][2]:.3f}" if name in PRINTED else "-"),
            paired(full, of(name, "rum"), "tow_test"),
        )
        for name in names
    ]
    nothing, swapped = of("original>salun>salun", "rum"), of("original>salun>finetune", "rum")
    if nothing and salun:
        said += [
            finding(
                "SalUn does better with nothing done to what is little memorized",
                ".919 against .887",
                paired(nothing, salun, "tow_test"),
            ),
            not_lower(
                "SalUn reads no more examples with nothing done to what is little memorized: RUM^F's less the plan's, "
                "over retraining's",
                "in words: to do nothing on a subset can boost efficiency",
                paired(salun, nothing, "rrt_examples"),
            ),
        ]
    if swapped:
        said.append(
            finding(
                "nothing, fine-tuning, SalUn has a higher ToW than nothing, SalUn, fine-tuning",
                ".965 against .911",
                paired(full, swapped, "tow_test"),
            )
        )
    said.append(
        finding(
            "nothing, fine-tuning, SalUn: ascending has a smaller MIA gap",
            "not printed",
            paired(of("salun>finetune>original", "rum-reversed"), full, GAP),
        )
    )
    automatic = of(AUTOMATIC, "auto")
    if automatic:
        said.append(
            finding(
                "automatic RUM has a higher ToW than the paper's plan",
                "not in the paper",
                paired(automatic, full, "tow_test"),
            )
        )
    return said


def figure(results: Results, asked: Asked) -> bytes:
    """ToW of every algorithm and plan by variant."""
    panels = {}
    for select in ("oracle", "blind") if asked.select == "both" else (asked.select,):
        rows = last_step(chosen_by(results[UNION], select))
        names = list(dict.fromkeys(row["contender"] for row in rows if row["select"]))
        panels[f"chosen by {select}"] = {
            f"{name}|{variant}": _group(rows, name, variant, asked.score) for name in names for variant in VARIANTS
        }
    names = list(dict.fromkeys(key.split("|")[0] for panel in panels.values() for key in panel))
    title = f"{asked.score}, union of {asked.scale.size}"
    return points(panels, names, VARIANTS, "tow_test", "ToW (test)", title)


def _group(rows: Sequence[Row], contender: str, variant: str, score: str) -> list[Row]:
    """Rows of a contender in a variant."""
    return where(rows, contender=contender, variant=named_by(variant, score))


EXPERIMENT = Experiment(
    source="RUM Table 1, Tables 10-11, Fig. 3",
    says="whether refinement, and an algorithm for each part, come nearer to retraining",
    plans=plans,
    findings=findings,
    figure=figure,
    small=Scale(size=600, algorithms=ALGORITHMS, budget=10, tune_seeds=2, seeds=8),
    paper=Scale(size=3000, algorithms=ALGORITHMS, budget=20, tune_seeds=1, seeds=3),
    run=run_and_count(plans),
)
