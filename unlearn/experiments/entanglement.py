"""RUM Fig. 1a, Tables 2-6, Figs 5-7: the more entangled forget and retain set, the farther unlearning from retraining.

Three forget sets of one size, by the distance of theta_o's embeddings to their centroid; a large distance gives a low
ES, and embeddings.png shows the sets (Fig. 5). In the paper those sets differ in memorization too (Fig. 6: .084, .134
and .390 on CIFAR-10), so two more sets have a low and a high ES at equal memorization. The ES of memorization's own
buckets (Table 3) needs no unlearning, only originals.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from memscore.pipeline.jobs import OriginalJob, compute_job_key
from memscore.plots.bank import create_figure, encode_png
from memscore.statistics.claims import Claim, judge_claim
from unlearn.algorithms import get_algorithm
from unlearn.experiments.base import (
    Experiment,
    ExperimentResult,
    Results,
    SweepRunner,
    select_by_selection,
)
from unlearn.experiments.config import ExperimentConfig
from unlearn.experiments.embedding_figure import draw_embeddings
from unlearn.experiments.memorization import PAPER, SMALL
from unlearn.experiments.plots import DETAIL_COLUMNS, Group, compute_figure_size, draw_grid
from unlearn.experiments.questions import QUESTIONS
from unlearn.forget_sets import ENTANGLEMENT_AT, LEVELS
from unlearn.measures.entanglement import entanglement_score
from unlearn.meta.partition import align_scores, mean_score
from unlearn.trials.config import ORACLE, Row
from unlearn.trials.setup import UnlearningContext, read_embeddings
from unlearn.tuning.config import SweepConfig
from unlearn.tuning.results import paired_contrast, paired_difference, paired_mean_difference, select_rows
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
"""Column: mean score of the forget set."""
QUANTILES = tuple(float(share) for share in np.linspace(0, 1, 21).round(2))
"""Quantiles of the score of a forget set that are stored, as columns score_<share>."""


def make_sweeps(config: ExperimentConfig) -> Mapping[str, SweepConfig]:
    """Configure a sweep for each level of ES, two at equal score, and one of originals for each bucket of the score."""
    configs = {level: config.make_sweep_config(f"entanglement:{level}") for level in LEVELS}
    configs |= {
        name: config.make_sweep_config(f"{ENTANGLEMENT_AT}{config.score}:{name.split()[1]}") for name in MATCHED
    }
    # ES (entanglement score) is of originals: these sweeps unlearn nothing, so there is nothing to choose.
    untuned = {
        "algorithms": ("original",),
        "budget": 1,
        "tuning": "defaults",
        "sampler": "refine",
        "tunings": 1,
        "tune_forget": SAME,
        "select": "oracle",
    }
    return configs | {
        name_bucket(level): config.make_sweep_config(f"{config.score}:{level}", **untuned) for level in BUCKETS
    }


def name_bucket(level: str) -> str:
    """Return the name of the part with a bucket of the score."""
    return f"{level} score"


def run(config: ExperimentConfig, runner: SweepRunner) -> ExperimentResult:
    """Run the sweeps, add the distribution of the score in each forget set to its rows, and draw the embeddings."""
    result = runner.run(make_sweeps(config))
    # Any forget set opens the same data and scores.
    context = runner.open_context(config.make_sweep_config("random"))
    values = align_scores(config.score, context.bank_store.score, context.splits.train.ids)
    results = {
        name: [row | summarize_scores(values, result.sweeps[name].judged_set.rows) for row in rows]
        for name, rows in result.results.items()
    }
    return replace(result, results=results, pictures={"embeddings": draw_forget_sets(result, context)})


def draw_forget_sets(result: ExperimentResult, context: UnlearningContext) -> bytes:
    """Draw the forget sets by ES among the embeddings of original 0, by which they are selected; PNG."""
    # The sweeps select by original 0 alone, so in another one's embeddings the sets would lie elsewhere.
    first = compute_job_key(context.store, OriginalJob(store=context.store.url, index=0))
    embeddings = read_embeddings(context.store, first)
    forget_sets = {name: result.sweeps[name].judged_set.rows for name in (*LEVELS, *MATCHED)}
    titles = {}
    for name, rows in forget_sets.items():
        retained = np.delete(embeddings, list(rows), axis=0)
        titles[name] = f"{name} ES: {entanglement_score(retained, embeddings[list(rows)]):.0f}"
    return draw_embeddings(embeddings, forget_sets, titles)


def summarize_scores(values: np.ndarray, rows: tuple[int, ...]) -> dict[str, float]:
    """Compute mean and quantiles of a score over the examples of a forget set where it is defined.

    Columns score_mean, and score_<share> for each of QUANTILES; NaN if no score is defined.
    """
    selected = values[list(rows)]
    defined = selected[~np.isnan(selected)]
    quantiles = np.quantile(defined, QUANTILES) if len(defined) else np.full(len(QUANTILES), np.nan)
    columns = {f"score_{share:.2f}": float(value) for share, value in zip(QUANTILES, quantiles, strict=True)}
    return {MEAN_SCORE: mean_score(values, rows)} | columns


def check_claims(results: Results, config: ExperimentConfig) -> list[Claim]:
    """Judge the claims on the ES of the sets, on what falls with it, at equal score, and on buckets of the score."""
    rows = {name: select_by_selection(level_rows, config.selection) for name, level_rows in results.items()}
    # Of theta_o, before anything is forgotten: its ES, and how near it is to retraining.
    original_rows = {
        name: select_rows(level_rows, contender="original", select="") for name, level_rows in rows.items()
    }
    family = "ES of the partitions"
    claims = [
        judge_claim(
            "the high partition has a higher ES than the low one",
            "CIFAR-10 310, 1077, 1612; CIFAR-100 964, 2831, 3877",
            paired_difference(original_rows["high"], original_rows["low"], "entanglement_original"),
            family=family,
        ),
        judge_claim(
            "at equal score too",
            "not in the paper",
            paired_difference(original_rows["matched high"], original_rows["matched low"], "entanglement_original"),
            family=family,
        ),
    ]
    # Each pair of levels is judged alike: the paper's partitions, then the sets that are matched in score, which are
    # not in the paper.
    pairs: tuple[tuple[tuple[str, str], str, dict[str, str]], ...] = (
        (("low", "high"), "", PAPER_FALLS),
        (MATCHED, " at equal score", {}),
    )
    for (low, high), suffix, paper in pairs:
        paper_original = "CIFAR-10 .944 to .759, CIFAR-100 .836 to .690" if paper else "not in the paper"
        value = paired_difference(original_rows[low], original_rows[high], "tow_test")
        claims.append(
            judge_claim(
                f"to do nothing is nearer to retraining at low ES{suffix} (ToW)",
                paper_original,
                value,
                family="doing nothing by ES",
            )
        )
        rows_by_method = {
            name: [select_rows(rows[level], contender=name) for level in (low, high)] for name in config.algorithms
        }
        for name, (low_rows, high_rows) in rows_by_method.items():
            value = paired_difference(low_rows, high_rows, "tow_test")
            claim = f"{name}: ToW is higher at low ES{suffix}"
            claims.append(judge_claim(claim, paper.get(name, "not in the paper"), value, family=f"ToW by ES{suffix}"))
        if len(rows_by_method) > 1:
            low_groups, high_groups = zip(*rows_by_method.values(), strict=True)
            claims.append(
                judge_claim(
                    f"mean of all: ToW is higher at low ES{suffix}",
                    "no mean printed" if paper else "not in the paper",
                    paired_mean_difference(low_groups, high_groups, "tow_test"),
                    family=f"ToW by ES{suffix}, mean",
                )
            )
        claims += check_relabelling(rows_by_method, suffix, "CIFAR-10 .24 against .13, CIFAR-100 .12 against .13")
    return [*claims, *check_buckets(original_rows)]


def check_relabelling(rows_by_method: Mapping[str, list[list[Row]]], suffix: str, paper: str) -> list[Claim]:
    """Judge whether methods that draw labels fall more than the others; nothing if one kind is missing."""
    names_by_kind: dict[bool, list[str]] = {True: [], False: []}
    for name in rows_by_method:
        names_by_kind[get_algorithm(name).random_labels].append(name)
    if not all(names_by_kind.values()):
        return []
    # Mean fall from low to high ES over the methods that draw labels, less that over the others.
    terms = [
        (sign * (1 if draws_labels else -1) / len(names), rows_by_method[name][place])
        for draws_labels, names in names_by_kind.items()
        for name in names
        for place, sign in enumerate((1, -1))
    ]
    claim = f"methods that draw labels fall more from low to high ES{suffix} than others (ToW)"
    return [
        judge_claim(
            claim,
            "not in the paper" if suffix else paper,
            paired_contrast(terms, "tow_test"),
            family="methods that draw labels by ES",
        )
    ]


def check_buckets(original_rows: Mapping[str, list[Row]]) -> list[Claim]:
    """Judge Table 3: all buckets of memorization have a high ES, that of high memorization the lowest."""
    column, family = "entanglement_original", "ES of buckets of the score"
    claims = [
        judge_claim(
            f"what has a {level} score has a higher ES than the high partition",
            f"{paper} against 1612",
            paired_difference(original_rows[name_bucket(level)], original_rows["high"], column),
            family=family,
        )
        for level, paper in BUCKETS.items()
    ]
    return claims + [
        judge_claim(
            f"what has a {level} score has a higher ES than what has a high one",
            f"{BUCKETS[level]} against 14737",
            paired_difference(original_rows[name_bucket(level)], original_rows[name_bucket("high")], column),
            family=family,
        )
        for level in ("low", "medium")
    ]


def draw_figure(results: Results, config: ExperimentConfig) -> bytes:
    """Draw ToW, its parts and MIA by level of ES, also at equal score; below, the distribution of the score."""
    names, ylabels = [*config.algorithms, "original", ORACLE], {"tow_test": "ToW (test)"} | DETAIL_COLUMNS
    panels: dict[str, Group] = {}
    for title, prefix in (("forget sets by ES", ""), (f"at equal {config.score}", "matched ")):
        panels[title] = {
            f"{name}|{level}": select_rows(
                select_by_selection(results.get(prefix + level, []), config.selection), contender=name
            )
            for name in names
            for level in LEVELS
        }
    # The grid of panels above, and a row of fixed height below: cumulative distributions from the stored quantiles.
    width, height = compute_figure_size(panels, LEVELS, ylabels)
    figure = create_figure(width, height + 3)
    figure.suptitle(f"entanglement: {config.size} examples to forget, chosen by {config.selection}")
    ((top,), (bottom,)) = figure.subfigures(2, 1, squeeze=False, height_ratios=(height, 3))
    draw_grid(top, panels, names, LEVELS, ylabels)
    for axis, levels in zip(bottom.subplots(1, 2, sharex=True, sharey=True), (LEVELS, MATCHED), strict=True):
        for name in levels:
            row = results[name][0]
            spread = [row[f"score_{share:.2f}"] for share in QUANTILES]
            axis.plot(spread, QUANTILES, label=f"{name} ES, mean {row[MEAN_SCORE]:.3f}", linewidth=1)
        axis.set(xlabel=config.score, ylabel="share of F up to it")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, frameon=False)
    return encode_png(figure)


EXPERIMENT = Experiment(
    source="RUM Fig. 1a, Tables 2-6, Figs 5-7",
    question=QUESTIONS["entanglement"],
    make_sweeps=make_sweeps,
    check_claims=check_claims,
    draw_figure=draw_figure,
    small_preset=SMALL,
    paper_preset=PAPER,
    run=run,
    columns=("entanglement_original", MEAN_SCORE),
)
