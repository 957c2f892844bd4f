"""RUM Fig. 1a, Tables 2-6, Figs 6-7: the more entangled with what stays, the farther unlearning stays from retraining.

Three forget sets of one size by the distance of theta_o's embeddings to their centroid, far for a low ES. In the paper
those sets differ in memorization too (Fig. 6: .084, .134 and .390 on CIFAR-10), so two more sets have a low and a high
ES at equal memorization. The ES of memorization's own buckets (Table 3) needs no unlearning: originals alone.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure

from cluster.pool import Pool
from memscore.plots.bank import encode_png
from memscore.statistics.claims import Claim, judge_claim
from unlearn.algorithms import get_algorithm
from unlearn.experiments.base import (
    Experiment,
    ExperimentContext,
    ExperimentResult,
    Results,
    run_sweeps,
    select_by_selection,
)
from unlearn.experiments.memorization import PAPER, SMALL
from unlearn.experiments.plots import DETAIL_COLUMNS, Group, compute_figure_size, draw_grid
from unlearn.forget_sets import ENTANGLEMENT_AT, LEVELS
from unlearn.meta.partition import align_scores, mean_score
from unlearn.trials.config import ORACLE, Row
from unlearn.trials.setup import ShowProgress
from unlearn.tuning.config import SweepConfig, prepare_sweep
from unlearn.tuning.results import paired_contrast, paired_difference, select_rows
from unlearn.tuning.search import SearchBackend
from unlearn.tuning.tuning_set import SAME

MATCHED = ("matched low", "matched high")
BUCKETS = {"low": "CIFAR-10 21134", "medium": "CIFAR-10 32786", "high": "CIFAR-10 14737"}
PAPER_FALLS = {
    "finetune": "CIFAR-10 .952 to .908, CIFAR-100 .878 to .773",
    "l1-sparse": ".945 to .836, .867 to .709",
    "gradient-ascent": ".929 to .766, .755 to .666",
    "neggrad-plus": ".941 to .800, .922 to .766",
    "influence": ".928 to .744, .806 to .668",
    "salun": ".783 to .618, .835 to .678",
    "random-label": ".767 to .443, .675 to .585",
}
MEAN_SCORE = "score_mean"
"""Column: mean score of what is forgotten."""
QUANTILES = tuple(float(share) for share in np.linspace(0, 1, 21).round(2))
"""Of a forget set: where the quantiles of its score are kept, as columns score_<share>."""


def make_sweeps(asked: ExperimentContext) -> Mapping[str, SweepConfig]:
    """A sweep a level of ES, two at equal score, and for each bucket of the score what theta_o says."""
    found = {level: asked.plan(f"entanglement:{level}") for level in LEVELS}
    found |= {name: asked.plan(f"{ENTANGLEMENT_AT}{asked.score}:{name.split()[1]}") for name in MATCHED}
    idle = {
        "algorithms": ("original",),
        "budget": 1,
        "tuning": "defaults",
        "sampler": "random",
        "tune_forget": SAME,
        "select": "oracle",
    }
    return found | {name_bucket(level): asked.plan(f"{asked.score}:{level}", **idle) for level in BUCKETS}


def name_bucket(level: str) -> str:
    """What the part with a bucket of the score is called."""
    return f"{level} score"


def run(
    asked: ExperimentContext, pool: Pool, search: SearchBackend, device: str, phase: ShowProgress
) -> ExperimentResult:
    """The sweeps, and how the score is distributed in each forget set beside its rows."""
    carried = run_sweeps(asked, make_sweeps(asked), pool, search, device, phase)
    bank = prepare_sweep(asked.plan("random")).asked
    values = align_scores(asked.score, bank.bank_store.score, bank.splits.train.ids)
    results = {
        name: [row | summarize_scores(values, carried.sweeps[name].judged_on.rows) for row in rows]
        for name, rows in carried.results.items()
    }
    return replace(carried, results=results)


def summarize_scores(values: np.ndarray, rows: tuple[int, ...]) -> dict[str, float]:
    """Mean and quantiles of a score over a forget set, over the examples whose score is defined.

    Args:
        values: of each training row.
        rows: of the forget set.

    Returns:
        The mean, and score_<share> for each of SHARES; NaN where no example's score is defined.
    """
    own = values[list(rows)]
    known = own[~np.isnan(own)]
    quantiles = np.quantile(known, QUANTILES) if len(known) else np.full(len(QUANTILES), np.nan)
    named = {f"score_{share:.2f}": float(value) for share, value in zip(QUANTILES, quantiles, strict=True)}
    return {MEAN_SCORE: mean_score(values, rows)} | named


def check_claims(results: Results, asked: ExperimentContext) -> list[Claim]:
    """The sets' own ES, what falls with it, the same at equal score, and the buckets of the score."""
    rows = {name: select_by_selection(found, asked.judge) for name, found in results.items()}
    idle = {name: select_rows(found, contender="original", select="") for name, found in rows.items()}
    said = [
        judge_claim(
            "the high partition has a higher ES than the low one",
            "CIFAR-10 310, 1077, 1612; CIFAR-100 964, 2831, 3877",
            paired_difference(idle["high"], idle["low"], "entanglement_original"),
        ),
        judge_claim(
            "at equal score too",
            "not in the paper",
            paired_difference(idle["matched high"], idle["matched low"], "entanglement_original"),
        ),
    ]
    pairs: tuple[tuple[tuple[str, str], str, dict[str, str]], ...] = (
        (("low", "high"), "", PAPER_FALLS),
        (MATCHED, " at equal score", {}),
    )
    for (low, high), ending, printed in pairs:
        nothing = "CIFAR-10 .944 to .759, CIFAR-100 .836 to .690" if printed else "not in the paper"
        value = paired_difference(idle[low], idle[high], "tow_test")
        said.append(judge_claim(f"to do nothing is nearer to retraining at low ES{ending} (ToW)", nothing, value))
        own = {name: [select_rows(rows[at], contender=name) for at in (low, high)] for name in asked.scale.algorithms}
        for name, (near, far) in own.items():
            value = paired_difference(near, far, "tow_test")
            claim = f"{name}: ToW is higher at low ES{ending}"
            said.append(judge_claim(claim, printed.get(name, "not in the paper"), value))
        said += check_relabelling(own, ending, "CIFAR-10 .24 against .13, CIFAR-100 .12 against .13")
    return [*said, *check_buckets(idle)]


def check_relabelling(own: Mapping[str, list[list[Row]]], ending: str, printed: str) -> list[Claim]:
    """Whether methods that draw labels fall more than the others; nothing where one kind did not take part."""
    kinds: dict[bool, list[str]] = {True: [], False: []}
    for name in own:
        kinds[get_algorithm(name).random_labels].append(name)
    if not all(kinds.values()):
        return []
    terms = [
        (sign * (1 if drawn else -1) / len(names), own[name][place])
        for drawn, names in kinds.items()
        for name in names
        for place, sign in enumerate((1, -1))
    ]
    claim = f"methods that draw labels fall more from low to high ES{ending} than others (ToW)"
    return [judge_claim(claim, "not in the paper" if ending else printed, paired_contrast(terms, "tow_test"))]


def check_buckets(idle: Mapping[str, list[Row]]) -> list[Claim]:
    """Table 3: all buckets of memorization have a high ES, that of high memorization the lowest."""
    column = "entanglement_original"
    said = [
        judge_claim(
            f"what has a {level} score has a higher ES than the high partition",
            f"{printed} against 1612",
            paired_difference(idle[name_bucket(level)], idle["high"], column),
        )
        for level, printed in BUCKETS.items()
    ]
    return said + [
        judge_claim(
            f"what has a {level} score has a higher ES than what has a high one",
            f"{BUCKETS[level]} against 14737",
            paired_difference(idle[name_bucket(level)], idle[name_bucket("high")], column),
        )
        for level in ("low", "medium")
    ]


def draw_figure(results: Results, asked: ExperimentContext) -> bytes:
    """ToW, what it is made of and MIA by level of ES, beside the same at equal score; beneath, the score's spread."""
    names, measured = [*asked.scale.algorithms, "original", ORACLE], {"tow_test": "ToW (test)"} | DETAIL_COLUMNS
    panels: dict[str, Group] = {}
    for title, prefix in (("forget sets by ES", ""), (f"at equal {asked.score}", "matched ")):
        panels[title] = {
            f"{name}|{level}": select_rows(
                select_by_selection(results.get(prefix + level, []), asked.judge), contender=name
            )
            for name in names
            for level in LEVELS
        }
    wide, high = compute_figure_size(panels, LEVELS, measured)
    picture = Figure(figsize=(wide, high + 3), layout="constrained")
    picture.suptitle(f"entanglement: {asked.scale.size} examples to forget, chosen by {asked.judge}")
    ((top,), (bottom,)) = picture.subfigures(2, 1, squeeze=False, height_ratios=(high, 3))
    draw_grid(top, panels, names, LEVELS, measured)
    for axis, sets in zip(bottom.subplots(1, 2, sharex=True, sharey=True), (LEVELS, MATCHED), strict=True):
        for name in sets:
            row = results[name][0]
            spread = [row[f"score_{share:.2f}"] for share in QUANTILES]
            axis.plot(spread, QUANTILES, label=f"{name} ES, mean {row[MEAN_SCORE]:.3f}", linewidth=1)
        axis.set(xlabel=asked.score, ylabel="share of F up to it")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, frameon=False)
    return encode_png(picture)


EXPERIMENT = Experiment(
    source="RUM Fig. 1a, Tables 2-6, Figs 6-7",
    question="how entanglement with what stays decides how well unlearning goes",
    plans=make_sweeps,
    findings=check_claims,
    figure=draw_figure,
    small=SMALL,
    paper=PAPER,
    run=run,
    columns=("entanglement_original", MEAN_SCORE),
)
