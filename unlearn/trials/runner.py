"""Run one trial in a worker: one algorithm on one forget set of one original, measured and stored.

A trial is a function of its config alone, and its row is stored under the hash of that config: a stored row is not
computed again. A trial trains no original and no oracle; unlearn/oracles.py has them trained before. A sequence resumes
from its longest stored prefix, with the bits and the cost of the whole sequence.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn

from memscore.models.compiled_convolutions import compile_convolutions
from memscore.models.random_state import seed_generators
from memscore.pipeline.jobs import (
    OriginalJob,
    build_model,
    compute_job_key,
    format_original_name,
    load_on_device,
    read_recipe,
)
from memscore.pipeline.start_weights import load_weights
from memscore.seeds import generator, torch_seed
from memscore.store.json_records import hash_record
from memscore.store.store import Store
from memscore.store.trial_files import (
    has_predictions,
    read_cost,
    read_trial,
    write_cost,
    write_predictions,
    write_trial,
)
from memscore.store.visibility import open_visible_store
from memscore.training.evaluation import gap, logit_confidence
from memscore.training.numerics import float32_matmul, is_finite, open_device, single_threaded
from memscore.training.recipes import count_steps
from memscore.user_functions import is_user_function
from unlearn.algorithms import get_algorithm
from unlearn.measures.inputs import EvaluationInputs, ModelInputs, Outputs
from unlearn.meta.rsu import rsu
from unlearn.meta.rum import rum
from unlearn.optimization.curvature import import_derivatives
from unlearn.optimization.loop import TrainingDiverged, UnlearningLoop, UnlearningLoopConfig
from unlearn.optimization.step_count import read_step_count
from unlearn.oracles import TrialData
from unlearn.problem import ExampleSet, Problem, make_problem
from unlearn.trials.config import (
    ORACLE,
    Row,
    TrialConfig,
    describe_trial,
    model_key,
    require_same_sources,
    resolve_configs,
    trial_key,
)
from unlearn.trials.measure import compute_measures, compute_outputs, select_measures, select_population_measures


def run_trial(trial: TrialConfig, trial_data: TrialData) -> Row:
    """Unlearn, measure, and store the row; a stored row is read.

    For a diverged run the measures are NaN and `status` is "diverged".
    """
    store, device = open_visible_store(trial.store), open_device(trial.device)
    if stored_row := read_stored_row(store, trial):
        return stored_row
    require_same_sources(trial)
    key = trial_key(store, trial)
    with single_threaded(), float32_matmul(device, store.manifest.precision):
        values, inputs, theta_u = run_and_measure(store, trial, trial_data, device)
    row = {"trial": key, **describe_trial(store, trial), **values}
    if needs_predictions(trial) and row["status"] == "ok":
        logits, labels = torch.from_numpy(np.array(inputs.judged.logits)), torch.from_numpy(np.array(trial_data.labels))
        # Predictions and model come before the row: a stored row implies that the rest is stored.
        predictions = {"logit_confidence": logit_confidence(logits, labels).numpy(), "gap": gap(logits, labels).numpy()}
        write_predictions(store, key, predictions)
    if trial.save_model:
        write_model(store, model_key(store, trial), theta_u, row)
    write_trial(store, key, {column: np.array([value]) for column, value in row.items()}, {"trial": key})
    return row


def read_stored_row(store: Store, trial: TrialConfig) -> Row | None:
    """Read the row of a trial; None if there is none, or if its model or predictions are requested and not stored."""
    key = trial_key(store, trial)
    row = read_trial(store, key)
    if row is None or (trial.save_model and read_cost(store, model_key(store, trial)) is None):
        return None
    # a row of an earlier version: its model is trained once more, with the bits that it had
    if trial.save_predictions and row["status"] == "ok" and not has_predictions(store, key):
        return None
    # An equal forget set may be stored under another name: the row gets that of this trial.
    return row | describe_trial(store, trial)


def needs_predictions(trial: TrialConfig) -> bool:
    """Return whether the predictions of a trial's model are stored: on request, with the model, or to compare many."""
    return trial.save_predictions or trial.save_model or bool(select_population_measures(trial.measures))


def write_model(store: Store, key: str, theta: nn.Module, cost: Row) -> None:
    """Store a network, and then its cost, which marks it as complete."""
    store.write_weights(key, theta.state_dict())
    write_cost(store, key, cost["status"], cost["wall_s"], cost["examples"], cost["steps"])


def add_costs(cost: Row, earlier: Row) -> Row:
    """Add the cost of the earlier steps of a sequence; run_wall_s stays that of this run."""
    return cost | {column: cost[column] + earlier[column] for column in ("wall_s", "examples", "steps")}


def run_and_measure(
    store: Store, trial: TrialConfig, trial_data: TrialData, device: torch.device
) -> tuple[Row, EvaluationInputs, nn.Module]:
    """Compute the cost and the measures of one trial, the inputs of its measures, and its network."""
    manifest, recipe = store.manifest, read_recipe(store)
    # theta_o and theta_r are stored models: one trained on everything, one without the forget set.
    jobs = [OriginalJob(store=store.url, index=trial.index, removed=removed) for removed in ((), trial.forget)]
    keys = [compute_job_key(store, job) for job in jobs]
    (theta_o, original), (theta_r, oracle) = (load_cached_model(store, key, device) for key in keys)
    images, labels = load_on_device(store, trial_data.images, trial_data.labels, theta_o, recipe, device)
    problem = make_problem(
        *(theta_o, images, labels, manifest.split_sizes, trial.forget, recipe, manifest.n_classes),
        validation_rows=trial_data.validation,
    )
    # What retraining cost: its seconds, and the examples that its steps read.
    receipt = store.read_receipt(format_original_name(jobs[1], keys[1])) or {}
    retrained_s = float(receipt.get("train_s") or receipt.get("seconds") or "nan")
    share = len(problem.retain) / manifest.split_sizes[0]
    oracle_steps = count_steps(recipe, share, manifest.split_sizes[0])
    read_by_oracle = oracle_steps * recipe.batch
    if trial.algorithm == ORACLE:
        theta_u, judged = theta_r, oracle
        cost: Row = {
            "status": "ok",
            "wall_s": retrained_s,
            "run_wall_s": 0.0,
            "examples": read_by_oracle,
            "steps": oracle_steps,
        }
    else:
        # The steps that a stored prefix has taken are not taken again, but their cost counts.
        completed_steps, checkpoint, checkpoint_cost = load_latest_checkpoint(store, trial, theta_o, device)

        def save_checkpoint(number: int, theta: nn.Module, steps_cost: Row) -> None:
            if trial.save_checkpoints:
                write_model(
                    store, model_key(store, trial.truncate(number)), theta, add_costs(steps_cost, checkpoint_cost)
                )

        theta_u, cost = apply_algorithms(
            trial, problem, manifest.architecture, checkpoint, completed_steps, save_checkpoint
        )
        # wall_s is that of the whole sequence, run_wall_s that of the steps taken here.
        cost = add_costs(cost | {"run_wall_s": cost["wall_s"]}, checkpoint_cost)
        judged = compute_outputs(theta_u, recipe, images, len(labels)) if cost["status"] == "ok" else original
        if not (np.isfinite(judged.logits).all() and np.isfinite(judged.embeddings).all()):
            # Finite weights may still give infinite logits. theta_o stands in, so that measures have their columns.
            theta_u, judged, cost = theta_o, original, cost | {"status": "diverged"}
    cost |= {"rrt_wall": cost["wall_s"] / retrained_s, "rrt_examples": cost["examples"] / read_by_oracle}
    inputs = EvaluationInputs(
        judged=judged,
        theta_r=oracle,
        theta_o=original,
        labels=trial_data.labels,
        labels_true=trial_data.labels_true,
        retain=problem.retain.rows.cpu().numpy(),
        forget=np.array(trial.judged or trial.forget, dtype=np.int64),
        held_out=trial_data.selection,
        seed=trial.index,
    )
    model_inputs = ModelInputs(problem=problem, judged=theta_u, theta_r=theta_r, seed=trial.index)
    # The judged rows are in the key, because one oracle may be measured on several sets.
    cache_key = "-".join([*keys, hash_record({"judged": trial.judged})[:16]])
    # Measures of a diverged run are computed on theta_o for their columns alone; all become NaN below.
    values = compute_measures(
        inputs, model_inputs, trial_data, select_measures(trial.measures, core=trial.core), cache_key
    )
    return cost | (values if cost["status"] == "ok" else dict.fromkeys(values, float("nan"))), inputs, theta_u


LoadedModel = tuple[nn.Module, Outputs]
MODEL_CACHE_BYTES = 2**29
"""Size of the outputs cached between the trials of a worker; two models are always cached, however large."""
_model_cache: OrderedDict[tuple[str, str], LoadedModel] = OrderedDict()


def load_cached_model(store: Store, key: str, device: torch.device) -> LoadedModel:
    """Load an original or an oracle with its outputs for every example, cached between trials.

    The trials of a search use the same few originals and oracles in turn: with one pair cached, each trial would read
    both again. Trials copy the network and change neither.
    """
    cache_key = (key, str(device))
    if cache_key not in _model_cache:
        logits, embeddings = store.read_outputs(key)
        _model_cache[cache_key] = load_network(store, key, device), Outputs(logits=logits, embeddings=embeddings)
        # The least recently used models go first; two always stay, since every trial needs a pair.
        sizes = [outputs.logits.nbytes + outputs.embeddings.nbytes for _, outputs in _model_cache.values()]
        while len(_model_cache) > 2 and sum(sizes) > MODEL_CACHE_BYTES:
            _model_cache.popitem(last=False)
            sizes.pop(0)
    _model_cache.move_to_end(cache_key)
    return _model_cache[cache_key]


def load_network(store: Store, key: str, device: torch.device) -> nn.Module:
    """Load the network of a stored original, oracle or checkpoint."""
    model = build_model(store, "loaded", 0, device)
    load_weights(model, store.read_weights(key), f"the stored model {key[:12]}")
    return model.eval()


def load_latest_checkpoint(
    store: Store, trial: TrialConfig, theta_o: nn.Module, device: torch.device
) -> tuple[int, nn.Module, Row]:
    """Load the model after the longest stored prefix of a sequence, with the number of its steps and their cost.

    0 steps and theta_o if nothing is stored.
    """
    # The longest prefix first. Of a diverged run theta_o is stored, which is no start.
    for number in range(len(trial.before), 0, -1):
        key = model_key(store, trial.truncate(number))
        cost = read_cost(store, key)
        if cost is not None and cost["status"] == "ok":
            return number, load_network(store, key, device), cost
    return 0, theta_o, {"wall_s": 0.0, "examples": 0, "steps": 0}


def apply_algorithms(
    trial: TrialConfig,
    problem: Problem,
    architecture: str,
    start: nn.Module | None = None,
    completed_steps: int = 0,
    on_step_end: Callable[[int, nn.Module, Row], None] = lambda number, theta, cost: None,
) -> tuple[nn.Module, Row]:
    """Compute theta_u and its cost; theta_o in its place if the run diverged.

    `start` is the network after the first `completed_steps` of the sequence; the cost is that of the steps taken here:
    status, seconds of the algorithms alone, examples read and optimizer steps. `on_step_end` is called after each step
    but the last with its number from 1, the network, and the cost so far; its own seconds are not counted.
    """
    device, steps, paused = problem.forget.rows.device, trial.steps, 0.0
    configs = resolve_configs(trial, architecture, len(problem.train), problem.retain.recipe, split=True)

    def read_clock() -> float:
        if device.type == "cuda":
            # GPU kernels run asynchronously: without this the clock would measure their launch.
            torch.cuda.synchronize(device)
        return time.perf_counter()

    def run_step(theta: nn.Module, retain: ExampleSet, forget: ExampleSet, number: int) -> nn.Module:
        nonlocal paused
        if number + 1 < len(steps):
            # An earlier step. Storing its model takes time that is not the algorithm's.
            theta = apply_one(theta, retain, forget, number)
            cost_so_far, pause_started = cost("ok"), read_clock()
            on_step_end(number + 1, theta, cost_so_far)
            paused += read_clock() - pause_started
            return theta
        if trial.rounds is None:
            return apply_one(theta, retain, forget, number)

        # Only the last step of a sequence has rounds. Each round has a random stream of its own.
        def apply_in_round(theta: nn.Module, retain: ExampleSet, forget: ExampleSet, round_number: int) -> nn.Module:
            return apply_one(theta, retain, forget, number + round_number)

        return rsu(theta, retain, forget, apply_in_round, trial.rounds)

    def apply_one(theta: nn.Module, retain: ExampleSet, forget: ExampleSet, number: int) -> nn.Module:
        # Numbers beyond the last step are rounds of it.
        step, config = (values[min(number, len(steps) - 1)] for values in (steps, configs))
        entry = get_algorithm(step.algorithm)
        extra: dict[str, Any] = {"validation": problem.validation} if entry.reads_validation else {}
        # Step 0 has the stream of the algorithm alone, so a first step has the bits of the trial without a sequence.
        family = step.algorithm + (f"-after-{number}" if number else "")
        stream = (family, trial.index * 1_000_003 + trial.seed)
        # Dropout and the like draw from the global generators, which are seeded too.
        with seed_generators(torch_seed(0, "unlearn", *stream), device):
            unlearned: nn.Module = entry.fn(theta, retain, forget, config, generator(0, "unlearn", *stream), **extra)
        if not is_finite(unlearned):
            raise TrainingDiverged(0, float("nan"))
        return unlearned

    def cost(status: str) -> Row:
        return {
            "status": status,
            "wall_s": read_clock() - started - paused,
            "examples": problem.forget.read_counter.examples,
            "steps": read_step_count() - steps_before,
        }

    # Before the clock starts.
    warm_up(frozenset(step.algorithm for step in steps))
    compile_convolutions(problem.theta_o, problem.train.images.shape)
    started, steps_before = read_clock(), read_step_count()
    try:
        parts = [step.rows for step in steps]
        theta_u = rum(start or problem.theta_o, problem.train, parts, run_step, completed_steps)
        return theta_u, cost("ok")
    except TrainingDiverged:
        return problem.theta_o, cost("diverged")


@cache
def warm_up(algorithms: frozenset[str]) -> None:
    """Run once what the first run of a process would spend on imports and threads."""
    for name in ("sgd", "adam"):
        number = nn.Linear(1, 1)
        config = UnlearningLoopConfig(optimizer=name)  # type: ignore[arg-type]
        UnlearningLoop(number, config).run(iter([number(torch.ones(1, 1)).sum()]))
    # Influence takes derivatives by torch.func. The first optimizer of torch.optim, which a user's own algorithm may
    # build, imports the compiler too.
    if "influence" in algorithms or any(is_user_function(name) for name in algorithms):
        import_derivatives()
