"""RUM Table 1, Tables 10 and 11, Fig. 3: does it help to refine the forget set by memorization, and to choose per part?

The forget set is the union of the lowest, the middle and the highest; algorithms on the whole set, on random parts and
on refined ones in both orders; and three plans that do nothing to examples of low memorization. Random labels are added
to the paper's four, so that automatic RUM chooses among five algorithms and doing nothing.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from memscore.statistics.claims import Claim, judge_claim, judge_equivalent, judge_not_lower
from unlearn.algorithms import get_algorithm
from unlearn.experiments.base import (
    Experiment,
    Results,
    select_by_selection,
)
from unlearn.experiments.config import ExperimentConfig, Preset
from unlearn.experiments.plots import render_points
from unlearn.experiments.questions import QUESTIONS
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
"""(method, variant) -> judged rows."""


def make_sweeps(config: ExperimentConfig) -> Mapping[str, SweepConfig]:
    """Configure one sweep over the union."""
    options = {"variants": VARIANTS, "plans": PLANS, "scores": (config.score,)}
    return {UNION: config.make_sweep_config(f"{config.score}:union", **options)}


def check_claims(results: Results, config: ExperimentConfig) -> list[Claim]:
    """Judge RUM^F against vanilla and shuffle, one order against the other, and the plans."""
    rows = select_last_step(select_by_selection(results[UNION], config.selection))

    def select(method: str, variant: str) -> list[Row]:
        return select_rows(rows, contender=method, variant=name_variant_by_score(variant, config.score))

    # A method that ended early has no rows, and nothing is claimed of it.
    names = [name for name in config.algorithms if select(name, "rum")]
    plan_claims = check_plans(select, names) if select(PAPER_PLAN, "rum") else []
    return [*check_refinement(select, names), *check_order(select, names), *plan_claims]


def check_refinement(select: SelectRows, names: Sequence[str]) -> list[Claim]:
    """Judge RUM^F, vanilla and shuffle of each algorithm, and of the paper's together."""
    claims = []
    for name in names:
        paper = PAPER_TOW.get(name)
        numbers = [f"{value:.3f}" for value in paper] if paper else ["not printed"] * 3
        vanilla, shuffle, refined = (select(name, variant) for variant in ("vanilla", "shuffle", "rum"))
        claims += [
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
    in_paper = [name for name in names if name in PAPER_TOW]
    if in_paper:
        vanilla_mean, _, refined_mean = np.mean([PAPER_TOW[name] for name in in_paper], axis=0)
        value = paired_mean_difference(
            [select(name, "rum") for name in in_paper], [select(name, "vanilla") for name in in_paper], "tow_test"
        )
        claim = "RUM^F has a higher ToW than vanilla, mean of the paper's algorithms"
        claims.append(judge_claim(claim, f"{refined_mean:.3f} against {vanilla_mean:.3f}", value))
    return claims


def check_order(select: SelectRows, names: Sequence[str]) -> list[Claim]:
    """Judge RUM^F ascending against descending: MIA where labels are drawn, ToW of fine-tuning, mean MIA."""
    claims = [
        judge_claim(
            f"{name}: RUM^F has a smaller MIA gap ascending than descending",
            PAPER_MIA_GAPS.get(name, "not printed"),
            paired_difference(select(name, "rum-reversed"), select(name, "rum"), GAP_COLUMN),
        )
        for name in names
        if get_algorithm(name).random_labels
    ]
    if "finetune" in names:
        value = paired_difference(select("finetune", "rum"), select("finetune", "rum-reversed"), "tow_test")
        claims.append(
            judge_equivalent("finetune: RUM^F has a similar ToW in both orders", "CIFAR-10 .937 and .942", value)
        )
    in_paper = [name for name in names if name in PAPER_TOW]
    if in_paper:
        claims.append(
            judge_claim(
                "RUM^F: ascending has a smaller MIA gap than descending, mean of the paper's algorithms",
                "no mean printed",
                paired_mean_difference(
                    [select(name, "rum-reversed") for name in in_paper],
                    [select(name, "rum") for name in in_paper],
                    GAP_COLUMN,
                ),
            )
        )
    return claims


def check_plans(select: SelectRows, names: Sequence[str]) -> list[Claim]:
    """Judge plans that do nothing at low memorization: against RUM^F, each other, and automatic RUM."""
    paper_plan, salun_alone = select(PAPER_PLAN, "rum"), select("salun", "rum")
    claims = [
        judge_claim(
            f"nothing, fine-tuning, SalUn has a higher ToW than RUM^F of {name}",
            ".965 against " + (f"{PAPER_TOW[name][2]:.3f}" if name in PAPER_TOW else "-"),
            paired_difference(paper_plan, select(name, "rum"), "tow_test"),
        )
        for name in names
    ]
    plan_salun, swapped = select("original>salun>salun", "rum"), select("original>salun>finetune", "rum")
    if plan_salun and salun_alone:
        claims += [
            judge_claim(
                "SalUn does better with nothing done to what is little memorized",
                ".919 against .887",
                paired_difference(plan_salun, salun_alone, "tow_test"),
            ),
            judge_not_lower(
                "SalUn reads no more examples with nothing done to what is little memorized: RUM^F's less the plan's, "
                "over retraining's",
                "in words: to do nothing on a subset can boost efficiency",
                paired_difference(salun_alone, plan_salun, "rrt_examples"),
            ),
        ]
    if swapped:
        claims.append(
            judge_claim(
                "nothing, fine-tuning, SalUn has a higher ToW than nothing, SalUn, fine-tuning",
                ".965 against .911",
                paired_difference(paper_plan, swapped, "tow_test"),
            )
        )
    claims.append(
        judge_claim(
            "nothing, fine-tuning, SalUn: ascending has a smaller MIA gap",
            "not printed",
            paired_difference(select("salun>finetune>original", "rum-reversed"), paper_plan, GAP_COLUMN),
        )
    )
    automatic = select(AUTOMATIC, "auto")
    if automatic:
        claims.append(
            judge_claim(
                "automatic RUM has a higher ToW than the paper's plan",
                "not in the paper",
                paired_difference(automatic, paper_plan, "tow_test"),
            )
        )
    return claims


def draw_figure(results: Results, config: ExperimentConfig) -> bytes:
    """Draw ToW of every algorithm and plan by variant."""
    panels = {}
    for selection in config.selections:
        rows = select_last_step(select_by_selection(results[UNION], selection))
        names = list(dict.fromkeys(row["contender"] for row in rows if row["select"]))
        panels[f"chosen by {selection}"] = {
            f"{name}|{variant}": select_rows(rows, contender=name, variant=name_variant_by_score(variant, config.score))
            for name in names
            for variant in VARIANTS
        }
    names = list(dict.fromkeys(key.split("|")[0] for panel in panels.values() for key in panel))
    title = f"{config.score}, union of {config.size}"
    return render_points(panels, names, VARIANTS, "tow_test", "ToW (test)", title)


EXPERIMENT = Experiment(
    source="RUM Table 1, Tables 10-11, Fig. 3",
    question=QUESTIONS["rum"],
    make_sweeps=make_sweeps,
    check_claims=check_claims,
    draw_figure=draw_figure,
    small_preset=Preset(size=600, algorithms=ALGORITHMS, budget=6, tune_seeds=2, seeds=9, tunings=3),
    paper_preset=Preset(size=3000, algorithms=ALGORITHMS, budget=20, tune_seeds=1, seeds=3),
)
