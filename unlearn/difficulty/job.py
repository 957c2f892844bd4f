"""Jobs that unlearn single examples of one original, and measure each; and one that measures before any unlearning.

A job takes many examples, since starting one takes longer than unlearning one. Its file is written once, so a run that
was killed goes on with the jobs whose files are missing.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from memscore.models.architectures import embed
from memscore.models.compiled_convolutions import compile_convolutions
from memscore.pipeline.jobs import load_on_device, read_recipe
from memscore.seeds import generator
from memscore.store.json_records import hash_record
from memscore.store.parquet import encode, to_table
from memscore.store.store import Store
from memscore.store.visibility import open_visible_store
from memscore.training.evaluation import choose_evaluation_batch, gap
from memscore.training.numerics import float32_matmul, open_device, single_threaded
from unlearn.difficulty.deepfool import deepfool
from unlearn.difficulty.density import compute_log_density
from unlearn.difficulty.forget_shift import compute_forget_shift
from unlearn.difficulty.fp_score import compute_kept
from unlearn.difficulty.last_layer import compute_boundary_distance, compute_printed_boundary_distance
from unlearn.difficulty.membership import attack_example
from unlearn.difficulty.parameter_shift import compute_layer_shifts, compute_parameter_shifts
from unlearn.difficulty.performance_shift import PARTS, Answers, compute_performance_shift
from unlearn.difficulty.single_unlearning import SingleRun, unlearn_single
from unlearn.oracles import TrialData
from unlearn.problem import ExampleSet, iterate_in_order, make_problem
from unlearn.trials.runner import load_network

BEFORE = "before"
"""In place of an algorithm: what is measured before unlearning."""
ALL = "_all"
"""Ending of columns over all test and remaining examples, where the plain ones are over samples."""


@dataclass(frozen=True, kw_only=True)
class DifficultyJob:
    """Some examples of one original, each to be unlearned alone.

    Attributes:
        store: path or URL of the bank.
        index: of the original.
        key: of its files.
        algorithm: a key of METHODS, or BEFORE.
        rows: the examples, training rows.
        lr: learning rate; 0 for BEFORE.
        n_test: test examples that are read after each, stratified; all of them if there are no more.
        n_remaining: remaining training examples likewise.
        everywhere: whether all examples are read too.
        device: where it runs; no part of the key.
    """

    store: str
    index: int
    key: str
    algorithm: str
    rows: tuple[int, ...]
    lr: float = 0.0
    n_test: int = 2000
    n_remaining: int = 1000
    everywhere: bool = False
    device: str = "cpu"

    @property
    def name(self) -> str:
        """Hash of all that decides its file."""
        return hash_record({name: value for name, value in asdict(self).items() if name not in {"store", "device"}})

    @property
    def path(self) -> str:
        """Of its file within the store."""
        return f"difficulty/{self.name}.parquet"

    def split(self) -> list["DifficultyJob"]:
        """Split it into jobs of one example, for a pool that lost a worker three times."""
        return [replace(self, rows=(row,)) for row in self.rows] if len(self.rows) > 1 else [self]


@dataclass(frozen=True, kw_only=True, eq=False)
class Answered:
    """What theta_o answers on the samples, before any unlearning.

    Attributes:
        samples: by part, test or remaining, and with ALL, the examples.
        answers: of theta_o on each.
    """

    samples: dict[str, ExampleSet]
    answers: dict[str, Answers]


def is_job_stored(store: Store, job: DifficultyJob) -> bool:
    """Return whether the file of a job is stored, or those of all its parts."""
    if store.folder.exists(job.path):
        return True
    # a pool that lost a worker three times runs the examples of its job one by one
    return len(job.rows) > 1 and all(store.folder.exists(part.path) for part in job.split())


def read_job(store: Store, job: DifficultyJob) -> list[dict[str, Any]]:
    """Read the rows of a job, or of those of its parts that are stored; NaN where undefined."""
    whole = store.folder.exists(job.path)
    parts = [job] if whole else [part for part in job.split() if store.folder.exists(part.path)]
    rows = [row for part in parts for row in store.read_table(part.path).to_pylist()]
    return [
        {name: np.nan if value is None else value for name, value in row.items()}
        | {"original": job.index, "algorithm": job.algorithm}
        for row in rows
    ]


def run_difficulty_job(job: DifficultyJob, shared: TrialData) -> str:
    """Unlearn and measure the examples of a job, and store them; return its name."""
    store, device = open_visible_store(job.store), open_device(job.device)
    if is_job_stored(store, job):
        return job.name
    recipe, manifest = read_recipe(store), store.manifest
    with single_threaded(), float32_matmul(device, manifest.precision):
        theta_o = load_network(store, job.key, device)
        images, labels = load_on_device(store, shared.images, shared.labels, theta_o, recipe, device)
        # the forget set of this problem is of no meaning: only its parts of the data are read
        problem = make_problem(theta_o, images, labels, manifest.split_sizes, job.rows[:1], recipe, manifest.n_classes)
        compile_convolutions(theta_o, images.shape)
        measure = measure_before if job.algorithm == BEFORE else measure_unlearned
        columns = measure(job, theta_o, problem.train, problem.test, manifest.seed)
    metadata = {"job": job.name, "layers": "\n".join(name for name, _ in theta_o.named_parameters())}
    store.folder.publish(job.path, encode(to_table(columns, metadata)))
    return job.name


def draw_samples(job: DifficultyJob, train: ExampleSet, test: ExampleSet, seed: int) -> dict[str, ExampleSet]:
    """Draw the test and remaining examples that all jobs of an original read; stratified by label."""
    samples = {}
    for part, examples, n in (("test", test, job.n_test), ("remaining", train, job.n_remaining)):
        rng = generator(seed, "difficulty-sample", part, job.index)
        samples[part] = examples.select(torch.from_numpy(draw_stratified(examples.labels.cpu().numpy(), n, rng)))
        if job.everywhere:
            samples[part + ALL] = examples
    return samples


def draw_stratified(labels: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw n positions, of each label in its share; all where there are no more. Rising, int64."""
    if n >= len(labels):
        return np.arange(len(labels))
    # Sorted by label with a random order within: every len/n-th of them has each label in its share.
    order = np.lexsort((rng.random(len(labels)), labels))
    picked = (np.arange(n) + rng.random()) * len(labels) / n
    return np.sort(order[picked.astype(np.int64)])


@torch.no_grad()
def answer(model: nn.Module, examples: ExampleSet) -> Answers:
    """Compute what a network in evaluation mode answers on a set of examples."""
    parts = []
    for images, labels in iterate_in_order(examples, choose_evaluation_batch(model, examples.rows.device)):
        logits = model(images)
        own = log_softmax(logits.double(), dim=1).gather(1, labels[:, None])[:, 0]
        # a tie is wrong, as in the bank
        parts.append(torch.stack([own, gap(logits, labels) > 0]).cpu())
    log_p, correct = torch.cat(parts, dim=1).numpy()
    return Answers(log_p=log_p, correct=correct.astype(bool))


def measure_unlearned(
    job: DifficultyJob, theta_o: nn.Module, train: ExampleSet, test: ExampleSet, seed: int
) -> dict[str, Any]:
    """Unlearn each example of a job and measure the network after it; columns [n]."""
    samples = draw_samples(job, train, test, seed)
    before = Answered(samples=samples, answers={name: answer(theta_o, part) for name, part in samples.items()})
    rows = []
    for row in job.rows:
        # positions of the training set are its rows
        position = torch.tensor([row], device=train.rows.device)
        others = torch.arange(len(train), device=train.rows.device)
        instance, retain = train.select(position), train.select(others[others != row])
        name = f"{job.algorithm}-{job.index}"
        run = unlearn_single(theta_o, retain, instance, job.algorithm, job.lr, seed, name, row)
        measured = measure_run(run, theta_o, instance, before, row)
        # theta_u is measured and dropped: keeping the networks of all examples would take gigabytes
        rows.append({"row": row, "steps": run.steps, "flipped": run.flipped, "seconds": run.seconds} | measured)
    return {name: np.array([row[name] for row in rows]) for name in rows[0] if name != "layer_shifts"} | {
        "layer_shifts": np.array([row["layer_shifts"] for row in rows])
    }


def measure_run(run: SingleRun, theta_o: nn.Module, instance: ExampleSet, before: Answered, row: int) -> dict[str, Any]:
    """Measure one unlearned network: NaN in every column where the run diverged."""
    # a diverged run has the columns of theta_o itself, all set to NaN below
    theta_u = run.theta_u if run.theta_u is not None else theta_o
    own_before, own = (answer(model, instance) for model in (theta_o, theta_u))
    measured: dict[str, Any] = compute_forget_shift(
        float(own_before.p[0]), float(own.p[0]), float(own_before.log_p[0]), float(own.log_p[0])
    )
    measured |= {"p_before": float(own_before.p[0]), "p_after": float(own.p[0])}
    for ending in ("", ALL):
        if "test" + ending in before.samples:
            measured |= {
                name + ending: value
                for name, value in measure_elsewhere(theta_u, before, ending, row, measured["p_after"]).items()
            }
    measured |= compute_parameter_shifts(theta_o, theta_u)
    image = instance.take(torch.zeros(1, dtype=torch.int64, device=instance.rows.device))
    with torch.no_grad():
        measured["activation_shift"] = measure_activations(theta_o, theta_u, image)
    # Written even where nothing else is defined: a diverged run is a row, and counts as not unlearned.
    measured["diverged"] = run.theta_u is None
    if run.theta_u is None:
        kept = {"p_before", "diverged"}
        measured = {name: value if name in kept else np.nan for name, value in measured.items()}
    layers = compute_layer_shifts(theta_o, theta_u)
    return measured | {"layer_shifts": [np.nan if run.theta_u is None else value for value in layers.values()]}


def measure_elsewhere(theta_u: nn.Module, before: Answered, ending: str, row: int, p_after: float) -> dict[str, float]:
    """Measure what unlearning one example changed on others, and whether an attack finds it."""
    measured: dict[str, float] = {}
    after, earlier = {}, {}
    for part in PARTS:
        sample = before.samples[part + ending]
        # the example itself is not among the remaining ones
        others = np.flatnonzero(sample.rows.cpu().numpy() != row)
        after[part], earlier[part] = (
            Answers(log_p=found.log_p[others], correct=found.correct[others])
            for found in (answer(theta_u, sample), before.answers[part + ending])
        )
        measured |= compute_performance_shift(earlier[part], after[part], part)
    measured["kept"] = compute_kept(earlier["test"].p, after["test"].p)
    measured |= {"test_p_before": float(earlier["test"].p.mean()), "test_p_after": float(after["test"].p.mean())}
    measured["mia"] = attack_example(p_after, after["remaining"].p, after["test"].p)
    return measured


def measure_activations(theta_o: nn.Module, theta_u: nn.Module, image: Tensor) -> float:
    """Measure how far apart the embeddings of one image are; NaN for a network without a last linear layer."""
    try:
        return float((embed(theta_u, image) - embed(theta_o, image)).norm())
    except ValueError:
        return float("nan")


def measure_before(
    job: DifficultyJob, theta_o: nn.Module, train: ExampleSet, test: ExampleSet, seed: int
) -> dict[str, Any]:
    """Measure what needs no unlearning: distances to the decision boundary, and density; columns [n]."""
    positions = torch.tensor(job.rows, device=train.rows.device)
    instances = train.select(positions)
    scale = train.images.white - train.images.black
    distance = torch.cat([
        deepfool(theta_o, instances.take(batch), scale)
        for batch in torch.split(torch.arange(len(instances), device=positions.device), 64)
    ])
    # The label counts here, not the answer: both agree, since wrongly answered examples are left out.
    own = answer(theta_o, instances)
    columns: dict[str, Any] = {
        "row": np.array(job.rows),
        "p_before": own.p,
        "correct": own.correct,
        "deepfool": distance.cpu().numpy(),
    }
    head = find_head(theta_o, instances.take(torch.zeros(1, dtype=torch.int64, device=positions.device)))
    undefined = np.full(len(job.rows), np.nan)
    if head is None:
        # a factor that a network does not have is undefined, and no other stands for it
        return columns | dict.fromkeys(("boundary_distance", "boundary_distance_printed", "density"), undefined)
    remaining = draw_samples(job, train, test, seed)
    samples = {"": remaining["remaining"]} | ({ALL: train} if job.everywhere else {})
    with torch.no_grad():
        phi = embed_all(theta_o, instances)
        weight, bias = (tensor.detach().cpu().numpy() for tensor in head)
        columns["boundary_distance"] = compute_boundary_distance(phi, weight, bias)
        columns["boundary_distance_printed"] = compute_printed_boundary_distance(phi, weight, bias)
        for ending, sample in samples.items():
            place = {int(other): number for number, other in enumerate(sample.rows.cpu().numpy())}
            own_places = np.array([place.get(row, -1) for row in job.rows])
            columns["density" + ending] = compute_log_density(phi, embed_all(theta_o, sample), own_places)
    return columns


def embed_all(model: nn.Module, examples: ExampleSet) -> np.ndarray:
    """Compute the embeddings of a set of examples, float32 [n, E]."""
    size = choose_evaluation_batch(model, examples.rows.device)
    parts = [embed(model, images).cpu() for images, _ in iterate_in_order(examples, size)]
    return torch.cat(parts).numpy()


@torch.no_grad()
def find_head(model: nn.Module, image: Tensor) -> tuple[Tensor, Tensor] | None:
    """Find weight [K, E] and bias [K] of the linear layer that gives the logits of an image; None if there is none."""
    try:
        phi = embed(model, image)
    except ValueError:
        return None
    logits = model(image)
    # A user's network may do more after its last linear layer: only one that gives the logits is the head.
    for layer in reversed([layer for layer in model.modules() if isinstance(layer, nn.Linear)]):
        if layer.in_features == phi.shape[1] and torch.allclose(layer(phi), logits, atol=1e-4):
            return layer.weight, layer.bias if layer.bias is not None else layer.weight.new_zeros(len(layer.weight))
    return None
