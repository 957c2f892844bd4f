"""INST Table 1, Figs 1 to 22: what goes with how hard one example is to unlearn.

Every example is unlearned alone, by a few algorithms, until the decision on it flips. No oracle is trained. How well
that went, the FP-score, is correlated with each factor, and its rank is predicted before unlearning.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from memscore.statistics.claims import Claim, judge_claim, judge_equivalent
from memscore.statistics.means import MeanEstimate
from memscore.store.store import Store
from memscore.units import format_count
from unlearn.difficulty.calibration import ENOUGH, choose_rate, compute_shares, describe_choice, list_rates
from unlearn.difficulty.factors import FACTORS
from unlearn.difficulty.job import BEFORE, DifficultyJob, read_job
from unlearn.difficulty.plan import Drawn, draw_instances, list_chunks, run_jobs
from unlearn.difficulty.predictor import HELD_OUT, Judged, judge_prediction, predict_all
from unlearn.difficulty.single_unlearning import MAX_STEPS, METHODS
from unlearn.difficulty.store_features import SCORE, collect_features, store_prediction
from unlearn.difficulty.summary import (
    Difficulty,
    compare_samples,
    correlate_all,
    correlate_factors,
    overlap_algorithms,
    share_never_flipped,
    summarize,
)
from unlearn.experiments.base import Experiment, ExperimentResult, Results, SweepRunner, Work
from unlearn.experiments.config import ExperimentConfig, Preset
from unlearn.experiments.difficulty_figures import draw_correlations, draw_factor, draw_galleries
from unlearn.experiments.questions import QUESTIONS
from unlearn.oracles import build_reference_jobs, find_model_names, train_reference_models
from unlearn.trials.config import Row
from unlearn.trials.default_scores import DEFAULT_SCORES
from unlearn.trials.forecast import find_training_seconds
from unlearn.trials.setup import UnlearningContext, open_context
from unlearn.tuning.config import SweepConfig

ALGORITHMS = ("gradient-ascent", "neggrad-plus", "scrub", "salun", "finetune")
EVERYWHERE = 50
"""Examples after which the whole test and training set are read too, to say what the samples leave out."""
N_CALIBRATION_TEST = 100
GRADIENT = ("gradient-ascent", "neggrad-plus", "scrub")
NO_CORRELATION = 0.2
"""Margin within which a rank correlation counts as none; INST shows these factors as scatters without a number."""
PAPER_TPS = {
    "gradient-ascent": "SVHN 1.000, MNIST .993, CIFAR-10 .996",
    "neggrad-plus": "SVHN .998, MNIST .987, CIFAR-10 .977",
    "scrub": "SVHN .988, MNIST .982, CIFAR-10 .914",
}
PAPER_DPS = {
    "gradient-ascent": "SVHN -.79, MNIST -.72, CIFAR-10 -.61",
    "neggrad-plus": "SVHN -.57, MNIST -.71, CIFAR-10 -.43",
    "scrub": "SVHN -.81, MNIST -.64, CIFAR-10 -.77",
}
PAPER_STEPS = {
    "gradient-ascent": "SVHN -.85, MNIST -.51, CIFAR-10 -.58",
    "neggrad-plus": "SVHN -.54, MNIST -.71, CIFAR-10 -.41",
    "scrub": "SVHN -.36, MNIST -.40, CIFAR-10 -.62",
}
LABEL = "examples"
PICTURES = tuple(FACTORS)
"""Factors that are drawn."""


def make_sweeps(config: ExperimentConfig) -> Mapping[str, SweepConfig]:
    """Configure no sweep: each example is unlearned alone."""
    return {}


def list_originals(config: ExperimentConfig) -> tuple[range, range]:
    """List the original that learning rates are chosen on, none for the paper's, and those that are reported."""
    first = 0 if config.rates == "paper" else 1
    return range(first), range(first, first + int(config.seeds or 0))


def check_algorithms(config: ExperimentConfig) -> None:
    """Raise ValueError for an algorithm that has no form for one example."""
    for name in config.algorithms:
        if name not in METHODS:
            raise ValueError(
                f"--algorithms {name}: difficulty unlearns single examples by {', '.join(METHODS)}; leave it out"
            )


def run(config: ExperimentConfig, runner: SweepRunner) -> ExperimentResult:
    """Train originals, choose learning rates, unlearn every example alone, and correlate."""
    context = open_single_context(config)
    store, calibration, reported = context.store, *list_originals(config)
    train_originals(context, [*calibration, *reported], runner)
    keys = find_keys(store, [*calibration, *reported])
    drawn = draw_instances(read_correct(context, list(keys.values())), int(config.size or 0), config.seed)
    # Before anything is reported: the rates depend on other examples of an original that is not.
    rates, lines = choose_rates(config, context, drawn, keys, runner)
    jobs = list_jobs(config, drawn, keys, rates, runner.device)
    with runner.show_progress("single examples") as progress:
        failed = run_jobs(store, jobs, context.trial_data, runner.pool, progress)
    # what failed is missing here, and its cells are undefined
    found = [row for job in jobs for row in read_job(store, job)]
    features, names = collect_features(store, context, [keys[index] for index in reported])
    scores = {name: features[:, list(drawn.rows), number] for number, name in enumerate(names)}
    difficulty = summarize(found, config.algorithms, tuple(reported), drawn.rows, scores)
    return summarize_result(
        config,
        context,
        difficulty,
        found,
        (features, names),
        [keys[index] for index in reported],
        [*lines, describe_drawn(drawn), *failed],
        incomplete=bool(failed),
    )


def open_single_context(config: ExperimentConfig) -> UnlearningContext:
    """Open the store and its data; no forget set is selected."""
    store = Store.open(config.store, check_manifest=True)
    return open_context(store, forget="random", size=1, seed=config.seed, data=config.data, folder=config.folder)


def train_originals(context: UnlearningContext, indices: Sequence[int], runner: SweepRunner) -> None:
    """Train the missing originals; ValueError where one cannot be used."""
    jobs = build_reference_jobs(context.store, [], list(indices), runner.device)
    with runner.show_progress("originals") as progress:
        summary = train_reference_models(context.store, jobs, context.trial_data, runner.pool, progress)
    bad = [*summary.diverged, *summary.failed]
    if bad:
        raise ValueError(
            f"{format_count(len(bad), 'original')} cannot be used ({', '.join(bad)}); give another --seeds or a recipe "
            "that trains them"
        )


def find_keys(store: Store, indices: Sequence[int]) -> dict[int, str]:
    """Find the key of each original's files."""
    jobs = build_reference_jobs(store, [], list(indices), "cpu")
    return {job.index: key for job, (_, key) in find_model_names(store, jobs).items()}


def read_correct(context: UnlearningContext, keys: Sequence[str]) -> np.ndarray:
    """Read which training examples each original answers rightly, bool [O, n_train]."""
    n_train = context.store.manifest.split_sizes[0]
    labels = context.trial_data.labels[:n_train]
    return np.stack([context.store.read_logits(key)[:n_train].argmax(1) == labels for key in keys])


def choose_rates(
    config: ExperimentConfig,
    context: UnlearningContext,
    drawn: Drawn,
    keys: Mapping[int, str],
    runner: SweepRunner,
) -> tuple[dict[str, float], list[str]]:
    """Choose the learning rate of each algorithm, with a line on each."""
    if config.rates == "paper":
        rates = {name: METHODS[name].paper_lr for name in config.algorithms}
        return rates, [f"learning rates of INST's appendix B: {', '.join(f'{n} {lr:g}' for n, lr in rates.items())}"]
    flipped: dict[str, dict[float, list[bool]]] = {name: {} for name in config.algorithms}
    open_names = list(config.algorithms)
    # From the smallest rate up: an algorithm that flips enough needs no larger ones.
    for number in range(len(list_rates(ALGORITHMS[0]))):
        jobs = [
            DifficultyJob(
                store=config.store,
                index=0,
                key=keys[0],
                algorithm=name,
                rows=drawn.calibration,
                lr=list_rates(name)[number],
                n_test=N_CALIBRATION_TEST,
                n_remaining=N_CALIBRATION_TEST,
                device=runner.device,
            )
            for name in open_names
        ]
        with runner.show_progress(f"learning rates {number + 1}") as progress:
            failed = run_jobs(context.store, jobs, context.trial_data, runner.pool, progress)
        if failed:
            raise ValueError("; ".join(failed))
        for job in jobs:
            rows = read_job(context.store, job)
            flipped[job.algorithm][job.lr] = [bool(row["flipped"]) for row in rows]
        shares = {name: compute_shares(flipped[name]) for name in open_names}
        open_names = [name for name in open_names if max(shares[name].values()) < ENOUGH]
        if not open_names:
            break
    chosen = {name: compute_shares(flipped[name]) for name in config.algorithms}
    lines = [describe_choice(name, shares, len(drawn.calibration)) for name, shares in chosen.items()]
    return {name: choose_rate(shares) for name, shares in chosen.items()}, lines


def list_jobs(
    config: ExperimentConfig, drawn: Drawn, keys: Mapping[int, str], rates: Mapping[str, float], device: str
) -> list[DifficultyJob]:
    """List the jobs of all reported originals: what is measured before, and every algorithm on every example."""

    def make(index: int, algorithm: str, rows: tuple[int, ...], number: int) -> DifficultyJob:
        return DifficultyJob(
            store=config.store,
            index=index,
            key=keys[index],
            algorithm=algorithm,
            rows=rows,
            lr=rates.get(algorithm, 0.0),
            everywhere=number < EVERYWHERE,
            device=device,
        )

    chunks = list_chunks(drawn.rows)
    starts = np.cumsum([0, *map(len, chunks)])
    return [
        make(index, algorithm, rows, int(start))
        for index in list_originals(config)[1]
        for algorithm in (BEFORE, *config.algorithms)
        for rows, start in zip(chunks, starts, strict=False)
    ]


def describe_drawn(drawn: Drawn) -> str:
    """Describe how many examples were drawn and left out."""
    return (
        f"{format_count(len(drawn.rows), 'training example')} drawn at random, each unlearned alone; "
        f"{drawn.wrong} more left out, which an original answers wrongly"
    )


def summarize_result(
    config: ExperimentConfig,
    context: UnlearningContext,
    difficulty: Difficulty,
    found: Sequence[Mapping[str, Any]],
    known: tuple[np.ndarray, list[str]],
    keys: Sequence[str],
    remarks: list[str],
    *,
    incomplete: bool,
) -> ExperimentResult:
    """Correlate, predict, draw, and arrange what is stored."""
    correlations = correlate_all(difficulty)
    features, names = known
    own = features[:, list(difficulty.rows)]
    judged = {held_out: judge_prediction(own, difficulty.gt, names, held_out) for held_out in HELD_OUT}
    prediction = predict_all(features, np.array(difficulty.rows), difficulty.gt)
    store_prediction(context.store, prediction, keys)
    return ExperimentResult(
        results={LABEL: make_rows(difficulty)},
        claims=make_claims(difficulty, correlations),
        remarks=[*remarks, *list_remarks(difficulty, found, judged)],
        incomplete=incomplete,
        pictures=draw_pictures(context, difficulty, correlations),
        tables={
            "correlations": list_correlations(correlations),
            "factors": [
                {"algorithm": name, "first": first, "second": second, "rho": rho}
                for name in difficulty.algorithms
                for (first, second), rho in correlate_factors(difficulty, name).items()
            ],
            "hardest": [
                {"first": first, "second": second, "overlap": value}
                for (first, second), value in overlap_algorithms(difficulty).items()
            ],
            "prediction": list_predictions(judged),
        },
    )


def make_rows(difficulty: Difficulty) -> list[Row]:
    """A row for each algorithm, original and example, with the FP-score and all factors."""
    return [
        {
            "trial": f"{algorithm}-{original}-{row}",
            "algorithm": algorithm,
            "contender": algorithm,
            "variant": "",
            "select": "",
            "index": original,
            "row": row,
            "gt": float(difficulty.gt[a, o, i]),
            "gt_printed": float(difficulty.printed[a, o, i]),
            "flipped": float(difficulty.flipped[a, o, i]),
            **{name: float(values[a, o, i]) for name, values in difficulty.factors.items()},
        }
        for a, algorithm in enumerate(difficulty.algorithms)
        for o, original in enumerate(difficulty.originals)
        for i, row in enumerate(difficulty.rows)
    ]


def list_correlations(correlations: Mapping[tuple[str, str], MeanEstimate]) -> list[Row]:
    """INST Table 1 as rows."""
    return [
        {
            "algorithm": algorithm,
            "factor": factor,
            "title": FACTORS[factor].title if factor in FACTORS else f"{factor}, of the bank or theta_o",
            "built_in": FACTORS[factor].built_in if factor in FACTORS else "",
            "rho": estimate.value,
            **{name: value for name, value in asdict(estimate).items() if name in {"lo", "hi", "se", "df", "n"}},
            "originals": estimate.n_clusters,
        }
        for (algorithm, factor), estimate in correlations.items()
    ]


def list_predictions(judged: Mapping[str, Judged | None]) -> list[Row]:
    """Rank correlations of the predictions out of sample, as rows."""
    return [
        {
            "held_out": held_out,
            "of": kind,
            **{name: value for name, value in asdict(estimate).items() if name in {"value", "lo", "hi", "n"}},
            "best": next(iter(found.best), ""),
        }
        for held_out, found in judged.items()
        if found is not None
        for kind, estimate in (("predicted", found.predicted), ("single", found.single), ("gain", found.gain))
    ]


def make_claims(difficulty: Difficulty, correlations: Mapping[tuple[str, str], MeanEstimate]) -> list[Claim]:
    """Judge what INST says of each factor, and RUM's view of memorization, which INST doubts."""
    return [
        claim
        for algorithm in difficulty.algorithms
        for claim in (*claims_of_signs(algorithm, correlations), *claims_of_none(algorithm, correlations))
    ]


def claims_of_signs(algorithm: str, correlations: Mapping[tuple[str, str], MeanEstimate]) -> Iterator[Claim]:
    """Claims that a factor goes with the FP-score in one direction."""
    noted = "text: a noisy positive alignment of gradient methods"
    expected = [
        ("test_accuracy", 1, "examples that cost less test accuracy are easier", PAPER_TPS.get(algorithm), "TPS"),
        ("parameter_shift", -1, "examples that move the weights less are easier", PAPER_DPS.get(algorithm), "DPS"),
        ("steps", -1, "examples that take fewer steps are easier", PAPER_STEPS.get(algorithm), "NUS"),
        ("mia", 1, "examples taken for non-members are easier", noted if algorithm in GRADIENT[:2] else None, "MIA"),
    ]
    for factor, sign, words, paper, family in expected:
        if paper is not None:
            yield judge_claim(
                f"{algorithm}: {words}", paper, orient(correlations[algorithm, factor], sign), family=family
            )
    memorization = next((name for name in DEFAULT_SCORES if (algorithm, name) in correlations), None)
    if memorization:
        yield judge_claim(
            f"{algorithm}: more memorized examples are harder",
            "RUM's view, which INST section 4 doubts",
            orient(correlations[algorithm, memorization], -1),
            family="memorization",
        )


def claims_of_none(algorithm: str, correlations: Mapping[tuple[str, str], MeanEstimate]) -> Iterator[Claim]:
    """Claims that a factor does not go with the FP-score."""
    if algorithm == "finetune":
        return
    for factor, words, family in (
        ("deepfool", "distance to the decision boundary (DeepFool)", "GDDB"),
        ("boundary_distance", "distance to the decision boundary (last layer)", "GDDB"),
        ("density", "density of the remaining data", "SUE"),
    ):
        yield judge_equivalent(
            f"{algorithm}: {words} has no rank correlation with the FP-score",
            "no observable correlation",
            correlations[algorithm, factor],
            family=family,
            margin=NO_CORRELATION,
        )


def orient(estimate: MeanEstimate, sign: int) -> MeanEstimate:
    """Turn the sign of an estimate where the claim is of a negative correlation."""
    # a negated mean has its ends exchanged
    if sign > 0:
        return estimate
    return replace(estimate, value=-estimate.value, lo=-estimate.hi, hi=-estimate.lo)


def list_remarks(
    difficulty: Difficulty, found: Sequence[Mapping[str, Any]], judged: Mapping[str, Judged | None]
) -> list[str]:
    """List what a reader of the correlations needs."""
    never = ", ".join(f"{name} {share:.0%}" for name, share in share_never_flipped(difficulty).items())
    undefined = np.isnan(difficulty.factors["deepfool"][0]).sum()
    lines = [
        f"decision not flipped after 20 steps: {never}",
        *sorted({factor.built_in for factor in FACTORS.values() if factor.built_in}),
        f"the printed FP-score is undefined for {np.isnan(difficulty.printed).mean():.0%} of the runs: it takes F "
        "as a rise",
        *(
            f"samples against all examples after {name}: Spearman {rho:.3f}"
            for name, rho in compare_samples(found).items()
            if name in {"test_accuracy", "remaining_accuracy", "mia", "density"}
        ),
        *[f"DeepFool did not cross a boundary for {undefined} of {difficulty.gt[0].size} examples"] * bool(undefined),
    ]
    for held_out, own in judged.items():
        if own is None:
            lines.append(f"prediction for a held-out {held_out}: not enough is left to fit it")
            continue
        values = [f"{e.value:.3f} [{e.lo:.3f}, {e.hi:.3f}]" for e in (own.predicted, own.single, own.gain)]
        on = "held-out examples" + ("" if held_out == "examples" else f", of a held-out {held_out}")
        lines.append(
            f"difficulty predicted before unlearning, on {on}: Spearman {values[0]}, best single feature "
            f"({next(iter(own.best))}) {values[1]}, difference {values[2]}, given the fits"
        )
    return [*lines, f"stored as the score {SCORE}: --forget {SCORE}:high takes the hardest"]


def draw_pictures(
    context: UnlearningContext, difficulty: Difficulty, correlations: Mapping[tuple[str, str], MeanEstimate]
) -> dict[str, bytes]:
    """Draw a scatter for each factor (Figs 1 to 14) and a gallery for each (Figs 15 to 22)."""
    images = context.splits.train.images
    figures = {f"picture-factor-{name}": draw_factor(difficulty, name, correlations) for name in PICTURES}
    unlearned = [name for name in PICTURES if not FACTORS[name].before]
    return figures | {f"picture-gallery-{name}": draw_galleries(difficulty, name, images) for name in unlearned}


def draw_figure(results: Results, config: ExperimentConfig) -> bytes:
    """Draw Table 1: the rank correlation of each factor with the FP-score, by algorithm."""
    return draw_correlations(results[LABEL], config.algorithms)


def check_claims(results: Results, config: ExperimentConfig) -> list[Claim]:
    """Nothing beyond what the run judged, which has the correlations at hand."""
    return []


def estimate_work(config: ExperimentConfig, store: Store) -> Work:
    """Estimate what is missing, by how long the bank's models took to train."""
    check_algorithms(config)
    calibration, reported = list_originals(config)
    indices = [*calibration, *reported]
    keys = find_keys(store, indices)
    missing = [index for index, key in keys.items() if not store.has_weights(key)]
    seconds = find_training_seconds(store)
    recipe, n_train = store.manifest.recipe, store.manifest.split_sizes[0]
    # A run reads at most 20 batches and examples, and then 3,000 images forward, a third of a step's cost each.
    read = MAX_STEPS * (int(recipe["batch"]) + 1) + (2000 + 1000) / 3
    single = seconds * read / (int(recipe["epochs"]) * n_train)
    # rates that are tried are not counted: how many depends on when decisions flip
    n = int(config.size or 0) * len(config.algorithms) * len(reported)
    lines = [
        f"models {format_count(len(missing), 'original')} to train, {len(keys) - len(missing)} stored",
        f"runs   {n} single unlearnings of at most 20 steps, about {single:.2g} s each by this bank's training times; "
        "stored ones are not subtracted",
    ]
    return Work(lines=lines, seconds=n * single + len(missing) * seconds)


EXPERIMENT = Experiment(
    source="INST Table 1, Figs 1-22",
    question=QUESTIONS["difficulty"],
    make_sweeps=make_sweeps,
    check_claims=check_claims,
    draw_figure=draw_figure,
    small_preset=Preset(size=500, algorithms=ALGORITHMS, budget=0, tune_seeds=0, seeds=3, tunings=0),
    paper_preset=Preset(size=1000, algorithms=ALGORITHMS, budget=0, tune_seeds=0, seeds=3, tunings=0),
    run=run,
    estimate_work=estimate_work,
)
