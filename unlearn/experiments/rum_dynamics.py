"""RUM Figs 4 and 9: what each step of a sequence does to the parts that are forgotten, and to all other examples.

SalUn and NegGrad+ over three parts by the score, low to high and high to low. After each step: accuracy on each part,
on the forget set, on the retain set and on test. In the paper SalUn forgets examples of low memorization too thoroughly
and later steps bring them back; NegGrad+ never loses them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from memscore.pipeline.jobs import OriginalJob, compute_job_key
from memscore.plots.bank import create_figure, encode_png
from memscore.statistics.claims import Claim, judge_claim, judge_equivalent, judge_not_lower
from memscore.store.store import Store
from memscore.store.trial_files import read_predictions
from memscore.training.evaluation import gap
from unlearn.algorithms import get_algorithm
from unlearn.experiments.base import (
    Experiment,
    ExperimentResult,
    Results,
    SweepRunner,
    select_by_selection,
)
from unlearn.experiments.config import ExperimentConfig, Preset
from unlearn.experiments.plots import plot_mean_line, plot_over_steps
from unlearn.experiments.questions import QUESTIONS
from unlearn.meta.partition import align_scores
from unlearn.oracles import TrialData
from unlearn.trials.config import ORACLE, Row
from unlearn.trials.setup import zero_embeddings
from unlearn.tuning.config import SweepConfig
from unlearn.tuning.methods import make_score_partition
from unlearn.tuning.results import average_by_original, paired_difference, select_last_step, select_rows

UNION, PARTS = "union", ("low", "medium", "high")
ORDERS = {"rum": "low to high", "rum-reversed": "high to low"}
SETS = (*PARTS, "forget", "retain", "test")
PART_FAMILY = "accuracy on low memorization"
CURVES = "curves alone (Fig. 4, CIFAR-10)"
PAPER_TOW = {"salun": "CIFAR-10 .887 and .881", "neggrad-plus": "CIFAR-100 .92 and .93"}
PAPER_MIA = {"salun": "CIFAR-10 .031 against .221"}


def make_sweeps(config: ExperimentConfig) -> Mapping[str, SweepConfig]:
    """Configure one sweep, each of its sequences measured after each step."""
    options = {"variants": tuple(ORDERS), "scores": (config.score,), "parts": len(PARTS), "dynamics": True}
    return {UNION: config.make_sweep_config(f"{config.score}:union", **options)}


def run(config: ExperimentConfig, runner: SweepRunner) -> ExperimentResult:
    """Run the sweep, and add the accuracy on every part to each row."""
    configs = make_sweeps(config)
    result = runner.run(configs)
    context = runner.open_context(configs[UNION])
    forget = result.sweeps[UNION].judged_set.rows
    values = align_scores(config.score, context.bank_store.score, context.splits.train.ids)
    # The parts of the ascending order are named low, medium and high in both orders.
    parts = make_score_partition(config.score, len(PARTS), "equal").split(
        forget, lambda _: values, lambda: zero_embeddings(context.splits), config.seed
    )
    sets = build_row_sets(parts, context.trial_data, len(values))
    rows = [
        row | compute_accuracies(context.store, row, forget, sets, context.trial_data) for row in result.results[UNION]
    ]
    return replace(result, results={UNION: rows})


def build_row_sets(parts: Sequence[Sequence[int]], trial_data: TrialData, n_train: int) -> dict[str, np.ndarray]:
    """Build the rows of each set: the parts, the forget set, the retain set, test."""
    sets = {name: np.array(part, dtype=np.int64) for name, part in zip(PARTS, parts, strict=True)}
    forget = np.concatenate(list(sets.values()))
    return sets | {"forget": forget, "retain": np.setdiff1d(np.arange(n_train), forget), "test": trial_data.test}


def compute_accuracies(
    store: Store, row: Row, forget: tuple[int, ...], sets: Mapping[str, np.ndarray], trial_data: TrialData
) -> dict[str, float]:
    """Compute the accuracy of the network of a row on each set: right_<set> -> share in [0, 1].

    NaN for a diverged run. `forget` is the whole forget set, on which the oracle was not trained.
    """
    margins = compute_margins(store, row, forget, trial_data)
    if margins is None:
        return {f"right_{name}": float("nan") for name in sets}
    return {f"right_{name}": float((margins[rows] > 0).mean()) for name, rows in sets.items()}


def compute_margins(store: Store, row: Row, forget: tuple[int, ...], trial_data: TrialData) -> np.ndarray | None:
    """Compute the label's logit minus the largest other, on every example; None if the run diverged."""
    # A trial stores its predictions; the oracle and theta_o are stored models with outputs.
    if row["contender"] not in {ORACLE, "original"}:
        predictions = read_predictions(store, row["trial"])
        return None if predictions is None else predictions["gap"]
    # Their key hashes the removed rows, none for theta_o.
    removed = forget if row["contender"] == ORACLE else ()
    logits = store.read_logits(
        compute_job_key(store, OriginalJob(store=store.url, index=row["index"], removed=removed))
    )
    return gap(torch.from_numpy(np.array(logits)), torch.from_numpy(np.array(trial_data.labels))).numpy()


def check_claims(results: Results, config: ExperimentConfig) -> list[Claim]:
    """Judge what each step does to examples of low memorization, and whether the order matters."""
    rows = select_by_selection(results[UNION], config.selection)
    original_rows, claims = select_rows(rows, contender="original"), []
    for name in config.algorithms:
        ascending, descending = (
            [r for r in rows if r["contender"] == name and r["variant"] == f"{v} {config.score}"] for v in ORDERS
        )
        # The paper finds opposite effects on the low part: SalUn, which draws labels, loses it in the first step and
        # brings it back, and NegGrad+, which draws none, never loses it. Other algorithms are judged with their kind.
        if get_algorithm(name).random_labels:
            first_step, last_step = select_rows(ascending, level=1), select_rows(ascending, level=len(PARTS))
            claims += [
                judge_claim(
                    f"{name}, low to high: the step that forgets low memorization lowers the accuracy on it",
                    CURVES,
                    paired_difference(original_rows, first_step, "right_low"),
                    family=PART_FAMILY,
                ),
                judge_claim(
                    f"{name}, low to high: later steps raise the accuracy on low memorization again",
                    CURVES,
                    paired_difference(last_step, first_step, "right_low"),
                    family=PART_FAMILY,
                ),
            ]
        else:
            claims += [
                judge_not_lower(
                    f"{name}, {order}: accuracy on low memorization after its worst step is not below theta_o's",
                    "curves alone (Fig. 9, CIFAR-100)",
                    paired_difference(find_lowest_accuracy(ordered_rows), original_rows, "right_low"),
                    family=PART_FAMILY,
                )
                for order, ordered_rows in zip(ORDERS.values(), (ascending, descending), strict=True)
            ]
        ends = select_last_step(ascending), select_last_step(descending)
        paper = PAPER_TOW.get(name, "not in the paper")
        claims.append(
            judge_equivalent(
                f"{name}: both orders end with a similar ToW",
                paper,
                paired_difference(*ends, "tow_test"),
                family="ToW by order",
            )
        )
        if get_algorithm(name).random_labels:
            paper = PAPER_MIA.get(name, "not in the paper")
            difference = paired_difference(ends[1], ends[0], "mia_test_gap")
            claim = f"{name}: low to high ends with the smaller MIA gap"
            claims.append(judge_claim(claim, paper, difference, family="MIA gap by order"))
    return claims


def find_lowest_accuracy(rows: Sequence[Row]) -> list[Row]:
    """Find for each original the lowest accuracy on the low part after any step."""
    # The minimum of each original, not of means over originals: their worst steps may differ.
    steps = [average_by_original(select_rows(rows, level=number), "right_low") for number in range(1, len(PARTS) + 1)]
    shared = set.intersection(*(set(step) for step in steps))
    # the last step's row says whether the sequence diverged, and which tuning it is of
    last_rows = {row["index"]: row for row in select_rows(rows, level=len(PARTS))}
    return [
        last_rows[index] | {"right_low": float(np.min([step[index] for step in steps]))} for index in sorted(shared)
    ]


def draw_figure(results: Results, config: ExperimentConfig) -> bytes:
    """Draw the accuracy on each set over the steps, a panel per algorithm and order; dashed, the oracle."""
    rows, names = select_by_selection(results[UNION], config.selection), config.algorithms
    figure = create_figure(9.5, 3.2 * len(names) + 0.4)
    figure.suptitle(
        f"{config.score}: {config.size} examples to forget, chosen by {config.selection}; dashed: retrained"
    )
    panels = figure.subplots(len(names), len(ORDERS), squeeze=False, sharey=True)
    for axes, name in zip(panels, names, strict=True):
        for axis, (variant, order) in zip(axes, ORDERS.items(), strict=True):
            ordered_rows = select_rows(rows, contender=name, variant=f"{variant} {config.score}")
            # Before the first step every line starts at theta_o.
            steps = [
                select_rows(rows, contender="original"),
                *(select_rows(ordered_rows, level=n) for n in range(1, len(PARTS) + 1)),
            ]
            for number, set_name in enumerate(SETS):
                positions = [step + 0.05 * number for step in range(len(steps))]
                plot_over_steps(axis, positions, steps, f"right_{set_name}", set_name, f"C{number}")
                plot_mean_line(axis, select_rows(rows, contender=ORACLE), f"right_{set_name}", f"C{number}")
            axis.set_title(f"{name}, {order}", fontsize=9)
            parts = PARTS if variant == "rum" else PARTS[::-1]
            axis.set_xticks(range(len(steps)), ["before", *parts])
            axis.grid(axis="y", alpha=0.3)
        axes[0].set_ylabel("share right")
    panels[0][-1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, frameon=False)
    return encode_png(figure)


EXPERIMENT = Experiment(
    source="RUM Figs 4 and 9",
    question=QUESTIONS["sequence"],
    make_sweeps=make_sweeps,
    check_claims=check_claims,
    draw_figure=draw_figure,
    small_preset=Preset(size=210, algorithms=("salun", "neggrad-plus"), budget=6, tune_seeds=2, seeds=9, tunings=3),
    paper_preset=Preset(size=3000, algorithms=("salun", "neggrad-plus"), budget=7, tune_seeds=2, seeds=3, tunings=3),
    run=run,
)
