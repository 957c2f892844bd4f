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
from unlearn.tuning.methods import AUTOMATIC, LONG, has_epochs, name_variant_by_score
from unlearn.tuning.results import paired_difference, paired_mean_difference, select_last_step, select_rows

ALGORITHMS = ("finetune", "l1-sparse", "neggrad-plus", "salun", "random-label")
PAPER_PLAN, SWAPPED_PLAN, SALUN_PLAN = "nothing>finetune>salun", "nothing>salun>finetune", "nothing>salun>salun"
PLANS = (PAPER_PLAN, SWAPPED_PLAN, SALUN_PLAN)
PARTS = 3
"""Of the union, which RUM^F forgets one after the other."""
VARIANTS = ("vanilla", LONG, "shuffle", "rum", "rum-reversed", "auto", "auto-reversed")
PAPER_TOW = {  # vanilla, shuffle, RUM^F on CIFAR-10
    "finetune": (0.849, 0.712, 0.937),
    "l1-sparse": (0.794, 0.716, 0.900),
    "neggrad-plus": (0.802, 0.632, 0.879),
    "salun": (0.731, 0.727, 0.887),
}
PAPER_MIA_GAPS = {"salun": "CIFAR-10 .031 against .221"}
UNION, GAP_COLUMN = "union", "mia_test_gap"
ORDER_FAMILY = "MIA gap by order"
SelectRows = Callable[[str, str], list[Row]]
"""(method, variant) -> judged rows."""


def make_sweeps(config: ExperimentConfig) -> Mapping[str, SweepConfig]:
    """Configure one sweep over the union."""
    options = {"variants": VARIANTS, "plans": PLANS, "scores": (config.score,), "parts": PARTS}
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
                family="RUM^F against vanilla",
            ),
            judge_claim(
                f"{name}: RUM^F has a higher ToW than shuffle",
                f"{numbers[2]} against {numbers[1]}",
                paired_difference(refined, shuffle, "tow_test"),
                family="RUM^F against shuffle",
            ),
            judge_claim(
                f"{name}: vanilla has a higher ToW than shuffle",
                f"{numbers[0]} against {numbers[1]}",
                paired_difference(vanilla, shuffle, "tow_test"),
                family="vanilla against shuffle",
            ),
        ]
    # Refinement takes as many times the epochs as there are parts, which no paper controls for.
    with_epochs = [name for name in names if has_epochs(name) and select(name, LONG)]
    claims += [
        judge_claim(
            f"{name}: RUM^F has a higher ToW than vanilla with {PARTS} times the epochs",
            "not in the paper",
            paired_difference(select(name, "rum"), select(name, LONG), "tow_test"),
            family="RUM^F against vanilla of equal cost",
        )
        for name in with_epochs
    ]
    if len(with_epochs) > 1:
        claims.append(
            judge_claim(
                f"RUM^F has a higher ToW than vanilla with {PARTS} times the epochs, mean",
                "not in the paper",
                paired_mean_difference(
                    [select(name, "rum") for name in with_epochs],
                    [select(name, LONG) for name in with_epochs],
                    "tow_test",
                ),
                family="RUM^F against vanilla of equal cost, mean",
            )
        )
    in_paper = [name for name in names if name in PAPER_TOW]
    if in_paper:
        means = dict(
            zip(("vanilla", "shuffle", "rum"), np.mean([PAPER_TOW[name] for name in in_paper], axis=0), strict=True)
        )
        for ours, theirs in (("rum", "vanilla"), ("rum", "shuffle"), ("vanilla", "shuffle")):
            value = paired_mean_difference(
                [select(name, ours) for name in in_paper], [select(name, theirs) for name in in_paper], "tow_test"
            )
            words = ours.replace("rum", "RUM^F")
            claims.append(
                judge_claim(
                    f"{words} has a higher ToW than {theirs}, mean of the paper's algorithms",
                    f"{means[ours]:.3f} against {means[theirs]:.3f}",
                    value,
                    family=f"{words} against {theirs}, mean",
                )
            )
    return claims


def check_order(select: SelectRows, names: Sequence[str]) -> list[Claim]:
    """Judge RUM^F ascending against descending: MIA where labels are drawn, ToW of fine-tuning, mean MIA."""
    claims = [
        judge_claim(
            f"{name}: RUM^F has a smaller MIA gap ascending than descending",
            PAPER_MIA_GAPS.get(name, "not printed"),
            paired_difference(select(name, "rum-reversed"), select(name, "rum"), GAP_COLUMN),
            family=ORDER_FAMILY,
        )
        for name in names
        if get_algorithm(name).random_labels
    ]
    if "finetune" in names:
        value = paired_difference(select("finetune", "rum"), select("finetune", "rum-reversed"), "tow_test")
        claims.append(
            judge_equivalent(
                "finetune: RUM^F has a similar ToW in both orders",
                "CIFAR-10 .937 and .942",
                value,
                family="ToW by order",
            )
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
                family=f"{ORDER_FAMILY}, mean",
            )
        )
    return claims


def check_plans(select: SelectRows, names: Sequence[str]) -> list[Claim]:
    """Judge plans that do nothing at low memorization: against RUM^F, each other, and automatic RUM."""
    paper_plan, salun_alone, family = select(PAPER_PLAN, "rum"), select("salun", "rum"), "plans (ToW)"
    claims = [
        judge_claim(
            f"{PAPER_PLAN} has a higher ToW than RUM^F of {name}",
            ".965 against " + (f"{PAPER_TOW[name][2]:.3f}" if name in PAPER_TOW else "-"),
            paired_difference(paper_plan, select(name, "rum"), "tow_test"),
            family="the paper's plan against RUM^F",
        )
        for name in names
    ]
    if len(names) > 1:
        value = paired_mean_difference([paper_plan], [select(name, "rum") for name in names], "tow_test")
        claims.append(
            judge_claim(
                f"{PAPER_PLAN} has a higher ToW than RUM^F, mean of all algorithms",
                "no mean printed",
                value,
                family="the paper's plan against RUM^F, mean",
            )
        )
    plan_salun, swapped = select(SALUN_PLAN, "rum"), select(SWAPPED_PLAN, "rum")
    if plan_salun and salun_alone:
        claims += [
            judge_claim(
                f"{SALUN_PLAN} has a higher ToW than RUM^F of salun",
                ".919 against .887",
                paired_difference(plan_salun, salun_alone, "tow_test"),
                family=family,
            ),
            judge_not_lower(
                f"{SALUN_PLAN} reads no more examples than RUM^F of salun: RUM^F's less the plan's, over retraining's",
                "in words: to do nothing on a subset can boost efficiency",
                paired_difference(salun_alone, plan_salun, "rrt_examples"),
                family="examples read",
            ),
        ]
    if swapped:
        claims.append(
            judge_claim(
                f"{PAPER_PLAN} has a higher ToW than {SWAPPED_PLAN}",
                ".965 against .911",
                paired_difference(paper_plan, swapped, "tow_test"),
                family=family,
            )
        )
    claims.append(
        judge_claim(
            f"{PAPER_PLAN}: ascending has a smaller MIA gap",
            "not printed",
            paired_difference(select("salun>finetune>nothing", "rum-reversed"), paper_plan, GAP_COLUMN),
            family=ORDER_FAMILY,
        )
    )
    automatic = select(AUTOMATIC, "auto")
    if automatic:
        claims.append(
            judge_claim(
                f"automatic RUM has a higher ToW than {PAPER_PLAN}",
                "not in the paper",
                paired_difference(automatic, paper_plan, "tow_test"),
                family=family,
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
    paper_preset=Preset(size=3000, algorithms=ALGORITHMS, budget=7, tune_seeds=2, seeds=3, tunings=3),
)
