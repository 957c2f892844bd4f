"""RUM Figs 4 and 9: what each step of a sequence does to the parts that are forgotten, and to all the rest.

SalUn and NegGrad+ over three parts by the score, low to high and high to low. After each step: accuracy on each part,
on all of S, on what stays and on test. In the paper SalUn forgets the little memorized too thoroughly and later steps
bring it back; NegGrad+ never loses it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from matplotlib.figure import Figure

from cluster.pool import Pool
from memscore.pipeline.jobs import OriginalJob, compute_job_key
from memscore.plots.bank import encode_png
from memscore.statistics.claims import Claim, judge_claim, judge_equivalent, judge_not_lower
from memscore.store.store import Store
from memscore.training.evaluation import gap
from unlearn.algorithms import get_algorithm
from unlearn.experiments.base import (
    Experiment,
    ExperimentContext,
    ExperimentResult,
    Results,
    Scale,
    run_sweeps,
    select_by_selection,
)
from unlearn.experiments.plots import plot_mean_line, plot_over_steps
from unlearn.meta.partition import align_scores
from unlearn.oracles import TrialData
from unlearn.trials.config import ORACLE, Row
from unlearn.trials.setup import ShowProgress, zero_embeddings
from unlearn.tuning.config import SweepConfig, prepare_sweep
from unlearn.tuning.methods import make_score_partition
from unlearn.tuning.results import average_by_original, paired_difference, select_last_step, select_rows
from unlearn.tuning.search import SearchBackend

UNION, PARTS = "union", ("low", "medium", "high")
ORDERS = {"rum": "low to high", "rum-reversed": "high to low"}
SETS = (*PARTS, "forget", "retain", "test")
CURVES = "curves alone (Fig. 4, CIFAR-10)"
PAPER_TOW = {"salun": "CIFAR-10 .887 and .881", "neggrad-plus": "CIFAR-100 .92 and .93"}
PAPER_MIA = {"salun": "CIFAR-10 .031 against .221"}


def make_sweeps(asked: ExperimentContext) -> Mapping[str, SweepConfig]:
    """One sweep, each of its sequences measured after each step."""
    more = {"variants": tuple(ORDERS), "scores": (asked.score,), "parts": len(PARTS), "dynamics": True}
    return {UNION: asked.plan(f"{asked.score}:union", **more)}


def run(
    asked: ExperimentContext, pool: Pool, search: SearchBackend, device: str, phase: ShowProgress
) -> ExperimentResult:
    """The sweep, with the accuracy on every part in each row."""
    made = make_sweeps(asked)
    carried = run_sweeps(asked, made, pool, search, device, phase)
    request = prepare_sweep(made[UNION]).asked
    forget = carried.sweeps[UNION].judged_on.rows
    values = align_scores(asked.score, request.bank_store.score, request.splits.train.ids)
    parts = make_score_partition(asked.score, len(PARTS), "equal").split(
        forget, lambda _: values, lambda: zero_embeddings(request.splits), asked.seed
    )
    sets = build_row_sets(parts, request.trial_data, len(values))
    rows = [
        row | compute_accuracies(request.store, row, forget, sets, request.trial_data) for row in carried.results[UNION]
    ]
    return replace(carried, results={UNION: rows})


def build_row_sets(parts: Sequence[Sequence[int]], bench: TrialData, n_train: int) -> dict[str, np.ndarray]:
    """Rows of each set that accuracies are of: the parts, their union, what stays when all of them are gone, test."""
    found = {name: np.array(part, dtype=np.int64) for name, part in zip(PARTS, parts, strict=True)}
    forget = np.concatenate(list(found.values()))
    return found | {"forget": forget, "retain": np.setdiff1d(np.arange(n_train), forget), "test": bench.test}


def compute_accuracies(
    store: Store, row: Row, forget: tuple[int, ...], sets: Mapping[str, np.ndarray], bench: TrialData
) -> dict[str, float]:
    """How often the network of a row is right on each set.

    Args:
        store: open.
        row: of a trial that was kept, of the oracle, or of the original.
        forget: all that goes, which the oracle has never seen.
        sets: rows of each.
        bench: the labels.

    Returns:
        right_<set> -> share in [0, 1]; NaN of a run that diverged.
    """
    margins = compute_margins(store, row, forget, bench)
    if margins is None:
        return {f"right_{name}": float("nan") for name in sets}
    return {f"right_{name}": float((margins[rows] > 0).mean()) for name, rows in sets.items()}


def compute_margins(store: Store, row: Row, forget: tuple[int, ...], bench: TrialData) -> np.ndarray | None:
    """The label's logit minus the largest other, on every example: above 0 where it is right; None if it diverged."""
    if row["contender"] not in {ORACLE, "original"}:
        said = store.read_predictions(row["trial"])
        return None if said is None else said["gap"]
    removed = forget if row["contender"] == ORACLE else ()
    logits, _ = store.read_outputs(
        compute_job_key(store, OriginalJob(store=store.url, index=row["index"], removed=removed))
    )
    return gap(torch.from_numpy(np.array(logits)), torch.from_numpy(np.array(bench.labels))).numpy()


def check_claims(results: Results, asked: ExperimentContext) -> list[Claim]:
    """What each step does to the little memorized, and whether the order matters in the end."""
    rows = select_by_selection(results[UNION], asked.judge)
    before, said = select_rows(rows, contender="original"), []
    for name in asked.scale.algorithms:
        up, down = (
            [r for r in rows if r["contender"] == name and r["variant"] == f"{v} {asked.score}"] for v in ORDERS
        )
        if get_algorithm(name).random_labels:
            fell, rose = select_rows(up, level=1), select_rows(up, level=len(PARTS))
            said += [
                judge_claim(
                    f"{name}, low to high: the step that forgets low memorization lowers the accuracy on it",
                    CURVES,
                    paired_difference(before, fell, "right_low"),
                ),
                judge_claim(
                    f"{name}, low to high: later steps raise the accuracy on low memorization again",
                    CURVES,
                    paired_difference(rose, fell, "right_low"),
                ),
            ]
        else:
            said += [
                judge_not_lower(
                    f"{name}, {order}: accuracy on low memorization after its worst step is not below theta_o's",
                    "curves alone (Fig. 9, CIFAR-100)",
                    paired_difference(find_lowest_accuracy(own), before, "right_low"),
                )
                for order, own in zip(ORDERS.values(), (up, down), strict=True)
            ]
        ends = select_last_step(up), select_last_step(down)
        printed = PAPER_TOW.get(name, "not in the paper")
        said.append(
            judge_equivalent(
                f"{name}: both orders end with a similar ToW", printed, paired_difference(*ends, "tow_test")
            )
        )
        if get_algorithm(name).random_labels:
            printed = PAPER_MIA.get(name, "not in the paper")
            nearer = paired_difference(ends[1], ends[0], "mia_test_gap")
            said.append(judge_claim(f"{name}: low to high ends with the smaller MIA gap", printed, nearer))
    return said


def find_lowest_accuracy(rows: Sequence[Row]) -> list[Row]:
    """For each original its least accuracy on the first part after any step."""
    steps = [average_by_original(select_rows(rows, level=number), "right_low") for number in range(1, len(PARTS) + 1)]
    shared = set.intersection(*(set(step) for step in steps))
    return [{"index": index, "right_low": float(np.min([step[index] for step in steps]))} for index in sorted(shared)]


def draw_figure(results: Results, asked: ExperimentContext) -> bytes:
    """A panel an algorithm and order: accuracy on each set over the steps; dashed, the oracle of all that goes."""
    rows, names = select_by_selection(results[UNION], asked.judge), asked.scale.algorithms
    picture = Figure(figsize=(9.5, 3.2 * len(names) + 0.4), layout="constrained")
    picture.suptitle(
        f"{asked.score}: {asked.scale.size} examples to forget, chosen by {asked.judge}; dashed: retrained"
    )
    panels = picture.subplots(len(names), len(ORDERS), squeeze=False, sharey=True)
    for line, name in zip(panels, names, strict=True):
        for axis, (variant, order) in zip(line, ORDERS.items(), strict=True):
            own = select_rows(rows, contender=name, variant=f"{variant} {asked.score}")
            steps = [
                select_rows(rows, contender="original"),
                *(select_rows(own, level=n) for n in range(1, len(PARTS) + 1)),
            ]
            for number, each in enumerate(SETS):
                at = [step + 0.05 * number for step in range(len(steps))]
                plot_over_steps(axis, at, steps, f"right_{each}", each, f"C{number}")
                plot_mean_line(axis, select_rows(rows, contender=ORACLE), f"right_{each}", f"C{number}")
            axis.set_title(f"{name}, {order}", fontsize=9)
            parts = PARTS if variant == "rum" else PARTS[::-1]
            axis.set_xticks(range(len(steps)), ["before", *parts])
            axis.grid(axis="y", alpha=0.3)
        line[0].set_ylabel("share right")
    panels[0][-1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, frameon=False)
    return encode_png(picture)


EXPERIMENT = Experiment(
    source="RUM Figs 4 and 9",
    question="what each step of a sequence does to every part",
    plans=make_sweeps,
    findings=check_claims,
    figure=draw_figure,
    small=Scale(size=210, algorithms=("salun", "neggrad-plus"), budget=10, tune_seeds=2, seeds=8),
    paper=Scale(size=3000, algorithms=("salun", "neggrad-plus"), budget=20, tune_seeds=1, seeds=3),
    run=run,
)
