"""Sequential unlearning requests, each arm with its own sequence (SCALE section 4, "Stability analysis").

    F_t = thirds of low, medium and high proxy of theta_{t-1} over the retain set,   theta_t = U(theta_{t-1}, ..., F_t)

Each arm forgets other examples, so each has its own oracles: retrained on its retain set after each round. A round is
done for all sequences at once: proxies, oracles and trials are one run of the pool each. Models are stored, so that a
round costs one round, and stored results are not computed again.

The proxy is recomputed after each request, by holdout retraining as in SCALE. It fine-tunes on the same half of
validation as the bank's proxy, in the same order, so two files of one original differ by the network alone, and that of
theta_o has the bits of its proxy in the bank. The file is events/<key>-rescored.parquet.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from cluster.pool import Failure
from memscore.pipeline.jobs import OriginalJob, compute_job_key, load_on_device
from memscore.pipeline.proxy_jobs import HOLDOUT_CONFIGS
from memscore.proxies.holdout_retraining import build_fine_tuning_recipe, holdout_retraining
from memscore.seeds import generator
from memscore.statistics.inequality import gini, lorenz
from memscore.store.store import Store
from memscore.store.trial_files import read_trial
from memscore.store.visibility import open_visible_store
from memscore.training.numerics import float32_matmul, open_device, single_threaded
from memscore.training.precision import require_precision
from unlearn.experiments.base import SweepRunner
from unlearn.forget_sets import ForgetSet, select_forget_set
from unlearn.oracles import TrialData, build_reference_jobs
from unlearn.trials.config import ORACLE, ORIGINAL, Params, Row, Step, TrialConfig, describe_trial, model_key, trial_key
from unlearn.trials.runner import load_network
from unlearn.trials.setup import (
    UnlearningContext,
    describe_failures,
    require_reference_models,
    run_trials,
    zero_embeddings,
)
from unlearn.tuning.methods import Method

HISTOGRAM_EDGES = tuple(round(-6 + 0.25 * number, 2) for number in range(33))
"""Logarithms to base 10 of the edges of a proxy's histogram: holdout retraining, in nats, from 1e-6 to 100."""
LORENZ_SHARES = tuple(round(0.05 * number, 2) for number in range(21))
"""Shares of the examples at which a Lorenz curve is stored."""


@dataclass(kw_only=True)
class RequestSequence:
    """Track the requests of one arm of one original.

    Attributes:
        method: algorithm, and how each round's forget set is partitioned.
        params: parameters of the algorithm at each part, the same in every round.
        index: index of the original.
        excluded: rows that no round forgets, because parameters were chosen on them.
        trials: trials of the rounds so far, each the whole sequence up to that round.
        skew: skew of the proxy before the first round and after each.
        end_reason: why it ended early; "" if it did not.
    """

    method: Method
    params: tuple[Params, ...]
    index: int
    excluded: tuple[int, ...] = ()
    trials: list[TrialConfig] = field(default_factory=list)
    skew: list[dict[str, float]] = field(default_factory=list)
    end_reason: str = ""

    @property
    def forgotten(self) -> tuple[int, ...]:
        """All rows that it has forgotten, ascending."""
        return self.trials[-1].forget if self.trials else ()

    def key(self, store: Store) -> str:
        """Return the key of the weights of its current network."""
        if self.trials:
            return model_key(store, self.trials[-1])
        return compute_job_key(store, OriginalJob(store=store.url, index=self.index))

    def plan_next_round(self, context: UnlearningContext, values: np.ndarray, size: int, device: str) -> TrialConfig:
        """Plan the next round: the sequence with this round added; `judged` is what this round forgets.

        `values` is float64 [n_train], the proxy of the current network; `size` is a multiple of 3. Raises ValueError if
        too few examples remain.
        """
        forget_set = select_next_forget_set(context, values, (*self.forgotten, *self.excluded), size)
        parts = self.method.partition.split(
            forget_set.rows, lambda _: values, lambda: zero_embeddings(context.splits), context.seed
        )
        # A round is one step per part; the trial is the whole sequence up to and with this round.
        round_steps = [
            Step(algorithm=self.method.plan[0], params=params, rows=part)
            for params, part in zip(self.params, parts, strict=True)
        ]
        *before, last = [*(self.trials[-1].steps if self.trials else ()), *round_steps]
        return TrialConfig(
            store=context.store.url,
            algorithm=last.algorithm,
            params=last.params,
            forget_set=f"{forget_set.name}, round {len(self.trials) + 1}",
            # The oracle forgets all that was ever forgotten, while the round is judged on its own set.
            forget=tuple(sorted({*self.forgotten, *forget_set.rows})),
            before=tuple(before),
            part=last.rows if before else (),
            judged=forget_set.rows if self.trials else (),
            index=self.index,
            seed=context.seed,
            device=device,
            save_model=True,
            save_checkpoints=True,
            variant=self.method.variant,
        )


def select_next_forget_set(
    context: UnlearningContext, values: np.ndarray, excluded: Sequence[int], size: int
) -> ForgetSet:
    """Select the lowest, the middle (around the median) and the highest of the proxy among the remaining rows."""
    # NaN takes a row out: forget sets by a score are selected where it is defined.
    remaining = values.copy()
    remaining[list(excluded)] = np.nan
    scores = context.splits.train.ids, remaining
    embeddings = zero_embeddings(context.splits)
    return select_forget_set(f"{PROXY}:union", size, context.splits, lambda _: scores, lambda: embeddings, context.seed)


def run_rounds(
    context: UnlearningContext,
    sequences: Sequence[RequestSequence],
    rounds: int,
    size: int,
    runner: SweepRunner,
) -> list[str]:
    """Run all sequences through all rounds; a line for each sequence that ended early.

    Their originals are stored. Progress is shown of "proxies", "oracles" and "trials" in each round.
    """
    # One pass more than rounds: the last one measures the skew of the proxy after the last round.
    for number in range(1, rounds + 2):
        active = [sequence for sequence in sequences if not sequence.end_reason]
        values = compute_proxies(context, active, runner)
        active = [sequence for sequence in active if not sequence.end_reason]
        for sequence in active:
            sequence.skew.append(compute_skew(values[sequence.key(context.store)], sequence.forgotten))
        if number <= rounds:
            run_round(context, active, values, size, runner)
    return [
        f"{sequence.method.name} {sequence.method.variant} on original {sequence.index} ended early: "
        f"{sequence.end_reason}"
        for sequence in sequences
        if sequence.end_reason
    ]


def compute_proxies(
    context: UnlearningContext,
    sequences: Sequence[RequestSequence],
    runner: SweepRunner,
) -> dict[str, np.ndarray]:
    """Compute the proxy of every sequence's current network, by key; a sequence whose proxy fails ends."""
    store, proxies = context.store, dict[str, np.ndarray]()
    # Arms of one original share theta_o before the first round: one job by key.
    jobs = {
        key: RecomputeProxyJob(store=store.url, key=key, index=sequence.index, device=runner.device)
        for sequence in sequences
        if (key := sequence.key(store))
    }
    if not all(store.has_events(job.name) for job in jobs.values()):
        require_precision(store.manifest.precision, runner.device)
    with runner.show_progress("proxies") as progress:
        for done, (job, result) in enumerate(
            runner.pool.run(recompute_proxy, list(jobs.values()), context.trial_data), start=1
        ):
            if isinstance(result, Failure):
                for sequence in (sequence for sequence in sequences if sequence.key(store) == job.key):
                    sequence.end_reason = f"no proxy after round {len(sequence.trials)}: {result.error}"
            else:
                proxies[job.key] = read_recomputed_proxy(store, job)
            progress(done, len(jobs), f"original {job.index}")
    return proxies


def run_round(
    context: UnlearningContext,
    sequences: Sequence[RequestSequence],
    values: Mapping[str, np.ndarray],
    size: int,
    runner: SweepRunner,
) -> None:
    """Select the next forget sets, train the oracles, unlearn and measure; a sequence that diverges ends."""
    store, planned = context.store, list[tuple[RequestSequence, TrialConfig]]()
    for sequence in sequences:
        try:
            planned.append((
                sequence,
                sequence.plan_next_round(context, values[sequence.key(store)], size, runner.device),
            ))
        except ValueError as error:
            # Too few examples remain; other sequences may have more.
            sequence.end_reason = f"round {len(sequence.trials) + 1}: {error}"
    # Each trial has an oracle of its own, since each arm forgets other examples.
    jobs = [
        job for _, trial in planned for job in build_reference_jobs(store, [trial.forget], [trial.index], runner.device)
    ]
    require_reference_models(context, list(dict.fromkeys(jobs)), runner.pool, runner.show_progress, "oracles")
    trials = [reference for _, trial in planned for reference in (trial, *make_reference_trials(trial))]
    with runner.show_progress("trials") as progress:
        rows, failed = run_trials(list(dict.fromkeys(trials)), context.trial_data, runner.pool, progress)
    status = {row["trial"]: row["status"] for row in rows}
    for sequence, trial in planned:
        # Without one of its rows a sequence cannot go on; another one may.
        if any(trial_key(store, reference) not in status for reference in (trial, *make_reference_trials(trial))):
            own = describe_failures({each: error for each, error in failed.items() if each.index == sequence.index})
            sequence.end_reason = f"round {len(sequence.trials) + 1}: {'; '.join(own)}"
            continue
        sequence.trials.append(trial)
        if status[trial_key(store, trial)] != "ok":
            sequence.end_reason = f"it diverged in round {len(sequence.trials)}"


def make_reference_trials(trial: TrialConfig) -> list[TrialConfig]:
    """Make the trials that a round is compared with: its oracle, and in the first round doing nothing."""
    reference = replace(trial, params=(), before=(), part=(), save_model=False, save_checkpoints=False)
    # `judged` is set from the second round on; doing nothing is a row of the first round alone.
    first = not trial.judged
    return [replace(reference, algorithm=name) for name in (ORACLE, *([ORIGINAL] if first else []))]


def compute_skew(values: np.ndarray, forgotten: Sequence[int]) -> dict[str, float]:
    """Compute how a proxy, 0 or more, is distributed over the remaining examples.

    gini; lorenz_<share>: the share of the total that this share of the examples holds, lowest first; histogram_<edge>:
    the share of the examples whose logarithm to base 10 lies between this edge of HISTOGRAM_EDGES and the next one,
    those below the first edge and above the last in the bins at the ends.
    """
    # Without the forgotten rows, but with those that no round may forget: they are still trained on.
    remaining = np.delete(values, list(forgotten))
    share, cumulative = lorenz(remaining)
    # Without the outer edges, so that the bins at the ends count what lies beyond, such as 0, which has no logarithm.
    inner_edges = 10.0 ** np.array(HISTOGRAM_EDGES[1:-1])
    counts = np.bincount(np.searchsorted(inner_edges, remaining, side="right"), minlength=len(inner_edges) + 1)
    return (
        {"gini": gini(remaining)}
        | {f"lorenz_{p:.2f}": float(np.interp(p, share, cumulative)) for p in LORENZ_SHARES}
        | {
            f"histogram_{edge:.2f}": float(count) / len(remaining)
            for edge, count in zip(HISTOGRAM_EDGES, counts, strict=False)
        }
    )


def read_rows(store: Store, sequence: RequestSequence) -> list[Row]:
    """Read the stored rows of a sequence after its last round.

    A row of doing nothing, with round 0; for each round a row of theta_u and one of its oracle. Besides the columns of
    a trial they have `arm`, `round`, the skew of the proxy after that round (NaN for oracles, and after a diverged
    run), and the cost of the round: round_wall_s, round_examples (the trial's own columns are of the whole sequence).
    """
    undefined = dict.fromkeys(compute_skew(np.ones(2), ()), float("nan"))
    arm = sequence.method.variant
    rows: list[Row] = []
    earlier_cost = {"wall_s": 0.0, "examples": 0}
    for number, trial in enumerate(sequence.trials, start=1):
        # Doing nothing, then the oracle, then theta_u: the last row of a round is the one whose cost is carried over.
        for round_trial in (*make_reference_trials(trial)[::-1], trial):
            row = dict(read_trial(store, trial_key(store, round_trial)) or {}) | describe_trial(store, round_trial)
            is_unlearned = round_trial is trial
            is_baseline = round_trial.algorithm == ORIGINAL and not is_unlearned
            # skew[0] is before the first round. A sequence that diverged has no network to compute a skew of.
            skew = sequence.skew[number] if is_unlearned and number < len(sequence.skew) else undefined
            # Columns of a trial are of the whole sequence: a round's cost is the difference to the round before.
            round_cost = {f"round_{c}": row[c] - earlier_cost[c] if is_unlearned else row[c] for c in earlier_cost}
            row |= {
                "contender": round_trial.algorithm,
                "variant": "" if is_baseline else f"{arm}, round {number}",
                "select": "oracle" if is_unlearned else "",
                "level": 0,
                "levels": 0,
                "arm": "" if is_baseline else arm,
                "round": 0 if is_baseline else number,
            }
            rows.append(row | round_cost | (sequence.skew[0] if is_baseline else skew))
        earlier_cost = {c: rows[-1][c] for c in earlier_cost}
    return rows


PROXY = "holdout"
"""Name of the proxy, and of its score."""


@dataclass(frozen=True, kw_only=True)
class RecomputeProxyJob:
    """Describe the job of computing the proxy of one network.

    Attributes:
        store: path or URL.
        key: key of the network's weights: that of an original, or model_key of a stored trial.
        index: index of the original that it is, or was unlearned from.
        device: "cpu" or "cuda".
    """

    store: str
    key: str
    index: int
    device: str = "cpu"

    @property
    def name(self) -> str:
        """Name of its file."""
        return f"{self.key}-rescored"


def recompute_proxy(job: RecomputeProxyJob, trial_data: TrialData) -> bool:
    """Compute the proxy of one network in a worker, and store it; false if it was stored."""
    store, device = open_visible_store(job.store), open_device(job.device)
    if store.has_events(job.name):
        return False
    config, n_train = HOLDOUT_CONFIGS[PROXY], store.manifest.split_sizes[0]
    with single_threaded(), float32_matmul(device, store.manifest.precision):
        theta = load_network(store, job.key, device)
        # A copy: arrays that a pool shares are read-only.
        held_out = np.array(trial_data.validation)
        recipe = build_fine_tuning_recipe(config, len(held_out))
        images, labels = load_on_device(store, trial_data.images, trial_data.labels, theta, recipe, device)
        rng = generator(store.manifest.seed, "proxies", PROXY, job.index)
        proxy = holdout_retraining(theta, images, labels, n_train, held_out, config, rng)
    return store.write_events(job.name, {"row": np.arange(n_train, dtype=np.int32), PROXY: proxy})


def read_recomputed_proxy(store: Store, job: RecomputeProxyJob) -> np.ndarray:
    """Read a recomputed proxy: float64 [n_train] in nats, higher is more memorized."""
    return store.read_events(job.name)[PROXY]
