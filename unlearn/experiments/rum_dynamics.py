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
from memscore.pipeline.jobs import OriginalJob, key_of
from memscore.plots.bank import png
from memscore.statistics.claims import Finding, alike, finding, not_lower
from memscore.store.store import Store
from memscore.training.evaluation import gap
from unlearn.algorithms import algorithm
from unlearn.experiments.base import Asked, Carried, Experiment, Results, Scale, chosen_by, swept
from unlearn.experiments.plots import level_line, over_steps
from unlearn.meta.partition import by_row
from unlearn.oracles import Bench
from unlearn.trials.config import ORACLE, Row
from unlearn.trials.setup import Phase, no_embeddings
from unlearn.tuning.config import SweepPlan, sweep_request
from unlearn.tuning.methods import by_score
from unlearn.tuning.results import by_index, last_step, paired, where
from unlearn.tuning.search import Search

UNION, PARTS = "union", ("low", "medium", "high")
ORDERS = {"rum": "low to high", "rum-reversed": "high to low"}
SETS = (*PARTS, "forget", "retain", "test")
CURVES = "curves alone (Fig. 4, CIFAR-10)"
TOW = {"salun": "CIFAR-10 .887 and .881", "neggrad-plus": "CIFAR-100 .92 and .93"}
MIA = {"salun": "CIFAR-10 .031 against .221"}


def plans(asked: Asked) -> Mapping[str, SweepPlan]:
    """One sweep, each of its sequences measured after each step."""
    more = {"variants": tuple(ORDERS), "scores": (asked.score,), "parts": len(PARTS), "dynamics": True}
    return {UNION: asked.plan(f"{asked.score}:union", **more)}


def run(asked: Asked, pool: Pool, search: Search, device: str, phase: Phase) -> Carried:
    """The sweep, with the accuracy on every part in each row."""
    made = plans(asked)
    carried = swept(asked, made, pool, search, device, phase)
    request = sweep_request(made[UNION]).asked
    forget = carried.sweeps[UNION].judged_on.rows
    values = by_row(asked.score, request.scored.score, request.splits.train.ids)
    parts = by_score(asked.score, len(PARTS), "equal").parts(
        forget, lambda _: values, lambda: no_embeddings(request.splits), asked.seed
    )
    sets = sets_of(parts, request.bench, len(values))
    rows = [row | shares(request.store, row, forget, sets, request.bench) for row in carried.results[UNION]]
    return replace(carried, results={UNION: rows})


def sets_of(parts: Sequence[Sequence[int]], bench: Bench, n_train: int) -> dict[str, np.ndarray]:
    """Rows of each set that accuracies are of: the parts, their union, what stays when all of them are gone, test."""
    found = {name: np.array(part, dtype=np.int64) for name, part in zip(PARTS, parts, strict=True)}
    forget = np.concatenate(list(found.values()))
    return found | {"forget": forget, "retain": np.setdiff1d(np.arange(n_train), forget), "test": bench.test}


def shares(
    store: Store, row: Row, forget: tuple[int, ...], sets: Mapping[str, np.ndarray], bench: Bench
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
    margins = margins_of(store, row, forget, bench)
    if margins is None:
        return {f"right_{name}": float("nan") for name in sets}
    return {f"right_{name}": float((margins[rows] > 0).mean()) for name, rows in sets.items()}


def margins_of(store: Store, row: Row, forget: tuple[int, ...], bench: Bench) -> np.ndarray | None:
    """The label's logit minus the largest other, on every example: above 0 where it is right; None if it diverged."""
    if row["contender"] not in {ORACLE, "original"}:
        said = store.read_said(row["trial"])
        return None if said is None else said["gap"]
    removed = forget if row["contender"] == ORACLE else ()
    logits, _ = store.read_outputs(key_of(store, OriginalJob(store=store.url, index=row["index"], removed=removed)))
    return gap(torch.from_numpy(np.array(logits)), torch.from_numpy(np.array(bench.labels))).numpy()


def findings(results: Results, asked: Asked) -> list[Finding]:
    """What each step does to the little memorized, and whether the order matters in the end."""
    rows = chosen_by(results[UNION], asked.judge)
    before, said = where(rows, contender="original"), []
    for name in asked.scale.algorithms:
        up, down = (
            [r for r in rows if r["contender"] == name and r["variant"] == f"{v} {asked.score}"] for v in ORDERS
        )
        if algorithm(name).random_labels:
            fell, rose = where(up, level=1), where(up, level=len(PARTS))
            said += [
                finding(
                    f"{name}, low to high: the step that forgets low memorization lowers the accuracy on it",
                    CURVES,
                    paired(before, fell, "right_low"),
                ),
                finding(
                    f"{name}, low to high: later steps raise the accuracy on low memorization again",
                    CURVES,
                    paired(rose, fell, "right_low"),
                ),
            ]
        else:
            said += [
                not_lower(
                    f"{name}, {order}: accuracy on low memorization after its worst step is not below theta_o's",
                    "curves alone (Fig. 9, CIFAR-100)",
                    paired(lowest(own), before, "right_low"),
                )
                for order, own in zip(ORDERS.values(), (up, down), strict=True)
            ]
        ends = last_step(up), last_step(down)
        printed = TOW.get(name, "not in the paper")
        said.append(alike(f"{name}: both orders end with a similar ToW", printed, paired(*ends, "tow_test")))
        if algorithm(name).random_labels:
            printed = MIA.get(name, "not in the paper")
            nearer = paired(ends[1], ends[0], "mia_test_gap")
            said.append(finding(f"{name}: low to high ends with the smaller MIA gap", printed, nearer))
    return said


def lowest(rows: Sequence[Row]) -> list[Row]:
    """For each original its least accuracy on the first part after any step."""
    steps = [by_index(where(rows, level=number), "right_low") for number in range(1, len(PARTS) + 1)]
    shared = set.intersection(*(set(step) for step in steps))
    return [{"index": index, "right_low": float(np.min([step[index] for step in steps]))} for index in sorted(shared)]


def figure(results: Results, asked: Asked) -> bytes:
    """A panel an algorithm and order: accuracy on each set over the steps; dashed, the oracle of all that goes."""
    rows, names = chosen_by(results[UNION], asked.judge), asked.scale.algorithms
    picture = Figure(figsize=(9.5, 3.2 * len(names) + 0.4), layout="constrained")
    picture.suptitle(
        f"{asked.score}: {asked.scale.size} examples to forget, chosen by {asked.judge}; dashed: retrained"
    )
    panels = picture.subplots(len(names), len(ORDERS), squeeze=False, sharey=True)
    for line, name in zip(panels, names, strict=True):
        for axis, (variant, order) in zip(line, ORDERS.items(), strict=True):
            own = where(rows, contender=name, variant=f"{variant} {asked.score}")
            steps = [where(rows, contender="original"), *(where(own, level=n) for n in range(1, len(PARTS) + 1))]
            for number, each in enumerate(SETS):
                at = [step + 0.05 * number for step in range(len(steps))]
                over_steps(axis, at, steps, f"right_{each}", each, f"C{number}")
                level_line(axis, where(rows, contender=ORACLE), f"right_{each}", f"C{number}")
            axis.set_title(f"{name}, {order}", fontsize=9)
            parts = PARTS if variant == "rum" else PARTS[::-1]
            axis.set_xticks(range(len(steps)), ["before", *parts])
            axis.grid(axis="y", alpha=0.3)
        line[0].set_ylabel("share right")
    panels[0][-1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, frameon=False)
    return png(picture)


EXPERIMENT = Experiment(
    source="RUM Figs 4 and 9",
    says="what each step of a sequence does to every part",
    plans=plans,
    findings=findings,
    figure=figure,
    small=Scale(size=210, algorithms=("salun", "neggrad-plus"), budget=10, tune_seeds=2, seeds=8),
    paper=Scale(size=3000, algorithms=("salun", "neggrad-plus"), budget=20, tune_seeds=1, seeds=3),
    run=run,
)
