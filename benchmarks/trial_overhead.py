"""Claim: a trial costs little beyond its loss in a bare loop, and an oracle that is on file costs next to nothing.

    python -m benchmarks.trial_overhead [--rounds 9] [--quick]

Fashion-MNIST, 4,000 images, small CNN, one thread: fine-tuning for 5 epochs on all but 200 examples, by the algorithm
(batches that are counted and shuffled, the shared loop, its checks) and by a bare loop of the same losses and steps, in
turns; then NegGrad+ and its bare loop. The measures of a row, and an oracle found against an oracle trained, are told
in the same seconds. Ratios are pair by pair; --quick means nothing.
"""

import copy
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import tyro
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.results_file import save, spread
from cluster.pool import SerialPool
from memscore.data.splits import build_examples_table
from memscore.pipeline.config import BankConfig
from memscore.pipeline.jobs import OriginalJob, compute_job_key, load_on_device, read_recipe
from memscore.pipeline.runner import prepare_bank
from memscore.training.loop import keep_gradient_layout
from memscore.training.numerics import float32_matmul
from unlearn.algorithms import get_algorithm
from unlearn.oracles import TrialData, build_reference_jobs, build_trial_data, train_reference_models
from unlearn.problem import Problem, make_problem
from unlearn.trials.config import TrialConfig
from unlearn.trials.runner import load_network, run_trial

EPOCHS, BATCH, LR, BETA = 5, 64, 0.01, 0.95
FORGET = tuple(range(0, 4000, 20))


def main(rounds: int = 9, quick: bool = False) -> None:
    """Measure.

    Args:
        rounds: pairs of each algorithm.
        quick: one pair of few images.
    """
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, float32_matmul(torch.device("cpu")):
        data, limit = ("digits", 400) if quick else ("fashion-mnist", 4000)
        plan = BankConfig(
            data=data, train_limit=limit, arch="cnn", epochs=2 if quick else 5, models=64, store=f"{folder}/s"
        )
        bank = prepare_bank(plan)
        bank.store.create_files(build_examples_table(bank.splits))
        bench, forget = build_trial_data(bank.splits, 0), tuple(row for row in FORGET if row < limit)
        jobs = build_reference_jobs(bank.store, [forget], [0], "cpu")
        began = time.perf_counter()
        train_reference_models(bank.store, jobs, bench, SerialPool())
        missed_s = (time.perf_counter() - began) / len(jobs)
        began = time.perf_counter()
        train_reference_models(bank.store, jobs, bench, SerialPool())
        hit_s = (time.perf_counter() - began) / len(jobs)
        problem = posed(bank, bench, forget)
        found = {name: pairs(name, problem, 1 if quick else rounds) for name in ("finetune", "neggrad-plus")}
        config = TrialConfig(store=bank.store.url, algorithm="original", forget_set="every 20th", forget=forget)
        run_trial(TrialConfig(store=bank.store.url, algorithm="oracle", forget_set="", forget=forget), bench)
        began = time.perf_counter()
        run_trial(config, bench)
        measures_s = time.perf_counter() - began
    measured = {
        "what": f"{data}, {limit} images, cnn, {EPOCHS} epochs of batch {BATCH}",
        **found,
        "oracle_trained_s": missed_s,
        "oracle_found_s": hit_s,
        "measures_of_a_row_s": measures_s,
    }
    print(measured) if quick else save("trial_overhead", measured)


def posed(bank: Any, bench: TrialData, forget: tuple[int, ...]) -> Problem:
    """The problem as a trial has it."""
    store, device = bank.store, torch.device("cpu")
    theta_o = load_network(store, compute_job_key(store, OriginalJob(store=store.url, index=0)), device)
    images, labels = load_on_device(store, bench.images, bench.labels, theta_o, read_recipe(store), device)
    sizes, recipe = store.manifest.split_sizes, read_recipe(store)
    return make_problem(theta_o, images, labels, sizes, forget, recipe, store.manifest.n_classes)


def pairs(name: str, problem: Problem, rounds: int) -> dict[str, Any]:
    """Seconds of both, in turns, and their ratios; a first pair is not counted."""
    entry, bare = get_algorithm(name), {"finetune": bare_finetune, "neggrad-plus": bare_neggrad_plus}[name]
    config = entry.config(epochs=EPOCHS, batch=BATCH, lr=LR)

    def ours() -> nn.Module:
        return entry.fn(problem.theta_o, problem.retain, problem.forget, config, np.random.default_rng(0))

    taken: list[dict[str, float]] = []
    for number in range(rounds + 1):
        both: dict[str, Callable[[], nn.Module]] = {"ours": ours, "bare": lambda: bare(problem)}
        seconds = {}
        for which in list(both) if number % 2 else list(both)[::-1]:
            began = time.process_time()
            both[which]()
            seconds[which] = time.process_time() - began
        taken.append(seconds)
    kept = taken[1:]
    return {
        "ours_s": spread([s["ours"] for s in kept]),
        "bare_s": spread([s["bare"] for s in kept]),
        "ratio": spread([s["ours"] / s["bare"] for s in kept]),
    }


def started(problem: Problem) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A copy of theta_o in the fastest layout, and plain SGD."""
    theta = copy.deepcopy(problem.theta_o).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    return theta, torch.optim.SGD(theta.parameters(), lr=LR, momentum=0.9, weight_decay=5e-4, fused=True)


def bare_finetune(problem: Problem) -> nn.Module:
    """What a script would do."""
    theta, sgd = started(problem)
    images, rows, labels = problem.retain.images, problem.retain.rows, problem.retain.labels
    with keep_gradient_layout(theta):
        for _ in range(EPOCHS):
            for part in torch.randperm(len(rows)).split(BATCH):
                step(sgd, cross_entropy(theta(images.take(rows[part])), labels[part]))
    return theta


def bare_neggrad_plus(problem: Problem) -> nn.Module:
    """The same, with the forget set going round."""
    theta, sgd = started(problem)
    kept, gone = problem.retain, problem.forget
    with keep_gradient_layout(theta):
        left: list[Tensor] = []
        for _ in range(EPOCHS):
            for part in torch.randperm(len(kept)).split(BATCH):
                left = left or list(torch.randperm(len(gone)).split(BATCH))
                also = left.pop()
                down = cross_entropy(theta(kept.images.take(kept.rows[part])), kept.labels[part])
                up = cross_entropy(theta(gone.images.take(gone.rows[also])), gone.labels[also])
                step(sgd, BETA * down - (1 - BETA) * up)
    return theta


def step(sgd: torch.optim.Optimizer, loss: Tensor) -> None:
    """One."""
    sgd.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    sgd.step()


if __name__ == "__main__":
    tyro.cli(main)
