"""SCALE section 4, Tables 3 and 7, Figs 3 and 12: does refining by a proxy still help after several requests to forget?

Five rounds, NegGrad+ in one go and over three parts (RUM^F), each on a path of its own: the proxy, holdout retraining,
is computed anew from each arm's theta_u over what it has left, and each is measured against its own oracles.

Parameters are chosen by the oracle (or blind, where that was asked for), once, for round 1, on other originals and on a
forget set that no round takes from, and kept for all rounds; the paper does not say how it tunes later ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from matplotlib.figure import Figure

from cluster.pool import Pool
from memscore.plots.bank import encode_png
from memscore.statistics.claims import Claim, judge_claim, judge_equivalent
from unlearn.experiments.base import (
    Experiment,
    ExperimentContext,
    ExperimentResult,
    Results,
    Scale,
    label_progress,
    run_sweeps,
)
from unlearn.experiments.plots import plot_over_steps
from unlearn.experiments.sequential_requests import LORENZ_SHARES, PROXY, RequestSequence, read_rows, run_rounds
from unlearn.trials.config import Row
from unlearn.trials.setup import ShowProgress
from unlearn.trials.tables import mean_with_interval
from unlearn.tuning.config import SweepConfig, prepare_sweep
from unlearn.tuning.results import paired_contrast, paired_difference, select_rows
from unlearn.tuning.search import SearchBackend

ROUNDS = 5
TUNING = "tuning"
VANILLA, REFINED = "vanilla", f"rum {PROXY}"
ARM_LABELS = {VANILLA: "vanilla", REFINED: "RUM^F"}


def make_sweeps(asked: ExperimentContext) -> Mapping[str, SweepConfig]:
    """The sweep that parameters are chosen by; the bank's proxy is the mean over its originals."""
    more = {"variants": ("vanilla", "rum"), "scores": (PROXY,), "select": asked.judge}
    return {TUNING: asked.plan(f"{PROXY}:union", **more)}


def run(
    asked: ExperimentContext, pool: Pool, search: SearchBackend, device: str, phase: ShowProgress, rounds: int = ROUNDS
) -> ExperimentResult:
    """Tune, then take every arm of every original through the rounds.

    Args:
        asked: what it was asked for.
        pool: where models are trained and trials run.
        search: what looks for parameters.
        device: "cpu" or "cuda".
        phase: as a sweep has it.
        rounds: the paper's are 5.

    Returns:
        The rows of all rounds; those of the sweep are in its own folder.

    Raises:
        ValueError: the rounds would forget all there is.
    """
    made = make_sweeps(asked)
    request = prepare_sweep(made[TUNING]).asked
    size, n_train = asked.scale.size, len(request.splits.train)
    if (rounds + 1) * size > n_train:
        raise ValueError(
            f"--size {size}: {rounds} rounds and a set to choose parameters on take {(rounds + 1) * size} of the "
            f"{n_train} training examples; use {n_train // (rounds + 1)} or less"
        )
    carried = run_sweeps(asked, made, pool, search, device, phase)
    apart = carried.sweeps[TUNING].tuned_on.rows
    walks = [
        RequestSequence(
            contender=path.contender, params=tuple(params for _, params in path.steps), index=index, apart=apart
        )
        for path in carried.sweeps[TUNING].paths
        if not path.over
        for index in get_judged_originals(asked, draws_labels=path.contender.draws_labels)
    ]
    ended = run_rounds(request, walks, rounds, size, pool, device, lambda what: label_progress(phase, "rounds", what))
    rows = [row for walk in walks for row in read_rows(request.store, walk)]
    return replace(
        carried,
        results={"rounds": deduplicate_rows(rows)},
        remarks=[
            *carried.remarks,
            f"parameters were chosen by {asked.judge} for round 1 and kept; rrt is of a whole walk over one retraining",
            *ended,
        ],
        incomplete=carried.incomplete or bool(ended),
    )


def get_judged_originals(asked: ExperimentContext, *, draws_labels: bool) -> range:
    """The originals that a sweep reports: none that parameters were chosen on, twice as many where labels are drawn."""
    scale = asked.scale
    return range(scale.tune_seeds, scale.tune_seeds + scale.seeds * (2 if draws_labels else 1))


def deduplicate_rows(rows: Sequence[Row]) -> list[Row]:
    """Rows without repeats: the walks of one original begin with the same row of doing nothing."""
    return list({(row["trial"], row["contender"], row["variant"]): row for row in rows}.values())


def check_claims(results: Results, asked: ExperimentContext) -> list[Claim]:
    """Refined against vanilla in the first round and the last, and how the skew of the proxy changes."""
    every, said = results["rounds"], []
    last = max((row["round"] for row in every), default=0)
    start = select_rows(every, round=0)
    for name in asked.scale.algorithms:
        own = select_rows(every, contender=name)
        first, end = ({arm: select_rows(own, arm=arm, round=number) for arm in ARM_LABELS} for number in (1, last))
        for column, word, printed in (
            ("tow_test", "ToW", "CIFAR-10 .901 against .771, Tiny-ImageNet .816 against .716"),
            ("tow_mia_test", "ToW-MIA", "CIFAR-10 .791 against .661, Tiny-ImageNet .692 against .576"),
        ):
            value = paired_difference(first[REFINED], first[VANILLA], column)
            said.append(judge_claim(f"{name}: RUM^F is above vanilla in round 1 ({word})", printed, value))
        gap = ((1, first[REFINED]), (-1, first[VANILLA]), (-1, end[REFINED]), (1, end[VANILLA]))
        said += [
            judge_claim(
                f"{name}: what RUM^F is above vanilla is less in round {last} than in round 1 (ToW)",
                "CIFAR-10 .130 to .003, Tiny-ImageNet .100 to -.016",
                paired_contrast(gap, "tow_test"),
            ),
            judge_claim(
                f"{name}: vanilla's ToW is higher in round {last} than in round 1",
                "CIFAR-10 .771 to .890 (Tiny-ImageNet .716 to .668)",
                paired_difference(end[VANILLA], first[VANILLA], "tow_test"),
            ),
            judge_equivalent(
                f"{name}: RUM^F's ToW is much the same in round {last} as in round 1",
                "CIFAR-10 .901 to .893 (Tiny-ImageNet .816 to .652)",
                paired_difference(end[REFINED], first[REFINED], "tow_test"),
            ),
            *(
                judge_claim(
                    f"{name}: {ARM_LABELS[arm]} lowers the Gini coefficient of the proxy in {last} rounds",
                    printed,
                    paired_difference(start, end[arm], "gini"),
                )
                for arm, printed in (
                    (REFINED, "CIFAR-10 .788 to .642, Tiny-ImageNet .629 to .365"),
                    (VANILLA, "CIFAR-10 .788 to .723, Tiny-ImageNet .629 to .403"),
                )
            ),
            judge_claim(
                f"{name}: the Gini coefficient after {last} rounds is lower with RUM^F than with vanilla",
                "CIFAR-10 .642 against .723, Tiny-ImageNet .365 against .403",
                paired_difference(end[VANILLA], end[REFINED], "gini"),
            ),
        ]
    return said


def draw_figure(results: Results, asked: ExperimentContext) -> bytes:
    """ToW, ToW-MIA and the Gini coefficient over the rounds; beneath, Lorenz curves of the proxy, one a round."""
    every = results["rounds"]
    rounds = range(1, max((row["round"] for row in every), default=1) + 1)
    arms = [(name, arm) for name in asked.scale.algorithms for arm in ARM_LABELS]
    wide = max(3, len(arms))
    picture = Figure(figsize=(3.6 * wide, 6.6), layout="constrained")
    picture.suptitle(f"{asked.scale.size} examples to forget in each round, by {PROXY} retraining of theta_u")
    top, bottom = picture.subplots(2, wide)
    start = select_rows(every, round=0)
    for axis, (column, word) in zip(
        top, (("tow_test", "ToW"), ("tow_mia_test", "ToW-MIA"), ("gini", "Gini")), strict=False
    ):
        for number, (name, arm) in enumerate(arms):
            steps = [select_rows(every, contender=name, arm=arm, round=r) for r in rounds]
            before = [start] if column == "gini" else []
            at = [each + 0.08 * number for each in range(0 if before else 1, len(rounds) + 1)]
            plot_over_steps(axis, at, [*before, *steps], column, f"{name} {ARM_LABELS[arm]}", f"C{number}")
        axis.set(
            title=f"{word}" + (" (test)" if column != "gini" else " of the proxy over what is left"), xlabel="round"
        )
        axis.grid(axis="y", alpha=0.3)
    top[0].legend(fontsize=8, frameon=False)
    for axis, (name, arm) in zip(bottom, arms, strict=False):
        axis.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
        for number, rows in enumerate([start, *(select_rows(every, contender=name, arm=arm, round=r) for r in rounds)]):
            held = [mean_with_interval([row[f"lorenz_{share:.2f}"] for row in rows]).value for share in LORENZ_SHARES]
            axis.plot(
                LORENZ_SHARES, held, color=str(0.75 - 0.75 * number / len(rounds)), linewidth=1, label=f"after {number}"
            )
        axis.set(title=f"Lorenz: {name} {ARM_LABELS[arm]}", xlabel="share of the examples", ylabel="share of the proxy")
        axis.legend(fontsize=7, frameon=False)
    for axis in [*top[3:], *bottom[len(arms) :]]:
        axis.set_axis_off()
    return encode_png(picture)


EXPERIMENT = Experiment(
    source="SCALE Tables 3 and 7, Figs 3 and 12",
    question="whether refining by a proxy still helps after five requests to forget",
    plans=make_sweeps,
    findings=check_claims,
    figure=draw_figure,
    small=Scale(size=210, algorithms=("neggrad-plus",), budget=10, tune_seeds=2, seeds=8),
    paper=Scale(size=3000, algorithms=("neggrad-plus",), budget=20, tune_seeds=1, seeds=3),
    run=run,
    columns=("gini", "round_wall_s"),
)
