"""What a worker runs: one algorithm on one forget set of one original, measured and put on file.

A trial is a function of its config alone, and its row is kept under the hash of that config: what is on file is not
run again. It trains no original and no oracle; oracles.py has them trained before. A sequence goes on from the longest
beginning of it whose theta was kept: the bits and the cost are those of the whole.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn

from memscore.pipeline.jobs import (
    OriginalJob,
    build_model,
    compute_job_key,
    format_original_name,
    load_on_device,
    read_recipe,
)
from memscore.seeds import generator, torch_seed
from memscore.store.json_records import hash_record
from memscore.store.store import Store
from memscore.store.visibility import open_visible_store
from memscore.training.evaluation import gap, logit_confidence
from memscore.training.numerics import float32_matmul, is_finite, limit_gpu_memory, single_threaded
from memscore.training.recipes import count_steps as steps_of
from unlearn.algorithms import get_algorithm
from unlearn.measures.inputs import EvaluationInputs, ModelInputs, Outputs
from unlearn.meta.rsu import rsu
from unlearn.meta.rum import rum
from unlearn.optimization.loop import TrainingDiverged, UnlearningLoop, UnlearningLoopConfig
from unlearn.oracles import TrialData
from unlearn.problem import ExampleSet, Problem, make_problem
from unlearn.trials.config import ORACLE, Row, TrialConfig, build_algorithm_config, describe_trial, model_key, trial_key
from unlearn.trials.measure import compute_measures, compute_outputs, select_measures, select_population_measures


def run_trial(trial: TrialConfig, bench: TrialData) -> Row:
    """Unlearn, measure, and put the row on file.

    Args:
        trial: what to do.
        bench: the data.

    Returns:
        The row; of a diverged run the measures are NaN and `status` says so. A row that is on file is read.
    """
    if kept := read_stored_row(trial):
        return kept
    store, device = open_visible_store(trial.store), torch.device(trial.device)
    name = trial_key(store, trial)
    limit_gpu_memory(device)
    with single_threaded(), float32_matmul(device):
        values, case, theta_u = run_and_measure(store, trial, bench, device)
    row = {"trial": name, **describe_trial(store, trial), **values}
    if (trial.keep or select_population_measures(trial.measures)) and row["status"] == "ok":
        logits, truth = torch.from_numpy(np.array(case.judged.logits)), torch.from_numpy(np.array(bench.labels))
        said = {"logit_confidence": logit_confidence(logits, truth).numpy(), "gap": gap(logits, truth).numpy()}
        store.write_predictions(name, said)  # first: a row on file says that the rest is
    if trial.keep:
        write_model(store, model_key(store, trial), theta_u, row)
    store.write_trial(name, {column: np.array([value]) for column, value in row.items()}, {"trial": name})
    return row


def read_stored_row(trial: TrialConfig) -> Row | None:
    """The row of a trial that was run; None if it was not, or if its weights are asked for and not there."""
    store = open_visible_store(trial.store)
    row = store.read_trial(trial_key(store, trial))
    if row is None or (trial.keep and store.read_cost(model_key(store, trial)) is None):
        return None
    return row | describe_trial(store, trial)  # equal rows of the training set may go by another name


def write_model(store: Store, name: str, theta: nn.Module, cost: Row) -> None:
    """Put a network on file, and then what it cost, which says that it is there."""
    store.write_weights(name, theta.state_dict())
    store.write_cost(name, cost["status"], cost["wall_s"], cost["examples"])


def add_costs(cost: Row, spent: Row) -> Row:
    """The cost of a sequence from that of its steps; seconds of this run are not in the beginning's."""
    return cost | {column: cost[column] + spent[column] for column in ("wall_s", "examples")}


def run_and_measure(
    store: Store, trial: TrialConfig, bench: TrialData, device: torch.device
) -> tuple[Row, EvaluationInputs, nn.Module]:
    """Cost and measures of one trial, the case that they were taken of, and the network."""
    manifest, recipe = store.manifest, read_recipe(store)
    jobs = [OriginalJob(store=store.url, index=trial.index, removed=removed) for removed in ((), trial.forget)]
    keys = [compute_job_key(store, job) for job in jobs]
    (theta_o, original), (theta_r, oracle) = (load_cached_model(store, key, device) for key in keys)
    data, labels = load_on_device(store, bench.images, bench.labels, theta_o, recipe, device)
    problem = make_problem(
        *(theta_o, data, labels, manifest.split_sizes, trial.forget, recipe, manifest.n_classes),
        validation_rows=bench.validation,
    )
    receipt = store.read_receipt(format_original_name(jobs[1], keys[1])) or {}
    retrained_s = float(receipt.get("train_s") or receipt.get("seconds") or "nan")
    share = len(problem.retain) / manifest.split_sizes[0]
    read_by_oracle = steps_of(recipe, share, manifest.split_sizes[0]) * recipe.batch
    if trial.algorithm == ORACLE:
        theta_u, judged = theta_r, oracle
        cost: Row = {"status": "ok", "wall_s": retrained_s, "run_wall_s": 0.0, "examples": read_by_oracle}
    else:
        done, begun, spent = load_latest_checkpoint(store, trial, theta_o, device)

        def after(number: int, theta: nn.Module, now: Row) -> None:
            if trial.keep_before:
                write_model(store, model_key(store, trial.until(number)), theta, add_costs(now, spent))

        theta_u, cost = apply_algorithms(trial, problem, manifest.architecture, begun, done, after)
        cost = add_costs(cost | {"run_wall_s": cost["wall_s"]}, spent)
        judged = compute_outputs(theta_u, recipe, data, len(labels)) if cost["status"] == "ok" else original
        if not (np.isfinite(judged.logits).all() and np.isfinite(judged.embeddings).all()):  # of weights that are
            theta_u, judged, cost = theta_o, original, cost | {"status": "diverged"}
    cost |= {"rrt_wall": cost["wall_s"] / retrained_s, "rrt_examples": cost["examples"] / read_by_oracle}
    case = EvaluationInputs(
        judged=judged,
        theta_r=oracle,
        theta_o=original,
        labels=bench.labels,
        labels_true=bench.labels_true,
        retain=problem.retain.rows.cpu().numpy(),
        forget=np.array(trial.judged or trial.forget, dtype=np.int64),
        held_out=bench.selection,
        seed=trial.index,
    )
    weights = ModelInputs(problem=problem, judged=theta_u, theta_r=theta_r, seed=trial.index)
    pair = "-".join([*keys, hash_record({"judged": trial.judged})[:16]])  # one oracle may be asked of several sets
    values = compute_measures(case, weights, bench, select_measures(trial.measures, core=trial.core), pair)
    return cost | (values if cost["status"] == "ok" else dict.fromkeys(values, float("nan"))), case, theta_u


LoadedModel = tuple[nn.Module, Outputs]
MODEL_CACHE_BYTES = 2**29
"""Of outputs kept between the trials of a worker; two models are, however large."""
_model_cache: OrderedDict[tuple[str, str], LoadedModel] = OrderedDict()


def load_cached_model(store: Store, key: str, device: torch.device) -> LoadedModel:
    """An original or an oracle with what it says of every example, read once for trials that need it again.

    Attempts go round the same few originals and oracles: with one pair kept, each trial of a search read both anew.

    Args:
        store: open.
        key: of the model.
        device: where the network goes; trials copy it, and change neither.

    Returns:
        Both.
    """
    place = (key, str(device))
    if place not in _model_cache:
        logits, embeddings = store.read_outputs(key)
        _model_cache[place] = load_network(store, key, device), Outputs(logits=logits, embeddings=embeddings)
        held = [views.logits.nbytes + views.embeddings.nbytes for _, views in _model_cache.values()]
        while len(_model_cache) > 2 and sum(held) > MODEL_CACHE_BYTES:
            _model_cache.popitem(last=False)
            held.pop(0)
    _model_cache.move_to_end(place)
    return _model_cache[place]


def load_network(store: Store, key: str, device: torch.device) -> nn.Module:
    """An original or oracle that is on file."""
    model = build_model(store, "loaded", 0, device)
    model.load_state_dict(store.read_weights(key))
    return model.eval()


def load_latest_checkpoint(
    store: Store, trial: TrialConfig, theta_o: nn.Module, device: torch.device
) -> tuple[int, nn.Module, Row]:
    """The longest beginning of a sequence that was kept.

    Args:
        store: open.
        trial: of the whole.
        theta_o: the original.
        device: where the network goes.

    Returns:
        How many steps it has, the network after them, and what they cost; theta_o after none.
    """
    for number in range(len(trial.before), 0, -1):
        name = model_key(store, trial.until(number))
        spent = store.read_cost(name)
        if spent is not None and spent["status"] == "ok":
            return number, load_network(store, name, device), spent
    return 0, theta_o, {"wall_s": 0.0, "examples": 0}


def apply_algorithms(
    trial: TrialConfig,
    problem: Problem,
    architecture: str,
    begun: nn.Module | None = None,
    done: int = 0,
    after: Callable[[int, nn.Module, Row], None] = lambda number, theta, cost: None,
) -> tuple[nn.Module, Row]:
    """theta_u, and what it cost; theta_o in its place where the run diverged.

    Args:
        trial: says which algorithms, with what, on which parts.
        problem: what they may see.
        architecture: of theta_o.
        begun: the network after the first steps of the sequence; theta_o if None.
        done: how many those are.
        after: told of each step but the last, counted from 1: the network, and what it has cost so far.

    Returns:
        The network; status, seconds of the algorithms alone, without those of `after`, and examples read, of the steps
        that were taken here.
    """
    device, steps, paused = problem.forget.rows.device, trial.steps, 0.0

    def finished() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    def step(theta: nn.Module, retain: ExampleSet, forget: ExampleSet, number: int) -> nn.Module:
        """One step of the sequence."""
        nonlocal paused
        if number + 1 < len(steps):
            theta = once(theta, retain, forget, number)
            spent, stopped = cost("ok"), finished()
            after(number + 1, theta, spent)
            paused += finished() - stopped
            return theta
        if trial.rounds is None:
            return once(theta, retain, forget, number)

        def again(theta: nn.Module, retain: ExampleSet, forget: ExampleSet, turn: int) -> nn.Module:
            return once(theta, retain, forget, number + turn)

        return rsu(theta, retain, forget, again, trial.rounds)

    def once(theta: nn.Module, retain: ExampleSet, forget: ExampleSet, number: int) -> nn.Module:
        """One run of one algorithm, with a chance of its own; the first of a sequence has that of the algorithm."""
        planned = steps[min(number, len(steps) - 1)]
        entry = get_algorithm(planned.algorithm)
        config = build_algorithm_config(entry, dict(planned.params), architecture)
        if trial.rounds and trial.rounds.epochs == "split" and hasattr(config, "epochs") and number + 1 >= len(steps):
            config = replace(config, epochs=-(-config.epochs // trial.rounds.n))
        more: dict[str, Any] = {"validation": problem.validation} if entry.reads_validation else {}
        family = planned.algorithm + (f"-after-{number}" if number else "")
        where = (family, trial.index * 1_000_003 + trial.seed)
        torch.random.manual_seed(torch_seed(0, "unlearn", *where))
        found: nn.Module = entry.fn(theta, retain, forget, config, generator(0, "unlearn", *where), **more)
        if not is_finite(found):
            raise TrainingDiverged(0, float("nan"))
        return found

    def cost(status: str) -> Row:
        return {
            "status": status,
            "wall_s": finished() - began - paused,
            "examples": problem.forget.read_counter.examples,
        }

    warm_up_optimizers()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        began = finished()
        try:
            parts = [planned.rows for planned in steps]
            theta_u = rum(begun or problem.theta_o, problem.train, parts, step, done)
            return theta_u, cost("ok")
        except TrainingDiverged:
            return problem.theta_o, cost("diverged")


@cache
def warm_up_optimizers() -> None:
    """One step of each optimizer on one number: torch imports what they need at the first, which takes seconds."""
    for name in ("sgd", "adam"):
        number = nn.Linear(1, 1)
        config = UnlearningLoopConfig(optimizer=name)  # type: ignore[arg-type]
        UnlearningLoop(number, config).run(iter([number(torch.ones(1, 1)).sum()]))
