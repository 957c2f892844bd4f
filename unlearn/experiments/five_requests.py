"""SCALE section 4, Tables 3 and 7, Figs 3 and 12: does refining by a proxy still help after several requests?

Five rounds of NegGrad+ on the whole forget set and over three parts (RUM^F), each as its own sequence of requests: the
proxy, holdout retraining, is recomputed from each arm's theta_u over its retain set, and each is measured against its
own oracles.

Parameters are chosen by the oracle (or by the oracle-free selection, if requested), once, for round 1, on other
originals and on a forget set that no round uses, and kept for all rounds; the paper does not say how it tunes later
ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from matplotlib.axes import Axes

from memscore.analysis.trial_rows import is_diverged
from memscore.plots.bank import create_figure, encode_png
from memscore.statistics.claims import Claim, judge_claim, judge_equivalent
from memscore.statistics.means import estimate_mean
from memscore.units import format_count
from unlearn.experiments.base import (
    Experiment,
    ExperimentResult,
    Results,
    SweepRunner,
    label_progress,
)
from unlearn.experiments.config import ExperimentConfig, Preset
from unlearn.experiments.plots import Groups, plot_over_steps
from unlearn.experiments.questions import QUESTIONS
from unlearn.experiments.sequential_requests import (
    HISTOGRAM_EDGES,
    LORENZ_SHARES,
    PROXY,
    RequestSequence,
    read_rows,
    run_rounds,
)
from unlearn.forget_sets import SizeTooLargeError
from unlearn.trials.config import Row
from unlearn.trials.forgotten_copies import find_retained_copies
from unlearn.tuning.config import SweepConfig
from unlearn.tuning.results import paired_contrast, paired_difference, select_rows

ROUNDS = 5
TUNING = "tuning"
VANILLA, REFINED = "vanilla", f"rum {PROXY}"
ROUNDS_FAMILY, GINI_FAMILY = "ToW over the rounds", "Gini coefficient of the proxy"
ARM_LABELS = {VANILLA: "vanilla", REFINED: "RUM^F"}


def make_sweeps(config: ExperimentConfig) -> Mapping[str, SweepConfig]:
    """Configure the sweep for tuning; the bank's proxy is the mean over its originals."""
    options = {"variants": ("vanilla", "rum"), "scores": (PROXY,), "select": config.selection}
    return {TUNING: config.make_sweep_config(f"{PROXY}:union", **options)}


def check_rounds(size: int, n_train: int, rounds: int = ROUNDS) -> None:
    """Check, before anything is trained, that rounds and tuning can forget disjoint sets of this size."""
    # The sets of several tunings overlap: together they are at most twice as large as one.
    if (rounds + 2) * size > n_train:
        raise SizeTooLargeError(
            f"--size {size}: {rounds} rounds and the sets to choose parameters on take up to {(rounds + 2) * size} of "
            f"the {n_train} training examples; use {n_train // (rounds + 2)} or less"
        )


def run(config: ExperimentConfig, runner: SweepRunner, rounds: int = ROUNDS) -> ExperimentResult:
    """Tune, then run every arm of every original through the rounds, of which the paper has 5.

    The result has the rows of all rounds; those of the sweep are in its own folder. Raises ValueError if the rounds
    would forget more than the training set.
    """
    sweep_configs = make_sweeps(config)
    tuning = sweep_configs[TUNING]
    context = runner.open_context(tuning)
    size, n_train = tuning.n_forget, len(context.splits.train)
    check_rounds(size, n_train, rounds)
    result = runner.run(sweep_configs)
    # No round forgets an example that parameters were chosen on.
    excluded = tuple(sorted({row for forget in result.sweeps[TUNING].tuning_sets for row in forget.rows}))
    sequences = [
        RequestSequence(
            method=state.method, params=tuple(params for _, params in state.steps), index=index, excluded=excluded
        )
        for state in result.sweeps[TUNING].states
        if not state.end_reason
        # The originals that the sweep judged on: none of the tuning.
        for index in tuning.get_originals_of_tuning(state.tuning, draws_labels=state.method.draws_labels)
    ]
    labelled = replace(runner, show_progress=partial(label_progress, runner.show_progress, "rounds"))
    remarks = run_rounds(context, sequences, rounds, size, labelled)
    retained = [find_retained_copies(context.copies, sequence.forgotten) for sequence in sequences if sequence.trials]
    copied = max(retained, key=lambda found: len(found.pairs), default=None)
    # The sequences of one original share the row of doing nothing.
    rows = {
        (row["trial"], row["contender"], row["variant"]): row
        for sequence in sequences
        for row in read_rows(context.store, sequence)
    }
    return replace(
        result,
        results={"rounds": list(rows.values())},
        remarks=[
            *result.remarks,
            f"parameters were chosen by {config.selection} for round 1 and kept; rrt is of a whole walk "
            "over one retraining",
            *([f"after all rounds, at most: {copied.describe()}"] if copied and copied.pairs else []),
            *remarks,
        ],
        incomplete=result.incomplete or bool(remarks),
    )


def check_claims(results: Results, config: ExperimentConfig) -> list[Claim]:
    """Judge RUM^F against vanilla in the first and the last round, and how the skew of the proxy changes."""
    last = max((row["round"] for row in results["rounds"]), default=0)
    rows, claims = continue_diverged(results["rounds"], last), []
    start = select_rows(rows, round=0)
    for name in config.algorithms:
        method_rows = select_rows(rows, contender=name)
        # Round 1 and the last round, each as arm -> rows.
        first, end = (
            {arm: select_rows(method_rows, arm=arm, round=number) for arm in ARM_LABELS} for number in (1, last)
        )
        for column, label, paper in (
            ("tow_test", "ToW", "CIFAR-10 .901 against .771, Tiny-ImageNet .816 against .716"),
            ("tow_mia_test", "ToW-MIA", "CIFAR-10 .791 against .661, Tiny-ImageNet .692 against .576"),
        ):
            value = paired_difference(first[REFINED], first[VANILLA], column)
            claim = f"{name}: RUM^F is above vanilla in round 1 ({label})"
            claims.append(judge_claim(claim, paper, value, family="RUM^F against vanilla in round 1"))
        # (refined - vanilla) in round 1, less the same in the last round.
        terms = ((1, first[REFINED]), (-1, first[VANILLA]), (-1, end[REFINED]), (1, end[VANILLA]))
        claims += [
            judge_claim(
                f"{name}: what RUM^F is above vanilla is less in round {last} than in round 1 (ToW)",
                "CIFAR-10 .130 to .003, Tiny-ImageNet .100 to -.016",
                paired_contrast(terms, "tow_test"),
                family=ROUNDS_FAMILY,
            ),
            judge_claim(
                f"{name}: vanilla's ToW is higher in round {last} than in round 1",
                "CIFAR-10 .771 to .890 (Tiny-ImageNet .716 to .668)",
                paired_difference(end[VANILLA], first[VANILLA], "tow_test"),
                family=ROUNDS_FAMILY,
            ),
            judge_equivalent(
                f"{name}: RUM^F's ToW is much the same in round {last} as in round 1",
                "CIFAR-10 .901 to .893 (Tiny-ImageNet .816 to .652)",
                paired_difference(end[REFINED], first[REFINED], "tow_test"),
                family=ROUNDS_FAMILY,
            ),
            *(
                judge_claim(
                    f"{name}: {ARM_LABELS[arm]} lowers the Gini coefficient of the proxy in "
                    f"{format_count(last, 'round')}",
                    paper,
                    paired_difference(start, end[arm], "gini"),
                    family=GINI_FAMILY,
                )
                for arm, paper in (
                    (REFINED, "CIFAR-10 .788 to .642, Tiny-ImageNet .629 to .365"),
                    (VANILLA, "CIFAR-10 .788 to .723, Tiny-ImageNet .629 to .403"),
                )
            ),
            judge_claim(
                f"{name}: the Gini coefficient after {format_count(last, 'round')} is lower with RUM^F than with "
                "vanilla",
                "CIFAR-10 .642 against .723, Tiny-ImageNet .365 against .403",
                paired_difference(end[VANILLA], end[REFINED], "gini"),
                family=GINI_FAMILY,
            ),
        ]
    return claims


def continue_diverged(rows: Sequence[Row], last: int) -> list[Row]:
    """Continue sequences that diverged, and so ended, by the same row in all later rounds: they count there too."""
    # a sequence ends where it diverges: without rows of later rounds they would be of the others alone
    continued = [
        row | {"round": number} for row in rows if is_diverged(row) for number in range(row["round"] + 1, last + 1)
    ]
    return [*rows, *continued]


def draw_figure(results: Results, config: ExperimentConfig) -> bytes:
    """Draw ToW, ToW-MIA and Gini over the rounds; below, of each arm, Lorenz curves and histograms of the proxy."""
    all_rows = results["rounds"]
    rounds = range(1, max((row["round"] for row in all_rows), default=1) + 1)
    arms = [(name, arm) for name in config.algorithms for arm in ARM_LABELS]
    n_columns = max(3, len(arms))
    figure = create_figure(3.6 * n_columns, 9.9)
    figure.suptitle(f"{config.size} examples to forget in each round, by {PROXY} retraining of theta_u")
    top, middle, bottom = figure.subplots(3, n_columns)
    # Top: a line per arm and algorithm over the rounds. Round 0, before any request, is part of the skew alone.
    start = select_rows(all_rows, round=0)
    steps_by_arm = {
        (name, arm): [select_rows(all_rows, contender=name, arm=arm, round=r) for r in rounds] for name, arm in arms
    }
    for axis, (column, label) in zip(
        top, (("tow_test", "ToW"), ("tow_mia_test", "ToW-MIA"), ("gini", "Gini")), strict=False
    ):
        for number, ((name, arm), steps) in enumerate(steps_by_arm.items()):
            before = [start] if column == "gini" else []
            positions = [step + 0.08 * number for step in range(0 if before else 1, len(rounds) + 1)]
            plot_over_steps(axis, positions, [*before, *steps], column, f"{name} {ARM_LABELS[arm]}", f"C{number}")
        axis.set(
            title=f"{label}" + (" (test)" if column != "gini" else " of the proxy over what is left"), xlabel="round"
        )
        axis.grid(axis="y", alpha=0.3)
    top[0].legend(fontsize=8, frameon=False)
    # Below: a curve and a histogram per round, darker from round to round.
    for lorenz_axis, histogram_axis, ((name, arm), steps) in zip(middle, bottom, steps_by_arm.items(), strict=False):
        groups = [start, *steps]
        plot_lorenz_curves(lorenz_axis, groups)
        lorenz_axis.set_title(f"Lorenz: {name} {ARM_LABELS[arm]}")
        plot_histograms(histogram_axis, groups)
        histogram_axis.set_title(f"{PROXY}: {name} {ARM_LABELS[arm]}")
    bottom[0].sharey(bottom[1])
    for axis in [*top[3:], *middle[len(arms) :], *bottom[len(arms) :]]:
        axis.set_axis_off()
    return encode_png(figure)


def plot_lorenz_curves(axis: Axes, groups: Groups) -> None:
    """Plot the Lorenz curve of the proxy before the first round and after each; the diagonal is equality."""
    axis.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
    for number, rows in enumerate(groups):
        cumulative = average_columns(rows, [f"lorenz_{share:.2f}" for share in LORENZ_SHARES])
        axis.plot(LORENZ_SHARES, cumulative, color=shade(number, groups), linewidth=1, label=f"after {number}")
    axis.set(xlabel="share of the examples", ylabel="share of the proxy")
    axis.legend(fontsize=7, frameon=False)


def plot_histograms(axis: Axes, groups: Groups) -> None:
    """Plot the histogram of the proxy over what is left, before the first round and after each (SCALE Fig. 12)."""
    # Means over originals of shares of what each has left, so that no round has more area than another.
    for number, rows in enumerate(groups):
        shares = average_columns(rows, [f"histogram_{edge:.2f}" for edge in HISTOGRAM_EDGES[:-1]])
        edges = 10.0 ** np.array(HISTOGRAM_EDGES)
        axis.stairs(shares, edges, color=shade(number, groups), linewidth=1, label=f"after {number}")
    axis.set(xscale="log", xlabel="proxy (nats)", ylabel="share of the examples")
    axis.legend(fontsize=7, frameon=False)


def average_columns(rows: Sequence[Row], columns: Sequence[str]) -> list[float]:
    """Average each column over the rows where it is defined."""
    return [estimate_mean([row[column] for row in rows]).value for column in columns]


def shade(number: int, groups: Groups) -> str:
    """Return the grey of a round: darker from round to round, black after the last."""
    return str(0.75 - 0.75 * number / max(len(groups) - 1, 1))


EXPERIMENT = Experiment(
    source="SCALE Tables 3 and 7, Figs 3 and 12",
    question=QUESTIONS["five-steps"],
    make_sweeps=make_sweeps,
    check_claims=check_claims,
    draw_figure=draw_figure,
    small_preset=Preset(size=210, algorithms=("neggrad-plus",), budget=6, tune_seeds=2, seeds=9, tunings=3),
    paper_preset=Preset(size=3000, algorithms=("neggrad-plus",), budget=7, tune_seeds=2, seeds=3, tunings=3),
    run=run,
    check_size=check_rounds,
    after_sweeps=f"{ROUNDS} rounds of requests on each judged original, with an oracle for each round",
    columns=("gini", "round_wall_s"),
)
