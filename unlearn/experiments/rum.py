"""RUM Table 1, Tables 10 and 11, Fig. 3: does it help to refine what goes by memorization, and to choose for each part?

The forget set is the union of the lowest, the middle and the highest; algorithms in one go, on random parts and on
refined ones in both orders; and three plans that do nothing to what is little memorized. Random labels stand beside
the paper's four, so that automatic RUM chooses among five and nothing.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from memscore.statistics.claims import Claim, judge_claim, judge_equivalent, judge_not_lower
from unlearn.algorithms import get_algorithm
from unlearn.experiments.base import (
    Experiment,
    ExperimentContext,
    Results,
    Scale,
    make_counting_run,
    select_by_selection,
)
from unlearn.experiments.plots import render_points
from unlearn.trials.config import Row
from unlearn.tuning.config import SweepConfig
from unlearn.tuning.methods import AUTOMATIC, name_variant_by_score
from unlearn.tuning.results import paired_difference, paired_mean_difference, select_last_step, select_rows

ALGORITHMS = ("finetune", "l1-sparse", "neggrad-plus", "salun", "random-label")
PLANS = ("nothing>finetune>salun", "nothing>salun>finetune", "nothing>salun>salun")
VARIANTS = ("vanilla", "shuffle", "rum", "rum-reversed", "auto", "auto-reversed")
PAPER_TOW = {  # vanilla, shuffle, RUM^F on CIFAR-10
    "finetune": (0.849, 0.712, 0.937),
    "l1-sparse": (0.794, 0.716, 0.900),
    "neggrad-plus": (0.802, 0.632, 0.879),
    "salun": (0.731, 0.727, 0.887),
}
PAPER_MIA_GAPS = {"salun": "CIFAR-10 .031 against .221"}
UNION, GAP_COLUMN = "union", "mia_test_gap"
PAPER_PLAN = "original>finetune>salun"
SelectRows = Callable[[str, str], list[Row]]
"""Contender and variant -> judged rows."""


def make_sweeps(asked: ExperimentContext) -> Mapping[str, SweepConfig]:
    """One sweep over the union."""
    given = {"variants": VARIANTS, "plans": PLANS, "scores": (asked.score,)}
    return {UNION: asked.plan(f"{asked.score}:union", **given)}


def check_claims(results: Results, asked: ExperimentContext) -> list[Claim]:
    """RUM^F against vanilla and shuffle, one order against the other, plans against RUM^F and each other."""
    rows = select_last_step(select_by_selection(results[UNION], asked.judge))

    def of(contender: str, variant: str) -> list[Row]:
        return select_rows(rows, contender=contender, variant=name_variant_by_score(variant, asked.score))

    names = [name for name in asked.scale.algorithms if of(name, "rum")]
    plans_too = check_plans(of, names) if of(PAPER_PLAN, "rum") else []
    return [*check_refinement(of, names), *check_order(of, names), *plans_too]


def check_refinement(of: SelectRows, names: Sequence[str]) -> list[Claim]:
    """RUM^F, vanilla and shuffle of each algorithm, and of the paper's together."""
    said = []
    for name in names:
        printed = PAPER_TOW.get(name)
        numbers = [f"{value:.3f}" for value in printed] if printed else ["not printed"] * 3
        vanilla, shuffle, refined = (of(name, variant) for variant in ("vanilla", "shuffle", "rum"))
        said += [
            judge_claim(
                f"{name}: RUM^F has a higher ToW than vanilla",
                f"{numbers[2]} against {numbers[0]}",
                paired_difference(refined, vanilla, "tow_test"),
            ),
            judge_claim(
                f"{name}: RUM^F has a higher ToW than shuffle",
                f"{numbers[2]} against {numbers[1]}",
                paired_difference(refined, shuffle, "tow_test"),
            ),
            judge_claim(
                f"{name}: vanilla has a higher ToW than shuffle",
                f"{numbers[0]} against {numbers[1]}",
                paired_difference(vanilla, shuffle, "tow_test"),
            ),
        ]
    papers = [name for name in names if name in PAPER_TOW]
    if papers:
        vanilla_mean, _, refined_mean = np.mean([PAPER_TOW[name] for name in papers], axis=0)
        value = paired_mean_difference(
            [of(name, "rum") for name in papers], [of(name, "vanilla") for name in papers], "tow_test"
        )
        claim = "RUM^F has a higher ToW than vanilla, mean of the paper's algorithms"
        said.append(judge_claim(claim, f"{refined_mean:.3f} against {vanilla_mean:.3f}", value))
    return said


def check_order(of: SelectRows, names: Sequence[str]) -> list[Claim]:
    """RUM^F in ascending order against descending: MIA where labels are drawn, ToW of fine-tuning, MIA of all."""
    said = [
        judge_claim(
            f"{name}: RUM^F has a smaller MIA gap ascending than descending",
            PAPER_MIA_GAPS.get(name, "not printed"),
            paired_difference(of(name, "rum-reversed"), of(name, "rum"), GAP_COLUMN),
        )
        for name in names
        if get_algorithm(name).random_labels
    ]
    if "finetune" in names:
        value = paired_difference(of("finetune", "rum"), of("finetune", "rum-reversed"), "tow_test")
        said.append(
            judge_equivalent("finetune: RUM^F has a similar ToW in both orders", "CIFAR-10 .937 and .942", value)
        )
    papers = [name for name in names if name in PAPER_TOW]
    if papers:
        said.append(
            judge_claim(
                "RUM^F: ascending has a smaller MIA gap than descending, mean of the paper's algorithms",
                "no mean printed",
                paired_mean_difference(
                    [of(name, "rum-reversed") for name in papers], [of(name, "rum") for name in papers], GAP_COLUMN
                ),
            )
        )
    return said


def check_plans(of: SelectRows, names: Sequence[str]) -> list[Claim]:
    """Plans that do nothing to what is little memorized: against RUM^F, each other, and automatic RUM."""
    full, salun = of(PAPER_PLAN, "rum"), of("salun", "rum")
    said = [
        judge_claim(
            f"nothing, fine-tuning, SalUn has a higher ToW than RUM^F of {name}",
            ".965 against " + (f"{PAPER_TOW[name][2]:.3f}" if name in PAPER_TOW else "-"),
            paired_difference(full, of(name, "rum"), "tow_test"),
        )
        for name in names
    ]
    nothing, swapped = of("original>salun>salun", "rum"), of("original>salun>finetune", "rum")
    if nothing and salun:
        said += [
            judge_claim(
                "SalUn does better with nothing done to what is little memorized",
                ".919 against .887",
                paired_difference(nothing, salun, "tow_test"),
            ),
            judge_not_lower(
                "SalUn reads no more examples with nothing done to what is little memorized: RUM^F's less the plan's, "
                "over retraining's",
                "in words: to do nothing on a subset can boost efficiency",
                paired_difference(salun, nothing, "rrt_examples"),
            ),
        ]
    if swapped:
        said.append(
            judge_claim(
                "nothing, fine-tuning, SalUn has a higher ToW than nothing, SalUn, fine-tuning",
                ".965 against .911",
                paired_difference(full, swapped, "tow_test"),
            )
        )
    said.append(
        judge_claim(
            "nothing, fine-tuning, SalUn: ascending has a smaller MIA gap",
            "not printed",
            paired_difference(of("salun>finetune>original", "rum-reversed"), full, GAP_COLUMN),
        )
    )
    automatic = of(AUTOMATIC, "auto")
    if automatic:
        said.append(
            judge_claim(
                "automatic RUM has a higher ToW than the paper's plan",
                "not in the paper",
                paired_difference(automatic, full, "tow_test"),
            )
        )
    return said


def draw_figure(results: Results, asked: ExperimentContext) -> bytes:
    """ToW of every algorithm and plan by variant."""
    panels = {}
    for select in ("oracle", "blind") if asked.select == "both" else (asked.select,):
        rows = select_last_step(select_by_selection(results[UNION], select))
        names = list(dict.fromkeys(row["contender"] for row in rows if row["select"]))
        panels[f"chosen by {select}"] = {
            f"{name}|{variant}": _group(rows, name, variant, asked.score) for name in names for variant in VARIANTS
        }
    names = list(dict.fromkeys(key.split("|")[0] for panel in panels.values() for key in panel))
    title = f"{asked.score}, union of {asked.scale.size}"
    return render_points(panels, names, VARIANTS, "tow_test", "ToW (test)", title)


def _group(rows: Sequence[Row], contender: str, variant: str, score: str) -> list[Row]:
    """Rows of a contender in a variant."""
    return select_rows(rows, contender=contender, variant=name_variant_by_score(variant, score))


EXPERIMENT = Experiment(
    source="RUM Table 1, Tables 10-11, Fig. 3",
    question="whether refinement, and an algorithm for each part, come nearer to retraining",
    plans=make_sweeps,
    findings=check_claims,
    figure=draw_figure,
    small=Scale(size=600, algorithms=ALGORITHMS, budget=10, tune_seeds=2, seeds=8),
    paper=Scale(size=3000, algorithms=ALGORITHMS, budget=20, tune_seeds=1, seeds=3),
    run=make_counting_run(make_sweeps),
)
