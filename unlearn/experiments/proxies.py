"""SCALE Tables 2, 5 and 6, Figs 2, 8 and 11: RUM^F refined by a proxy in place of memorization.

For memorization and each proxy a forget set of its lowest, middle and highest examples, a third each; algorithms in one
go, on random parts, and on parts by that same score. As in the paper each score so has a forget set of its own, and a
comparison of two scores is one of two forget sets too. Run times are those of the chosen parameters: an algorithm that
is tuned to fewer epochs a part costs less, whatever the paper's ratio.

With a second bank of the same data under crop and flip, the same there. The two banks' originals are other networks, so
what compares the banks pairs them by number alone, which costs width and no validity.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace

from cluster.pool import Pool
from memscore.statistics.claims import Claim, judge_claim
from memscore.statistics.intervals import Interval
from memscore.store.store import Store
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
from unlearn.trials.config import Row
from unlearn.trials.setup import ShowProgress
from unlearn.trials.tables import mean_with_interval
from unlearn.tuning.config import SweepConfig
from unlearn.tuning.results import (
    average_by_original,
    paired_contrast,
    paired_difference,
    paired_mean_difference,
    select_rows,
)
from unlearn.tuning.search import SearchBackend

ALGORITHMS = ("finetune", "neggrad-plus", "l1-sparse", "salun")
VARIANTS = ("vanilla", "shuffle", "rum")
OTHER_PREFIX = "augmented, "
"""Before the names of the second bank's parts."""
NOT_PRINTED = "no number printed"
MEMORIZATION = "memorization"
PAPER_GAINS = {
    ("finetune", MEMORIZATION): "RUM: CIFAR-10 .849 to .937, CIFAR-100 .734 to .784",
    ("neggrad-plus", MEMORIZATION): "RUM: .802 to .879, .861 to .921",
    ("l1-sparse", MEMORIZATION): "RUM: .794 to .900, .824 to .883",
    ("salun", MEMORIZATION): "RUM: .731 to .887, .545 to .614",
    ("finetune", "events_confidence"): "CIFAR-10 .829 to .919, CIFAR-100 .813 to .863",
    ("finetune", "events_accuracy"): ".787 to .908, .813 to .863",
    ("finetune", "holdout"): ".800 to .920, .763 to .846",
    ("neggrad-plus", "events_confidence"): ".724 to .880, .822 to .890",
    ("neggrad-plus", "events_accuracy"): ".822 to .868, .817 to .900",
    ("neggrad-plus", "holdout"): ".771 to .901, .879 to .966",
    ("l1-sparse", "events_confidence"): ".754 to .907, .796 to .908",
    ("l1-sparse", "events_accuracy"): ".802 to .899, .771 to .897",
    ("l1-sparse", "holdout"): ".812 to .920, .770 to .867",
    ("salun", "events_confidence"): ".737 to .859, .633 to .656",
    ("salun", "events_accuracy"): ".818 to .892, .651 to .673",
    ("salun", "holdout"): ".858 to .956, .617 to .696",
}
PAPER_MIA_GAINS = {
    ("finetune", "events_confidence"): "CIFAR-10 .874 to .920, CIFAR-100 .880 to .857",
    ("finetune", "events_accuracy"): ".836 to .911, .868 to .861",
    ("finetune", "holdout"): ".763 to .865, .803 to .812",
    ("neggrad-plus", "events_confidence"): ".700 to .803, .836 to .922",
    ("neggrad-plus", "events_accuracy"): ".795 to .819, .821 to .919",
    ("neggrad-plus", "holdout"): ".661 to .791, .790 to .928",
    ("l1-sparse", "events_confidence"): ".772 to .870, .797 to .906",
    ("l1-sparse", "events_accuracy"): ".834 to .906, .795 to .892",
    ("l1-sparse", "holdout"): ".778 to .859, .730 to .828",
    ("salun", "events_confidence"): ".677 to .867, .543 to .636",
    ("salun", "events_accuracy"): ".703 to .966, .705 to .641",
    ("salun", "holdout"): ".643 to .939, .478 to .640",
}
PAPER_SHUFFLED = {
    "ToW": "vanilla .72 to .86, shuffle .53 to .74 on CIFAR-10",
    "ToW-MIA": "vanilla .64 to .87, shuffle .45 to .74 on CIFAR-10",
}
COMPARED_COLUMNS = (("ToW", "tow_test", PAPER_GAINS), ("ToW-MIA", "tow_mia_test", PAPER_MIA_GAINS))


def list_scores(asked: ExperimentContext) -> tuple[str, ...]:
    """Memorization and the proxies, none twice."""
    return tuple(dict.fromkeys((asked.score, *asked.proxies)))


def make_sweeps(asked: ExperimentContext) -> Mapping[str, SweepConfig]:
    """A sweep a score; with a second bank, another there."""
    banks = {"": asked.store} | ({OTHER_PREFIX: check_augmented_bank(asked)} if asked.other else {})
    return {
        prefix + name: asked.plan(f"{name}:union", store=store, variants=VARIANTS, scores=(name,))
        for prefix, store in banks.items()
        for name in list_scores(asked)
    }


def check_augmented_bank(asked: ExperimentContext) -> str:
    """The second bank, if it is one of the same data whose recipe augments where the first one's does not."""
    ours, theirs = Store.open(asked.store), Store.open(asked.other)
    if ours.manifest.fingerprint != theirs.manifest.fingerprint:
        raise ValueError(
            f"--other {theirs.folder.display_name} has other data than {ours.folder.display_name}; give a bank of the "
            "same --data, "
            "--train-limit, --validation and --seed"
        )
    if ours.manifest.recipe["augment"] or not theirs.manifest.recipe["augment"]:
        raise ValueError(
            f"--other {theirs.folder.display_name} augments by {list(theirs.manifest.recipe['augment'])} and "
            f"{ours.folder.display_name} by {list(ours.manifest.recipe['augment'])}; give first the bank without, and "
            "as "
            "--other one of `python -m memscore.estimate --augment crop flip`"
        )
    return asked.other


def run(
    asked: ExperimentContext, pool: Pool, search: SearchBackend, device: str, phase: ShowProgress
) -> ExperimentResult:
    """The sweeps, with the second bank's lock held too."""
    with ExitStack() as stack:
        if asked.other:
            stack.enter_context(Store.open(asked.other).lock())
        carried = run_sweeps(asked, make_sweeps(asked), pool, search, device, phase)
    besides = list_recipe_differences(asked) if asked.other else []
    remark = f"the second bank's recipe differs in {', '.join(besides)} too, and so may what is said of augmentation"
    return replace(carried, remarks=[remark, *carried.remarks]) if besides else carried


def list_recipe_differences(asked: ExperimentContext) -> list[str]:
    """Fields of the two banks' identities that differ beside augmentation."""
    ours, theirs = (Store.open(url).manifest for url in (asked.store, asked.other))
    apart = {"augment", "crop_padding", "source"}
    found = [name for name in ours.recipe if name not in apart and ours.recipe[name] != theirs.recipe[name]]
    return [*found, *(name for name in ("architecture", "precision") if getattr(ours, name) != getattr(theirs, name))]


def check_claims(results: Results, asked: ExperimentContext) -> list[Claim]:
    """For each bank: refinement, the control and run time by each score, and the best proxy; then augmentation."""
    said = []
    for prefix in ("", OTHER_PREFIX) if asked.other else ("",):
        for name in list_scores(asked):
            rows = select_by_selection(results[prefix + name], asked.judge)
            said += check_score(rows, prefix, name, asked.scale.algorithms)
        said += check_holdout_best(results, prefix, asked)
    return said + (check_augmentation(results, asked) if asked.other else [])


def check_score(rows: list[Row], prefix: str, name: str, algorithms: tuple[str, ...]) -> list[Claim]:
    """What refinement by one score does."""
    by = {
        variant: [select_rows(rows, contender=one, variant=variant) for one in algorithms]
        for variant in ("vanilla", "shuffle", f"rum {name}")
    }
    refined, vanilla, shuffled = by[f"rum {name}"], by["vanilla"], by["shuffle"]
    said = []
    for what, column, printed in COMPARED_COLUMNS:
        for one, ours, theirs in zip(algorithms, refined, vanilla, strict=True):
            known = MEMORIZATION if name.startswith(MEMORIZATION) else name
            paper = NOT_PRINTED if prefix else printed.get((one, known), NOT_PRINTED)
            claim = f"{prefix}{one}: RUM^F by {name} is above vanilla ({what})"
            said.append(judge_claim(claim, paper, paired_difference(ours, theirs, column)))
        paper = "all proxies improve RUM^F" if what == "ToW" else "all proxies improve privacy"
        value = paired_mean_difference(refined, vanilla, column)
        said.append(judge_claim(f"{prefix}mean of all: RUM^F by {name} is above vanilla ({what})", paper, value))
        claim = f"{prefix}mean of all: vanilla is above shuffle, union by {name} ({what})"
        said.append(judge_claim(claim, PAPER_SHUFFLED[what], paired_mean_difference(vanilla, shuffled, column)))
    said.append(
        judge_claim(
            f"{prefix}RUM^F by {name} takes longer than vanilla: its run time over vanilla's, less 1",
            "about 2 times: 1.6 to 2.6 on CIFAR-10, so .6 to 1.6",
            compute_time_ratio(refined, vanilla),
        )
    )
    claim = f"{prefix}RUM^F by {name} takes less time than retraining: 1 less its share of that"
    share = paired_contrast([(-1 / len(refined), own) for own in refined], "rrt_wall")
    left = Interval(value=1 + share.value, lo=1 + share.lo, hi=1 + share.hi)
    return [*said, judge_claim(claim, "CIFAR-10 .12 to .47, CIFAR-100 .86 to .88", left)]


def compute_time_ratio(ours: list[list[Row]], theirs: list[list[Row]]) -> Interval:
    """Seconds of several contenders together over those of others, less 1, of each original; mean over originals."""
    sums = []
    for side in (ours, theirs):
        found = [average_by_original(rows, "wall_s") for rows in side]
        shared = set.intersection(*(set(one) for one in found))
        sums.append({index: sum(one[index] for one in found) for index in shared})
    return mean_with_interval([
        sums[0][index] / sums[1][index] - 1 for index in sorted(sums[0].keys() & sums[1].keys())
    ])


def check_holdout_best(results: Results, prefix: str, asked: ExperimentContext) -> list[Claim]:
    """Whether holdout retraining refines best, against each other score."""
    refined = {
        name: [
            select_rows(select_by_selection(results[prefix + name], asked.judge), contender=one, variant=f"rum {name}")
            for one in asked.scale.algorithms
        ]
        for name in list_scores(asked)
    }
    best = next((name for name in refined if name.startswith("holdout")), "")
    paper = "no longer, with augmentation" if prefix else "best of the proxies on CIFAR-10, mostly above memorization"
    return [
        judge_claim(
            f"{prefix}{best} refines better than {name} (ToW)",
            paper,
            paired_mean_difference(refined[best], own, "tow_test"),
        )
        for name, own in refined.items()
        if best and name != best
    ]


def check_augmentation(results: Results, asked: ExperimentContext) -> list[Claim]:
    """Whether SalUn falls behind the others where the bank was trained with crop and flip."""
    others = [name for name in asked.scale.algorithms if name != "salun"]
    if not others or "salun" not in asked.scale.algorithms:
        return []
    terms: list[tuple[float, list[Row]]] = []
    for prefix, sign in ((OTHER_PREFIX, 1), ("", -1)):
        for score in list_scores(asked):
            rows = select_rows(select_by_selection(results[prefix + score], asked.judge), variant=f"rum {score}")
            terms += [
                (sign / len(others) / len(list_scores(asked)), select_rows(rows, contender=one)) for one in others
            ]
            terms.append((-sign / len(list_scores(asked)), select_rows(rows, contender="salun")))
    there = terms[: len(terms) // 2]
    return [
        judge_claim(
            "with augmentation salun under RUM^F is below the mean of the others (ToW)",
            "CIFAR-100, by confidence: .656 against .887",
            paired_contrast(there, "tow_test"),
        ),
        judge_claim(
            "augmentation widens the distance from salun to the others (ToW)",
            "by confidence: .043 on CIFAR-10, .231 on CIFAR-100",
            paired_contrast(terms, "tow_test"),
        ),
    ]


def draw_figure(results: Results, asked: ExperimentContext) -> bytes:
    """ToW and ToW-MIA by score, a line an algorithm; one column of panels a bank and a variant."""
    panels = {}
    for prefix in ("", OTHER_PREFIX) if asked.other else ("",):
        for variant in VARIANTS:
            panels[f"{prefix}{variant}"] = {
                f"{one}|{name}": select_rows(
                    select_by_selection(results[prefix + name], asked.judge),
                    contender=one,
                    variant=f"rum {name}" if variant == "rum" else variant,
                )
                for one in asked.scale.algorithms
                for name in list_scores(asked)
            }
    title = f"refinement by proxies: {asked.scale.size} examples to forget, chosen by {asked.judge}"
    more = {"tow_mia_test": "ToW-MIA (test)"}
    return render_points(panels, asked.scale.algorithms, list_scores(asked), "tow_test", "ToW (test)", title, more)


EXPERIMENT = Experiment(
    source="SCALE Tables 2, 5 and 6, Figs 2, 8 and 11",
    question="whether cheap proxies refine as well as memorization",
    plans=make_sweeps,
    findings=check_claims,
    figure=draw_figure,
    small=Scale(size=300, algorithms=ALGORITHMS, budget=10, tune_seeds=2, seeds=8),
    paper=Scale(size=3000, algorithms=ALGORITHMS, budget=20, tune_seeds=1, seeds=3),
    run=run,
    columns=("wall_s", "rrt_wall"),
    compares=True,
)
