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
from memscore.plots.bank import png
from memscore.statistics.claims import Finding, alike, finding
from unlearn.experiments.base import Asked, Carried, Experiment, Results, Scale, swept, within
from unlearn.experiments.plots import over_steps
from unlearn.experiments.sequential_requests import PROXY, SHARES, Walk, rows_of, walked
from unlearn.trials.config import Row
from unlearn.trials.setup import Phase
from unlearn.trials.tables import over_seeds
from unlearn.tuning.config import SweepPlan, sweep_request
from unlearn.tuning.results import contrast, paired, where
from unlearn.tuning.search import Search

ROUNDS = 5
TUNING = "tuning"
VANILLA, REFINED = "vanilla", f"rum {PROXY}"
ARMS = {VANILLA: "vanilla", REFINED: "RUM^F"}


def plans(asked: Asked) -> Mapping[str, SweepPlan]:
    """The sweep that parameters are chosen by; the bank's proxy is the mean over its originals."""
    more = {"variants": ("vanilla", "rum"), "scores": (PROXY,), "select": asked.judge}
    return {TUNING: asked.plan(f"{PROXY}:union", **more)}


def run(asked: Asked, pool: Pool, search: Search, device: str, phase: Phase, rounds: int = ROUNDS) -> Carried:
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
    made = plans(asked)
    request = sweep_request(made[TUNING]).asked
    size, n_train = asked.scale.size, len(request.splits.train)
    if (rounds + 1) * size > n_train:
        raise ValueError(
            f"--size {size}: {rounds} rounds and a set to choose parameters on take {(rounds + 1) * size} of the "
            f"{n_train} training examples; use {n_train // (rounds + 1)} or less"
        )
    carried = swept(asked, made, pool, search, device, phase)
    apart = carried.sweeps[TUNING].tuned_on.rows
    walks = [
        Walk(contender=path.contender, params=tuple(params for _, params in path.steps), index=index, apart=apart)
        for path in carried.sweeps[TUNING].paths
        if not path.over
        for index in judged_on(asked, draws_labels=path.contender.draws_labels)
    ]
    ended = walked(request, walks, rounds, size, pool, device, lambda what: within(phase, "rounds", what))
    rows = [row for walk in walks for row in rows_of(request.store, walk)]
    return replace(
        carried,
        results={"rounds": distinct(rows)},
        remarks=[
            *carried.remarks,
            f"parameters were chosen by {asked.judge} for round 1 and kept; rrt is of a whole walk over one retraining",
            *ended,
        ],
        incomplete=carried.incomplete or bool(ended),
    )


def judged_on(asked: Asked, *, draws_labels: bool) -> range:
    """The originals that a sweep reports: none that parameters were chosen on, twice as many where labels are drawn."""
    scale = asked.scale
    return range(scale.tune_seeds, scale.tune_seeds + scale.seeds * (2 if draws_labels else 1))


def distinct(rows: Sequence[Row]) -> list[Row]:
    """Rows without repeats: the walks of one original begin with the same row of doing nothing."""
    return list({(row["trial"], row["contender"], row["variant"]): row for row in rows}.values())


def findings(results: Results, asked: Asked) -> list[Finding]:
    """Refined against vanilla in the first round and the last, and how the skew of the proxy changes."""
    every, said = results["rounds"], []
    last = max((row["round"] for row in every), default=0)
    start = where(every, round=0)
    for name in asked.scale.algorithms:
        own = where(every, contender=name)
        first, end = ({arm: where(own, arm=arm, round=number) for arm in ARMS} for number in (1, last))
        for column, word, printed in (
            ("tow_test", "ToW", "CIFAR-10 .901 against .771, Tiny-ImageNet .816 against .716"),
            ("tow_mia_test", "ToW-MIA", "CIFAR-10 .791 against .661, Tiny-ImageNet .692 against .576"),
        ):
            value = paired(first[REFINED], first[VANILLA], column)
            said.append(finding(f"{name}: RUM^F is above vanilla in round 1 ({word})", printed, value))
        gap = ((1, first[REFINED]), (-1, first[VANILLA]), (-1, end[REFINED]), (1, end[VANILLA]))
        said += [
            finding(
                f"{name}: what RUM^F is above vanilla is less in round {last} than in round 1 (ToW)",
                "CIFAR-10 .130 to .003, Tiny-ImageNet .100 to -.016",
                contrast(gap, "tow_test"),
            ),
            finding(
                f"{name}: vanilla's ToW is higher in round {last} than in round 1",
                "CIFAR-10 .771 to .890 (Tiny-ImageNet .716 to .668)",
                paired(end[VANILLA], first[VANILLA], "tow_test"),
            ),
            alike(
                f"{name}: RUM^F's ToW is much the same in round {last} as in round 1",
                "CIFAR-10 .901 to .893 (Tiny-ImageNet .816 to .652)",
                paired(end[REFINED], first[REFINED], "tow_test"),
            ),
            *(
                finding(
                    f"{name}: {ARMS[arm]} lowers the Gini coefficient of the proxy in {last} rounds",
                    printed,
                    paired(start, end[arm], "gini"),
                )
                for arm, printed in (
                    (REFINED, "CIFAR-10 .788 to .642, Tiny-ImageNet .629 to .365"),
                    (VANILLA, "CIFAR-10 .788 to .723, Tiny-ImageNet .629 to .403"),
                )
            ),
            finding(
                f"{name}: the Gini coefficient after {last} rounds is lower with RUM^F than with vanilla",
                "CIFAR-10 .642 against .723, Tiny-ImageNet .365 against .403",
                paired(end[VANILLA], end[REFINED], "gini"),
            ),
        ]
    return said


def figure(results: Results, asked: Asked) -> bytes:
    """ToW, ToW-MIA and the Gini coefficient over the rounds; beneath, Lorenz curves of the proxy, one a round."""
    every = results["rounds"]
    rounds = range(1, max((row["round"] for row in every), default=1) + 1)
    arms = [(name, arm) for name in asked.scale.algorithms for arm in ARMS]
    wide = max(3, len(arms))
    picture = Figure(figsize=(3.6 * wide, 6.6), layout="constrained")
    picture.suptitle(f"{asked.scale.size} examples to forget in each round, by {PROXY} retraining of theta_u")
    top, bottom = picture.subplots(2, wide)
    start = where(every, round=0)
    for axis, (column, word) in zip(
        top, (("tow_test", "ToW"), ("tow_mia_test", "ToW-MIA"), ("gini", "Gini")), strict=False
    ):
        for number, (name, arm) in enumerate(arms):
            steps = [where(every, contender=name, arm=arm, round=r) for r in rounds]
            before = [start] if column == "gini" else []
            at = [each + 0.08 * number for each in range(0 if before else 1, len(rounds) + 1)]
            over_steps(axis, at, [*before, *steps], column, f"{name} {ARMS[arm]}", f"C{number}")
        axis.set(
            title=f"{word}" + (" (test)" if column != "gini" else " of the proxy over what is left"), xlabel="round"
        )
        axis.grid(axis="y", alpha=0.3)
    top[0].legend(fontsize=8, frameon=False)
    for axis, (name, arm) in zip(bottom, arms, strict=False):
        axis.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
        for number, rows in enumerate([start, *(where(every, contender=name, arm=arm, round=r) for r in rounds)]):
            held = [over_seeds([row[f"lorenz_{share:.2f}"] for row in rows]).value for share in SHARES]
            axis.plot(SHARES, held, color=str(0.75 - 0.75 * number / len(rounds)), linewidth=1, label=f"after {number}")
        axis.set(title=f"Lorenz: {name} {ARMS[arm]}", xlabel="share of the examples", ylabel="share of the proxy")
        axis.legend(fontsize=7, frameon=False)
    for axis in [*top[3:], *bottom[len(arms) :]]:
        axis.set_axis_off()
    return png(picture)


EXPERIMENT = Experiment(
    source="SCALE Tables 3 and 7, Figs 3 and 12",
    says="whether refining by a proxy still helps after five requests to forget",
    plans=plans,
    findings=findings,
    figure=figure,
    small=Scale(size=210, algorithms=("neggrad-plus",), budget=10, tune_seeds=2, seeds=8),
    paper=Scale(size=3000, algorithms=("neggrad-plus",), budget=20, tune_seeds=1, seeds=3),
    run=run,
    columns=("gini", "round_wall_s"),
)
