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
from memscore.statistics.claims import Finding, finding
from memscore.statistics.intervals import Interval
from memscore.store.store import Store
from unlearn.experiments.base import Asked, Carried, Experiment, Results, Scale, chosen_by, swept
from unlearn.experiments.plots import points
from unlearn.trials.config import Row
from unlearn.trials.setup import Phase
from unlearn.trials.tables import over_seeds
from unlearn.tuning.config import SweepPlan
from unlearn.tuning.results import by_index, contrast, mean_of, paired, where
from unlearn.tuning.search import Search

ALGORITHMS = ("finetune", "neggrad-plus", "l1-sparse", "salun")
VARIANTS = ("vanilla", "shuffle", "rum")
OTHER = "augmented, "
"""Before the names of the second bank's parts."""
NO_NUMBER = "no number printed"
MEMORIZATION = "memorization"
GAINS = {
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
MIA_GAINS = {
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
SHUFFLED = {
    "ToW": "vanilla .72 to .86, shuffle .53 to .74 on CIFAR-10",
    "ToW-MIA": "vanilla .64 to .87, shuffle .45 to .74 on CIFAR-10",
}
MEASURED = (("ToW", "tow_test", GAINS), ("ToW-MIA", "tow_mia_test", MIA_GAINS))


def scores(asked: Asked) -> tuple[str, ...]:
    """Memorization and the proxies, none twice."""
    return tuple(dict.fromkeys((asked.score, *asked.proxies)))


def plans(asked: Asked) -> Mapping[str, SweepPlan]:
    """A sweep a score; with a second bank, another there."""
    banks = {"": asked.store} | ({OTHER: augmented(asked)} if asked.other else {})
    return {
        prefix + name: asked.plan(f"{name}:union", store=store, variants=VARIANTS, scores=(name,))
        for prefix, store in banks.items()
        for name in scores(asked)
    }


def augmented(asked: Asked) -> str:
    """The second bank, if it is one of the same data whose recipe augments where the first one's does not."""
    ours, theirs = Store.open(asked.store), Store.open(asked.other)
    if ours.manifest.fingerprint != theirs.manifest.fingerprint:
        raise ValueError(
            f"--other {theirs.folder.shown} has other data than {ours.folder.shown}; give a bank of the same --data, "
            "--train-limit, --validation and --seed"
        )
    if ours.manifest.recipe["augment"] or not theirs.manifest.recipe["augment"]:
        raise ValueError(
            f"--other {theirs.folder.shown} augments by {list(theirs.manifest.recipe['augment'])} and "
            f"{ours.folder.shown} by {list(ours.manifest.recipe['augment'])}; give first the bank without, and as "
            "--other one of `python -m memscore.estimate --augment crop flip`"
        )
    return asked.other


def run(asked: Asked, pool: Pool, search: Search, device: str, phase: Phase) -> Carried:
    """The sweeps, with the second bank's lock held too."""
    with ExitStack() as stack:
        if asked.other:
            stack.enter_context(Store.open(asked.other).lock())
        carried = swept(asked, plans(asked), pool, search, device, phase)
    besides = differences(asked) if asked.other else []
    remark = f"the second bank's recipe differs in {', '.join(besides)} too, and so may what is said of augmentation"
    return replace(carried, remarks=[remark, *carried.remarks]) if besides else carried


def differences(asked: Asked) -> list[str]:
    """Fields of the two banks' identities that differ beside augmentation."""
    ours, theirs = (Store.open(url).manifest for url in (asked.store, asked.other))
    apart = {"augment", "crop_padding", "source"}
    found = [name for name in ours.recipe if name not in apart and ours.recipe[name] != theirs.recipe[name]]
    return [*found, *(name for name in ("architecture", "precision") if getattr(ours, name) != getattr(theirs, name))]


def findings(results: Results, asked: Asked) -> list[Finding]:
    """For each bank: refinement, the control and run time by each score, and the best proxy; then augmentation."""
    said = []
    for prefix in ("", OTHER) if asked.other else ("",):
        for name in scores(asked):
            rows = chosen_by(results[prefix + name], asked.judge)
            said += of_score(rows, prefix, name, asked.scale.algorithms)
        said += holdout_first(results, prefix, asked)
    return said + (of_augmentation(results, asked) if asked.other else [])


def of_score(rows: list[Row], prefix: str, name: str, algorithms: tuple[str, ...]) -> list[Finding]:
    """What refinement by one score does."""
    by = {
        variant: [where(rows, contender=one, variant=variant) for one in algorithms]
        for variant in ("vanilla", "shuffle", f"rum {name}")
    }
    refined, vanilla, shuffled = by[f"rum {name}"], by["vanilla"], by["shuffle"]
    said = []
    for what, column, printed in MEASURED:
        for one, ours, theirs in zip(algorithms, refined, vanilla, strict=True):
            known = MEMORIZATION if name.startswith(MEMORIZATION) else name
            paper = NO_NUMBER if prefix else printed.get((one, known), NO_NUMBER)
            claim = f"{prefix}{one}: RUM^F by {name} is above vanilla ({what})"
            said.append(finding(claim, paper, paired(ours, theirs, column)))
        paper = "all proxies improve RUM^F" if what == "ToW" else "all proxies improve privacy"
        value = mean_of(refined, vanilla, column)
        said.append(finding(f"{prefix}mean of all: RUM^F by {name} is above vanilla ({what})", paper, value))
        claim = f"{prefix}mean of all: vanilla is above shuffle, union by {name} ({what})"
        said.append(finding(claim, SHUFFLED[what], mean_of(vanilla, shuffled, column)))
    said.append(
        finding(
            f"{prefix}RUM^F by {name} takes longer than vanilla: its run time over vanilla's, less 1",
            "about 2 times: 1.6 to 2.6 on CIFAR-10, so .6 to 1.6",
            times(refined, vanilla),
        )
    )
    claim = f"{prefix}RUM^F by {name} takes less time than retraining: 1 less its share of that"
    share = contrast([(-1 / len(refined), own) for own in refined], "rrt_wall")
    left = Interval(value=1 + share.value, lo=1 + share.lo, hi=1 + share.hi)
    return [*said, finding(claim, "CIFAR-10 .12 to .47, CIFAR-100 .86 to .88", left)]


def times(ours: list[list[Row]], theirs: list[list[Row]]) -> Interval:
    """Seconds of several contenders together over those of others, less 1, of each original; mean over originals."""
    sums = []
    for side in (ours, theirs):
        found = [by_index(rows, "wall_s") for rows in side]
        shared = set.intersection(*(set(one) for one in found))
        sums.append({index: sum(one[index] for one in found) for index in shared})
    return over_seeds([sums[0][index] / sums[1][index] - 1 for index in sorted(sums[0].keys() & sums[1].keys())])


def holdout_first(results: Results, prefix: str, asked: Asked) -> list[Finding]:
    """Whether holdout retraining refines best, against each other score."""
    refined = {
        name: [
            where(chosen_by(results[prefix + name], asked.judge), contender=one, variant=f"rum {name}")
            for one in asked.scale.algorithms
        ]
        for name in scores(asked)
    }
    best = next((name for name in refined if name.startswith("holdout")), "")
    paper = "no longer, with augmentation" if prefix else "best of the proxies on CIFAR-10, mostly above memorization"
    return [
        finding(f"{prefix}{best} refines better than {name} (ToW)", paper, mean_of(refined[best], own, "tow_test"))
        for name, own in refined.items()
        if best and name != best
    ]


def of_augmentation(results: Results, asked: Asked) -> list[Finding]:
    """Whether SalUn falls behind the others where the bank was trained with crop and flip."""
    others = [name for name in asked.scale.algorithms if name != "salun"]
    if not others or "salun" not in asked.scale.algorithms:
        return []
    terms: list[tuple[float, list[Row]]] = []
    for prefix, sign in ((OTHER, 1), ("", -1)):
        for score in scores(asked):
            rows = where(chosen_by(results[prefix + score], asked.judge), variant=f"rum {score}")
            terms += [(sign / len(others) / len(scores(asked)), where(rows, contender=one)) for one in others]
            terms.append((-sign / len(scores(asked)), where(rows, contender="salun")))
    there = terms[: len(terms) // 2]
    return [
        finding(
            "with augmentation salun under RUM^F is below the mean of the others (ToW)",
            "CIFAR-100, by confidence: .656 against .887",
            contrast(there, "tow_test"),
        ),
        finding(
            "augmentation widens the distance from salun to the others (ToW)",
            "by confidence: .043 on CIFAR-10, .231 on CIFAR-100",
            contrast(terms, "tow_test"),
        ),
    ]


def figure(results: Results, asked: Asked) -> bytes:
    """ToW and ToW-MIA by score, a line an algorithm; one column of panels a bank and a variant."""
    panels = {}
    for prefix in ("", OTHER) if asked.other else ("",):
        for variant in VARIANTS:
            panels[f"{prefix}{variant}"] = {
                f"{one}|{name}": where(
                    chosen_by(results[prefix + name], asked.judge),
                    contender=one,
                    variant=f"rum {name}" if variant == "rum" else variant,
                )
                for one in asked.scale.algorithms
                for name in scores(asked)
            }
    title = f"refinement by proxies: {asked.scale.size} examples to forget, chosen by {asked.judge}"
    more = {"tow_mia_test": "ToW-MIA (test)"}
    return points(panels, asked.scale.algorithms, scores(asked), "tow_test", "ToW (test)", title, more)


EXPERIMENT = Experiment(
    source="SCALE Tables 2, 5 and 6, Figs 2, 8 and 11",
    says="whether cheap proxies refine as well as memorization",
    plans=plans,
    findings=findings,
    figure=figure,
    small=Scale(size=300, algorithms=ALGORITHMS, budget=10, tune_seeds=2, seeds=8),
    paper=Scale(size=3000, algorithms=ALGORITHMS, budget=20, tune_seeds=1, seeds=3),
    run=run,
    columns=("wall_s", "rrt_wall"),
    compares=True,
)
