"""What benchmarks/gpu_training.py trains: two recipes, one data file, three engines, four precisions."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu_data import CLASSES, read_images
from memscore.models.architectures import build_network
from memscore.training.cuda_graphs import CudaGraphEngine
from memscore.training.device_data import DeviceImages, to_device
from memscore.training.engines import MultiStreamEngine
from memscore.training.loop import Engine, TrainingRun, train
from memscore.training.recipes import RECIPES, Recipe

Cell = tuple[str, Callable[[], Any]]
"""A name, and the function that measures it."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One recipe on one network.

    Attributes:
        arch: as in memscore.models.architectures.
        recipe: its precision is the engine's.
        available: training images to draw from.
        members: of them that each model sees.
    """

    arch: str
    recipe: Recipe
    available: int
    members: int


CASES = {
    "cifar-stem": Case(arch="resnet18", recipe=RECIPES["rum-cifar10"], available=45_000, members=31_500),
    "imagenet-stem": Case(
        arch="resnet18-imagenet-stem", recipe=RECIPES["rum-memorization"], available=50_000, members=35_000
    ),
    "small": Case(
        arch="resnet18-imagenet-stem",
        recipe=replace(RECIPES["rum-memorization"], batch=128, lr=0.05, schedule="cosine", milestones=()),
        available=5_000,
        members=2_500,
    ),
}
_SHORT = Recipe(epochs=3, batch=16, lr=0.05, schedule="cosine")
TINY = {
    "cifar-stem": Case(arch="cnn-4-8", recipe=_SHORT, available=90, members=64),
    "imagenet-stem": Case(arch="cnn-4-4", recipe=_SHORT, available=90, members=64),
    "small": Case(arch="cnn-4-4", recipe=_SHORT, available=90, members=48),
}
"""The same benchmark in seconds on a CPU: it shows that everything runs, and measures nothing."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Bench:
    """A device with its data.

    Attributes:
        device: where everything runs.
        file: where the data comes from.
        source: of the images, in words.
        tiny: whether this only shows that it runs.
        cases: CASES or TINY.
        images: resident, training images first, then the test set.
        labels: int64, same device.
        test: rows of the test set.
    """

    device: torch.device
    file: Path
    source: str
    tiny: bool
    cases: dict[str, Case]
    images: DeviceImages
    labels: Tensor
    test: Tensor


def load_bench(device: str, file: Path, *, tiny: bool) -> Bench:
    """Put the data on the device."""
    train, labels, test, test_labels, source = read_images(file)
    cases = TINY if tiny else CASES
    most = max(case.available for case in cases.values())
    if tiny:
        test, test_labels = test[:64], test_labels[:64]
    channels = train[:most].astype(np.float32).transpose(1, 0, 2, 3).reshape(3, -1) / 255
    mean, std = (tuple(float(x) for x in statistic) for statistic in (channels.mean(1), channels.std(1)))
    target = torch.device(device)
    images = to_device(np.concatenate([train[:most], test]), mean, std, target, flat=False)
    all_labels = torch.from_numpy(np.concatenate([labels[:most], test_labels]).astype(np.int64)).to(target)
    rows = torch.arange(most, most + len(test), device=target)
    return Bench(
        device=target, file=file, source=source, tiny=tiny, cases=cases, images=images, labels=all_labels, test=rows
    )


def make_run(bench: Bench, case: Case, index: int) -> TrainingRun:
    """One model of a case: its subset, initial weights and orders follow from its index."""
    subsets, order, augmentation = np.random.default_rng([index, case.members]).spawn(3)
    model = build_network(case.arch, bench.images.shape, CLASSES, seed=index).to(bench.device)
    rows = np.sort(subsets.choice(case.available, case.members, replace=False))
    return TrainingRun(model=model, rows=rows, order_rng=order, augmentation_rng=augmentation, architecture=case.arch)


def change_recipe(case: Case, precision: str, epochs: int | None = None) -> Recipe:
    """The case's recipe in this precision, and so many epochs of it if only its speed matters."""
    recipe = replace(case.recipe, precision=precision)
    return recipe if epochs is None else replace(recipe, epochs=epochs, schedule="constant", milestones=())


def count_steps(case: Case, recipe: Recipe) -> int:
    """T of the step law."""
    return round(recipe.epochs * case.members / recipe.batch)


_engines: dict[tuple[Case, Recipe, bool, str], list[CudaGraphEngine]] = {}


def release_engines() -> None:
    """Delete the cached engines and free their memory."""
    _engines.clear()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def get_graph_engine(
    bench: Bench, recipe: Recipe, runs: Sequence[TrainingRun], case: Case, *, compiled: bool
) -> Engine:
    """So many networks on as many streams; engines are cached, those of another case or recipe deleted."""
    key = (case, recipe, compiled)
    if key not in _engines:
        synchronize(bench)
        release_engines()
    cached = _engines.setdefault(key, [])
    while len(cached) < len(runs):
        inputs, capture = (runs[0].model, bench.images, bench.labels), bench.device.type == "cuda"
        cached.append(CudaGraphEngine(*inputs, recipe, capture=capture, compiled=compiled and not bench.tiny))
        if cached[-1].compiled != (compiled and not bench.tiny):  # else its time would be reported as a compiled one's
            raise RuntimeError(f"{case.arch} could not be compiled; the warning above says why")
    return MultiStreamEngine(cached, runs)


def train_models(
    bench: Bench, case: Case, indices: Sequence[int], *, engine: str, recipe: Recipe
) -> tuple[list[TrainingRun], float, float]:
    """Train some models side by side with an engine.

    Args:
        bench: device and data.
        case: what they are.
        indices: which; "eager" takes one.
        engine: "eager", "captured", or "compiled" for captured after torch.compile.
        recipe: the case's, perhaps in another precision.

    Returns:
        The models, seconds that training them took, and seconds that making the engine took before.
    """
    runs = [make_run(bench, case, index) for index in indices]
    synchronize(bench)
    started = time.perf_counter()
    graphs = None
    if engine != "eager":
        graphs = get_graph_engine(bench, recipe, runs, case, compiled=engine == "compiled")
    synchronize(bench)
    set_up_s = time.perf_counter() - started
    started = time.perf_counter()
    train(runs, bench.images, bench.labels, recipe, count_steps(case, recipe), engine=graphs)
    synchronize(bench)
    return runs, time.perf_counter() - started, set_up_s


def count_flops(bench: Bench, case: Case) -> float:
    """Operations of forward and backward for one batch, two for a multiplication with its addition."""
    model, few = build_network(case.arch, bench.images.shape, CLASSES, seed=0).to(bench.device), bench.test[:2]
    with FlopCounterMode(display=False) as counter:
        cross_entropy(model(bench.images.take(few)), bench.labels[few]).backward()
    return counter.get_total_flops() / 2 * case.recipe.batch


def measure_ceilings(bench: Bench) -> dict[str, float]:
    """The machine's bfloat16 product in TFLOP/s and its copy in TB/s, on random numbers."""
    side = 256 if bench.tiny else 8192
    a, b = torch.randn(2, side, side, device=bench.device).to(torch.bfloat16)
    source = torch.randn(2**16 if bench.tiny else 2**30, device=bench.device)
    target = torch.empty_like(source)
    product_s, copy_s = time_work(bench, lambda: a @ b), time_work(bench, lambda: target.copy_(source))
    return {"bf16_tflops": 2e-12 * side**3 / product_s, "copy_tb_s": 8e-12 * len(source) / copy_s}


def time_work(bench: Bench, work: Callable[[], object], rounds: int = 10) -> float:
    """Mean over some rounds, after three."""
    for _ in range(3):
        work()
    synchronize(bench)
    started = time.perf_counter()
    for _ in range(rounds):
        work()
    synchronize(bench)
    return (time.perf_counter() - started) / rounds


def synchronize(bench: Bench) -> None:
    """Wait for the GPU."""
    if bench.device.type == "cuda":
        torch.cuda.synchronize(bench.device)
