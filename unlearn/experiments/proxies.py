"""SCALE Tables 2, 5 and 6, Figs 2, 8 and 11: RUM^F refined by a proxy in place of memorization.

For memorization and each proxy a forget set of its lowest, middle and highest examples, a third each; algorithms on the
whole set, on random parts, and on parts by that same score. As in the paper each score has its own forget set, so a
comparison of two scores is one of two forget sets too. Run times are those of the chosen parameters: an algorithm that
is tuned to fewer epochs per part costs less, whatever the paper's ratio.

With a second bank of the same data with crop and flip augmentation, the same there. The originals of the two banks are
other networks, so comparisons of the banks pair them by number only, which widens intervals and keeps them valid.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace

from memscore.analysis.trial_rows import find_tunings
from memscore.statistics.claims import Claim, judge_claim
from memscore.statistics.means import MeanEstimate, estimate_mean
from memscore.store.store import Store
from memscore.units import format_value
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
from unlearn.trials.config import Row
from unlearn.tuning.config import SweepConfig
from unlearn.tuning.results import (
    average_by_original,
    paired_contrast,
    paired_difference,
    paired_mean_difference,
    select_rows,
)

ALGORITHMS = ("finetune", "neggrad-plus", "l1-sparse", "salun")
VARIANTS = ("vanilla", "shuffle", "rum")
OTHER_PREFIX = "augmented, "
"""Prefix of the names of the second bank's parts."""
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


def list_scores(config: ExperimentConfig) -> tuple[str, ...]:
    """List memorization and the proxies, without repeats."""
    return tuple(dict.fromkeys((config.score, *config.proxies)))


def make_sweeps(config: ExperimentConfig) -> Mapping[str, SweepConfig]:
    """Configure a sweep for each score, and the same for a second bank."""
    banks = {"": config.store} | ({OTHER_PREFIX: check_augmented_bank(config)} if config.other else {})
    return {
        prefix + name: config.make_sweep_config(f"{name}:union", store=store, variants=VARIANTS, scores=(name,))
        for prefix, store in banks.items()
        for name in list_scores(config)
    }


def check_augmented_bank(config: ExperimentConfig) -> str:
    """Check that the second bank has the same data, and augments where the first one does not."""
    bank, other = Store.open(config.store), Store.open(config.other, check_manifest=True)
    if bank.manifest.fingerprint != other.manifest.fingerprint:
        raise ValueError(
            f"--other {other.folder.display_name} has other data than {bank.folder.display_name}; give a bank of the "
            "same --data, "
            "--train-limit, --validation and --seed"
        )
    if bank.manifest.recipe["augment"] or not other.manifest.recipe["augment"]:
        raise ValueError(
            f"--other {other.folder.display_name} augments by {format_value(other.manifest.recipe['augment'])} and "
            f"{bank.folder.display_name} by {format_value(bank.manifest.recipe['augment'])}; give "
            "first the bank without, and as --other one of `python -m memscore.estimate --augment crop flip`"
        )
    return config.other


def run(config: ExperimentConfig, runner: SweepRunner) -> ExperimentResult:
    """Run the sweeps, holding the lock of the second bank too."""
    with ExitStack() as stack:
        if config.other:
            stack.enter_context(Store.open(config.other).lock())
        result = runner.run(make_sweeps(config))
    differing = list_recipe_differences(config) if config.other else []
    remark = f"the second bank's recipe differs in {', '.join(differing)} too, and so may the verdict on augmentation"
    return replace(result, remarks=[remark, *result.remarks]) if differing else result


def list_recipe_differences(config: ExperimentConfig) -> list[str]:
    """List the fields, other than augmentation, in which the two banks differ."""
    manifest, other = (Store.open(url).manifest for url in (config.store, config.other))
    ignored = {"augment", "crop_padding", "source"}
    differing = [
        name for name in manifest.recipe if name not in ignored and manifest.recipe[name] != other.recipe[name]
    ]
    return [
        *differing,
        *(name for name in ("architecture", "precision") if getattr(manifest, name) != getattr(other, name)),
    ]


def check_claims(results: Results, config: ExperimentConfig) -> list[Claim]:
    """Judge for each bank refinement, control and run time by each score, and the best proxy; then augmentation."""
    claims = []
    for prefix in ("", OTHER_PREFIX) if config.other else ("",):
        for name in list_scores(config):
            rows = select_by_selection(results[prefix + name], config.selection)
            claims += check_score(rows, prefix, name, config.algorithms)
        claims += check_holdout_best(results, prefix, config)
    return claims + (check_augmentation(results, config) if config.other else [])


def check_score(rows: list[Row], prefix: str, name: str, algorithms: tuple[str, ...]) -> list[Claim]:
    """Judge the claims on refinement by one score."""
    rows_by_variant = {
        variant: [select_rows(rows, contender=algorithm, variant=variant) for algorithm in algorithms]
        for variant in ("vanilla", "shuffle", f"rum {name}")
    }
    refined, vanilla, shuffled = rows_by_variant[f"rum {name}"], rows_by_variant["vanilla"], rows_by_variant["shuffle"]
    claims = []
    for label, column, paper_values in COMPARED_COLUMNS:
        for algorithm, ours, theirs in zip(algorithms, refined, vanilla, strict=True):
            paper_name = MEMORIZATION if name.startswith(MEMORIZATION) else name
            paper = NOT_PRINTED if prefix else paper_values.get((algorithm, paper_name), NOT_PRINTED)
            claim = f"{prefix}{algorithm}: RUM^F by {name} is above vanilla ({label})"
            value = paired_difference(ours, theirs, column)
            claims.append(judge_claim(claim, paper, value, family=f"{prefix}RUM^F against vanilla ({label})"))
        paper = "all proxies improve RUM^F" if label == "ToW" else "all proxies improve privacy"
        value = paired_mean_difference(refined, vanilla, column)
        claim = f"{prefix}mean of all: RUM^F by {name} is above vanilla ({label})"
        claims.append(judge_claim(claim, paper, value, family=f"{prefix}RUM^F against vanilla ({label}), mean"))
        claim = f"{prefix}mean of all: vanilla is above shuffle, union by {name} ({label})"
        value = paired_mean_difference(vanilla, shuffled, column)
        family = f"{prefix}vanilla against shuffle ({label}), mean"
        claims.append(judge_claim(claim, PAPER_SHUFFLED[label], value, family=family))
    claims.append(
        judge_claim(
            f"{prefix}RUM^F by {name} takes longer than vanilla: its run time over vanilla's, less 1",
            "about 2 times: 1.6 to 2.6 on CIFAR-10, so .6 to 1.6",
            compute_time_ratio(refined, vanilla),
            family=f"{prefix}run time over vanilla's",
        )
    )
    claim = f"{prefix}RUM^F by {name} takes less time than retraining: 1 less its share of that"
    share = paired_contrast([(-1 / len(refined), method_rows) for method_rows in refined], "rrt_wall")
    saved = replace(share, value=1 + share.value, lo=1 + share.lo, hi=1 + share.hi)
    paper, family = "CIFAR-10 .12 to .47, CIFAR-100 .86 to .88", f"{prefix}run time over retraining's"
    return [*claims, judge_claim(claim, paper, saved, family=family)]


def compute_time_ratio(ours: list[list[Row]], theirs: list[list[Row]]) -> MeanEstimate:
    """Compute the seconds of several methods over those of others, less 1, as a mean over originals."""
    # The ratio of sums, not the mean of ratios: a method counts by the seconds that it takes.
    sums = []
    for side in (ours, theirs):
        seconds = [average_by_original(rows, "wall_s") for rows in side]
        shared = set.intersection(*(set(method_seconds) for method_seconds in seconds))
        sums.append({index: sum(method_seconds[index] for method_seconds in seconds) for index in shared})
    indices = sorted(sums[0].keys() & sums[1].keys())
    tunings = find_tunings([row for rows in (*ours, *theirs) for row in rows], indices)
    return estimate_mean([sums[0][index] / sums[1][index] - 1 for index in indices], tunings)


def check_holdout_best(results: Results, prefix: str, config: ExperimentConfig) -> list[Claim]:
    """Judge whether holdout retraining refines better than each other score."""
    refined = {
        name: [
            select_rows(
                select_by_selection(results[prefix + name], config.selection),
                contender=algorithm,
                variant=f"rum {name}",
            )
            for algorithm in config.algorithms
        ]
        for name in list_scores(config)
    }
    best = next((name for name in refined if name.startswith("holdout")), "")
    paper = "no longer, with augmentation" if prefix else "best of the proxies on CIFAR-10, mostly above memorization"
    return [
        judge_claim(
            f"{prefix}{best} refines better than {name} (ToW)",
            paper,
            paired_mean_difference(refined[best], method_rows, "tow_test"),
            family=f"{prefix}the best proxy",
        )
        for name, method_rows in refined.items()
        if best and name != best
    ]


def check_augmentation(results: Results, config: ExperimentConfig) -> list[Claim]:
    """Judge whether SalUn falls behind the others where the bank was trained with crop and flip."""
    others = [name for name in config.algorithms if name != "salun"]
    if not others or "salun" not in config.algorithms:
        return []
    terms: list[tuple[float, list[Row]]] = []
    for prefix, sign in ((OTHER_PREFIX, 1), ("", -1)):
        for score in list_scores(config):
            rows = select_rows(select_by_selection(results[prefix + score], config.selection), variant=f"rum {score}")
            terms += [
                (sign / len(others) / len(list_scores(config)), select_rows(rows, contender=algorithm))
                for algorithm in others
            ]
            terms.append((-sign / len(list_scores(config)), select_rows(rows, contender="salun")))
    # The first half of the terms is the augmented bank's, with weight +1; the second subtracts the other bank's.
    augmented_terms = terms[: len(terms) // 2]
    return [
        judge_claim(
            "with augmentation salun under RUM^F is below the mean of the others (ToW)",
            "CIFAR-100, by confidence: .656 against .887",
            paired_contrast(augmented_terms, "tow_test"),
            family="augmentation",
        ),
        judge_claim(
            "augmentation widens the distance from salun to the others (ToW)",
            "by confidence: .043 on CIFAR-10, .231 on CIFAR-100",
            paired_contrast(terms, "tow_test"),
            family="augmentation",
        ),
    ]


def draw_figure(results: Results, config: ExperimentConfig) -> bytes:
    """Draw ToW and ToW-MIA by score, a line per algorithm; one column of panels per bank and variant."""
    panels = {}
    for prefix in ("", OTHER_PREFIX) if config.other else ("",):
        for variant in VARIANTS:
            panels[f"{prefix}{variant}"] = {
                f"{algorithm}|{name}": select_rows(
                    select_by_selection(results[prefix + name], config.selection),
                    contender=algorithm,
                    variant=f"rum {name}" if variant == "rum" else variant,
                )
                for algorithm in config.algorithms
                for name in list_scores(config)
            }
    title = f"refinement by proxies: {config.size} examples to forget, chosen by {config.selection}"
    extra = {"tow_mia_test": "ToW-MIA (test)"}
    return render_points(panels, config.algorithms, list_scores(config), "tow_test", "ToW (test)", title, extra)


EXPERIMENT = Experiment(
    source="SCALE Tables 2, 5 and 6, Figs 2, 8 and 11",
    question=QUESTIONS["proxies"],
    make_sweeps=make_sweeps,
    check_claims=check_claims,
    draw_figure=draw_figure,
    small_preset=Preset(size=300, algorithms=ALGORITHMS, budget=6, tune_seeds=2, seeds=9, tunings=3),
    paper_preset=Preset(size=3000, algorithms=ALGORITHMS, budget=7, tune_seeds=2, seeds=3, tunings=3),
    run=run,
    columns=("wall_s", "rrt_wall"),
    compares_proxies=True,
)
