"""Requests to forget that follow each other, each arm on a path of its own (SCALE section 4, "Stability analysis").

    F_t = thirds of low, medium and high proxy of theta_{t-1} among what is left,   theta_t = U(theta_{t-1}, ..., F_t)

Each arm forgets other examples, so each has oracles of its own: retrained on what it has left after each round. A round
is done for all walks at once: proxies, oracles and trials are a run of the pool each. Thetas are kept, so that a round
costs one round, and what is on file is not done again.

The proxy of any network on file, an original or an unlearned one: what a worker runs to compute it anew.

SCALE section 4, "Stability analysis", does so after each request to forget, by holdout retraining. It fine-tunes on the
half of validation that the bank's proxy does, in the same order, so two files of one original differ by the network
alone, and that of theta_o has the bits of its proxy in the bank. The file is events/<key>-rescored.parquet.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from cluster.pool import Failure, Pool
from memscore.pipeline.jobs import OriginalJob, compute_job_key, load_on_device
from memscore.pipeline.proxy_jobs import HOLDOUT_CONFIGS
from memscore.proxies.holdout_retraining import build_fine_tuning_recipe, holdout_retraining
from memscore.seeds import generator
from memscore.statistics.inequality import gini, lorenz
from memscore.store.store import Store
from memscore.store.visibility import open_visible_store
from memscore.training.numerics import float32_matmul, limit_gpu_memory, single_threaded
from unlearn.forget_sets import ForgetSet, select_forget_set
from unlearn.oracles import TrialData, build_reference_jobs
from unlearn.trials.config import ORACLE, Params, Row, Step, TrialConfig, describe_trial, model_key, trial_key
from unlearn.trials.runner import load_network
from unlearn.trials.setup import ShowProgress, UnlearningContext, require_reference_models, run_trials, zero_embeddings
from unlearn.tuning.methods import ORIGINAL, Method

LORENZ_SHARES = tuple(round(0.05 * number, 2) for number in range(21))
"""Of the examples, at which a Lorenz curve is kept."""


@dataclass(kw_only=True)
class RequestSequence:
    """An arm of one original on its way.

    Attributes:
        contender: algorithm, and how each round's forget set is cut.
        params: of the algorithm at each part, the same in every round.
        index: of the original.
        apart: rows that no round takes: parameters were chosen on them.
        trials: of the rounds so far, each the whole sequence up to there.
        skew: of the proxy after each round, from before the first.
        over: why it ended early; "" where it did not.
    """

    contender: Method
    params: tuple[Params, ...]
    index: int
    apart: tuple[int, ...] = ()
    trials: list[TrialConfig] = field(default_factory=list)
    skew: list[dict[str, float]] = field(default_factory=list)
    over: str = ""

    @property
    def gone(self) -> tuple[int, ...]:
        """All that it has forgotten, rising."""
        return self.trials[-1].forget if self.trials else ()

    def key(self, store: Store) -> str:
        """Of the weights of its present network."""
        if self.trials:
            return model_key(store, self.trials[-1])
        return compute_job_key(store, OriginalJob(store=store.url, index=self.index))

    def next(self, asked: UnlearningContext, values: np.ndarray, size: int, device: str) -> TrialConfig:
        """Its next round.

        Args:
            asked: the store and its data.
            values: float64 [n_train], the proxy of its present network.
            size: examples to forget; a multiple of 3.
            device: "cpu" or "cuda".

        Returns:
            The sequence with this round; what it forgets in it alone is `judged`.

        Raises:
            ValueError: too few examples are left.
        """
        chosen = select_next_forget_set(asked, values, (*self.gone, *self.apart), size)
        parts = self.contender.cut.split(
            chosen.rows, lambda _: values, lambda: zero_embeddings(asked.splits), asked.options.seed
        )
        new = [
            Step(algorithm=self.contender.plan[0], params=params, rows=part)
            for params, part in zip(self.params, parts, strict=True)
        ]
        *before, last = [*(self.trials[-1].steps if self.trials else ()), *new]
        return TrialConfig(
            store=asked.store.url,
            algorithm=last.algorithm,
            params=last.params,
            forget_set=f"{chosen.name}, round {len(self.trials) + 1}",
            forget=tuple(sorted({*self.gone, *chosen.rows})),
            before=tuple(before),
            part=last.rows if before else (),
            judged=chosen.rows if self.trials else (),
            index=self.index,
            seed=asked.options.seed,
            device=device,
            keep=True,
            keep_before=True,
            variant=self.contender.variant,
        )


def select_next_forget_set(
    asked: UnlearningContext, values: np.ndarray, without: Sequence[int], size: int
) -> ForgetSet:
    """The least, the middle and the most of the proxy among all rows but these; the middle is its median there."""
    left = values.copy()
    left[list(without)] = np.nan
    named = asked.splits.train.ids, left
    nothing = zero_embeddings(asked.splits)
    return select_forget_set(f"{PROXY}:union", size, asked.splits, lambda _: named, lambda: nothing, asked.options.seed)


def run_rounds(
    asked: UnlearningContext,
    walks: Sequence[RequestSequence],
    rounds: int,
    size: int,
    pool: Pool,
    device: str,
    phase: ShowProgress,
) -> list[str]:
    """Take all walks through all rounds.

    Args:
        asked: the store and its data; its originals are there.
        walks: at their beginning.
        rounds: how many.
        size: examples that each forgets.
        pool: where jobs run.
        device: "cpu" or "cuda".
        phase: given proxies, oracles and trials of each round in turn, hands out who is told of each.

    Returns:
        A line for each walk that ended early.
    """
    for number in range(1, rounds + 2):
        going = [walk for walk in walks if not walk.over]
        values = compute_proxies(asked, going, pool, device, phase)
        going = [walk for walk in going if not walk.over]
        for walk in going:
            walk.skew.append(compute_skew(values[walk.key(asked.store)], walk.gone))
        if number <= rounds:
            run_round(asked, going, values, size, pool, device, phase)
    return [
        f"{walk.contender.name} {walk.contender.variant} on original {walk.index} ended early: {walk.over}"
        for walk in walks
        if walk.over
    ]


def compute_proxies(
    asked: UnlearningContext, walks: Sequence[RequestSequence], pool: Pool, device: str, phase: ShowProgress
) -> dict[str, np.ndarray]:
    """The proxy of every walk's present network, by its key; a walk whose proxy cannot be had ends."""
    store, found = asked.store, dict[str, np.ndarray]()
    jobs = {
        key: RecomputeProxyJob(store=store.url, key=key, index=w.index, device=device)
        for w in walks
        if (key := w.key(store))
    }
    with phase("proxies") as progress:
        for done, (job, result) in enumerate(pool.run(recompute_proxy, list(jobs.values()), asked.trial_data), start=1):
            if isinstance(result, Failure):
                for walk in (one for one in walks if one.key(store) == job.key):
                    walk.over = f"no proxy after round {len(walk.trials)}: {result.error}"
            else:
                found[job.key] = read_recomputed_proxy(store, job)
            progress(done, len(jobs), f"original {job.index}")
    return found


def run_round(
    asked: UnlearningContext,
    walks: Sequence[RequestSequence],
    values: Mapping[str, np.ndarray],
    size: int,
    pool: Pool,
    device: str,
    phase: ShowProgress,
) -> None:
    """Choose what each walk forgets next, train its oracle, unlearn, and measure; a walk that diverges ends."""
    store, planned = asked.store, list[tuple[RequestSequence, TrialConfig]]()
    for walk in walks:
        try:
            planned.append((walk, walk.next(asked, values[walk.key(store)], size, device)))
        except ValueError as error:  # too few are left; other walks may have others
            walk.over = f"round {len(walk.trials) + 1}: {error}"
    jobs = [job for _, trial in planned for job in build_reference_jobs(store, [trial.forget], [trial.index], device)]
    require_reference_models(asked, list(dict.fromkeys(jobs)), pool, phase, "oracles")
    every = [one for _, trial in planned for one in (trial, *make_reference_trials(trial))]
    with phase("trials") as progress:
        rows, failed = run_trials(list(dict.fromkeys(every)), asked.trial_data, pool, progress)
    status = {row["trial"]: row["status"] for row in rows}
    for walk, trial in planned:
        if any(trial_key(store, one) not in status for one in (trial, *make_reference_trials(trial))):
            own = [line for line in failed if f"on original {walk.index} " in line]
            walk.over = f"round {len(walk.trials) + 1}: {'; '.join(own)}"
            continue
        walk.trials.append(trial)
        if status[trial_key(store, trial)] != "ok":
            walk.over = f"it diverged in round {len(walk.trials)}"


def make_reference_trials(trial: TrialConfig) -> list[TrialConfig]:
    """What a round's row is read beside: its oracle, and in the first round doing nothing."""
    bare = replace(trial, params=(), before=(), part=(), keep=False, keep_before=False)
    first = not trial.judged
    return [replace(bare, algorithm=name) for name in (ORACLE, *([ORIGINAL] if first else []))]


def compute_skew(values: np.ndarray, gone: Sequence[int]) -> dict[str, float]:
    """How unequally a proxy is spread over the examples that are left.

    Args:
        values: float64 [n_train], 0 or more.
        gone: rows that are not left.

    Returns:
        gini, and lorenz_<share> of the total that this share of the examples holds, lowest first.
    """
    left = np.delete(values, list(gone))
    share, held = lorenz(left)
    return {"gini": gini(left)} | {f"lorenz_{p:.2f}": float(np.interp(p, share, held)) for p in LORENZ_SHARES}


def read_rows(store: Store, walk: RequestSequence) -> list[Row]:
    """The rows of a walk, which are on file.

    Args:
        store: open.
        walk: at its end.

    Returns:
        A row of doing nothing, with round 0; for each round a row of theta_u and one of its oracle. Beside a trial's
        columns they have `arm`, `round`, the skew of the proxy after that round (NaN of oracles, and after a run that
        diverged), and what the round took: round_wall_s, round_examples (a trial's own columns are of the whole walk).
    """
    undefined = dict.fromkeys(compute_skew(np.ones(2), ()), float("nan"))
    arm = walk.contender.variant
    found: list[Row] = []
    spent = {"wall_s": 0.0, "examples": 0}
    for number, trial in enumerate(walk.trials, start=1):
        for one in (*make_reference_trials(trial)[::-1], trial):
            row = dict(store.read_trial(trial_key(store, one)) or {}) | describe_trial(store, one)
            own = one is trial
            idle = one.algorithm == ORIGINAL and not own
            after = walk.skew[number] if own and number < len(walk.skew) else undefined
            took = {f"round_{c}": row[c] - spent[c] if own else row[c] for c in spent}
            row |= {
                "contender": one.algorithm,
                "variant": "" if idle else f"{arm}, round {number}",
                "select": "oracle" if own else "",
                "level": 0,
                "levels": 0,
                "arm": "" if idle else arm,
                "round": 0 if idle else number,
            }
            found.append(row | took | (walk.skew[0] if idle else after))
        spent = {c: found[-1][c] for c in spent}
    return found


PROXY = "holdout"
"""The score, and the proxy of the bank that it is of."""


@dataclass(frozen=True, kw_only=True)
class RecomputeProxyJob:
    """Compute the proxy of one network.

    Attributes:
        store: path or URL.
        key: of the network's weights: that of an original, or model_key of a trial that was kept.
        index: of the original that it is, or that it was made from.
        device: "cpu" or "cuda".
    """

    store: str
    key: str
    index: int
    device: str = "cpu"

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.key}-rescored"


def recompute_proxy(job: RecomputeProxyJob, bench: TrialData) -> bool:
    """Do one job.

    Args:
        job: which network.
        bench: the data.

    Returns:
        Whether there was anything to do.
    """
    store, device = open_visible_store(job.store), torch.device(job.device)
    if store.has_events(job.name):
        return False
    limit_gpu_memory(device)
    config, n_train = HOLDOUT_CONFIGS[PROXY], store.manifest.split_sizes[0]
    with single_threaded(), float32_matmul(device):
        theta, held_out = (
            load_network(store, job.key, device),
            np.array(bench.validation),
        )  # what a pool shares is read-only
        recipe = build_fine_tuning_recipe(config, len(held_out))
        images, labels = load_on_device(store, bench.images, bench.labels, theta, recipe, device)
        rng = generator(store.manifest.seed, "proxies", PROXY, job.index)
        found = holdout_retraining(theta, images, labels, n_train, held_out, config, rng)
    return store.write_events(job.name, {"row": np.arange(n_train, dtype=np.int32), PROXY: found})


def read_recomputed_proxy(store: Store, job: RecomputeProxyJob) -> np.ndarray:
    """The proxy of a network whose job was done: float64 [n_train] in nats, higher is more memorized."""
    return store.read_events(job.name)[PROXY]
