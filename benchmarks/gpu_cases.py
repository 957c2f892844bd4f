"""What benchmarks/gpu_training.py trains: two recipes, one data file, three engines."""

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

from memscore.data.datasets import load_dataset
from memscore.models.architectures import build_network
from memscore.training.cuda_graphs import CudaGraphEngine
from memscore.training.device_data import DeviceImages, to_device
from memscore.training.engines import MultiStreamEngine
from memscore.training.loop import Engine, TrainingRun, train
from memscore.training.recipes import RECIPES, Recipe

Step = tuple[str, Callable[[], Any]]
"""A name, and what measures it."""

FILE = Path(__file__).parent / "data" / "fashion_mnist.npz"
CLASSES = 10
MEAN, STD = (0.2,) * 3, (0.33,) * 3  # of the padded images, to two digits


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
        tiny: whether this only shows that it runs.
        cases: CASES or TINY.
        images: resident, training images first, then the test set.
        labels: int64, same device.
        test: rows of the test set.
    """

    device: torch.device
    file: Path
    tiny: bool
    cases: dict[str, Case]
    images: DeviceImages
    labels: Tensor
    test: Tensor


def prepare(file: Path) -> None:
    """Write Fashion-MNIST as this machine has it, unpadded, for a machine that has not."""
    splits = load_dataset("fashion-mnist", validation=0)
    file.parent.mkdir(parents=True, exist_ok=True)
    parts = {"train": splits.train, "test": splits.test}
    arrays = {f"{name}_{kind}": getattr(part, kind) for name, part in parts.items() for kind in ("images", "labels")}
    np.savez_compressed(file, **arrays)
    print(f"{file}: {file.stat().st_size / 2**20:.1f} MiB")


def padded(file: Path = FILE) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Images, labels, test images, test labels; images uint8 [N, 3, 32, 32], gray in three channels, a black rim."""
    if not file.exists():
        raise FileNotFoundError(
            f"{file} is not there; run `python -m benchmarks.gpu_training prepare` where the data is"
        )
    with np.load(file, allow_pickle=False) as arrays:
        train, labels, test, test_labels = (arrays[f"{a}_{b}"] for a in ("train", "test") for b in ("images", "labels"))
    rim = ((0, 0), (0, 0), (2, 2), (2, 2))
    # type: ignore[return-value]
    return tuple(np.pad(x, rim).repeat(3, axis=1) if x.ndim == 4 else x for x in (train, labels, test, test_labels))


def bench_on(device: str, file: Path, *, tiny: bool) -> Bench:
    """The data on the device."""
    train, labels, test, test_labels = padded(file)
    cases = TINY if tiny else CASES
    most = max(case.available for case in cases.values())
    test, test_labels = (test[:64], test_labels[:64]) if tiny else (test, test_labels)
    here = torch.device(device)
    images = to_device(np.concatenate([train[:most], test]), MEAN, STD, here, flat=False)
    together = torch.from_numpy(np.concatenate([labels[:most], test_labels]).astype(np.int64)).to(here)
    rows = torch.arange(most, most + len(test), device=here)
    return Bench(device=here, file=file, tiny=tiny, cases=cases, images=images, labels=together, test=rows)


def assigned(bench: Bench, case: Case, index: int) -> TrainingRun:
    """One model of a case: its subset, initial weights and orders follow from its index."""
    subsets, order, chance = np.random.default_rng([index, case.members]).spawn(3)
    model = build_network(case.arch, bench.images.shape, CLASSES, seed=index).to(bench.device)
    rows = np.sort(subsets.choice(case.available, case.members, replace=False))
    return TrainingRun(model=model, rows=rows, order_rng=order, augmentation_rng=chance, architecture=case.arch)


def with_precision(case: Case, precision: str, epochs: int | None = None) -> Recipe:
    """The case's recipe in this precision, and so many epochs of it if only its speed matters."""
    if epochs is None:
        return replace(case.recipe, precision=precision)
    return replace(case.recipe, precision=precision, epochs=epochs, schedule="constant", milestones=())


def steps_of(case: Case, recipe: Recipe) -> int:
    """T of the step law."""
    return round(recipe.epochs * case.members / recipe.batch)


_engines: dict[tuple[Case, Recipe, bool], list[CudaGraphEngine]] = {}


def captured_engine(
    bench: Bench, recipe: Recipe, assignments: Sequence[TrainingRun], case: Case, *, compiled: bool
) -> Engine:
    """So many networks on as many streams; engines are kept, those of another case or recipe given up."""
    key = (case, recipe, compiled)
    if key not in _engines:
        settle(bench)
        _engines.clear()
    kept = _engines.setdefault(key, [])
    while len(kept) < len(assignments):
        place, capture = (assignments[0].model, bench.images, bench.labels), bench.device.type == "cuda"
        kept.append(CudaGraphEngine(*place, recipe, capture=capture, compiled=compiled and not bench.tiny))
    return MultiStreamEngine(kept, assignments)


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
    chosen = [assigned(bench, case, index) for index in indices]
    settle(bench)
    started = time.perf_counter()
    made = None
    if engine != "eager":
        made = captured_engine(bench, recipe, chosen, case, compiled=engine == "compiled")
    settle(bench)
    set_up_s = time.perf_counter() - started
    started = time.perf_counter()
    train(chosen, bench.images, bench.labels, recipe, steps_of(case, recipe), engine=made)
    settle(bench)
    return chosen, time.perf_counter() - started, set_up_s


def flops_a_step(bench: Bench, case: Case) -> float:
    """Operations of forward and backward for one batch, two for a multiplication with its addition."""
    model, few = build_network(case.arch, bench.images.shape, CLASSES, seed=0).to(bench.device), bench.test[:2]
    with FlopCounterMode(display=False) as counter:
        cross_entropy(model(bench.images.take(few)), bench.labels[few]).backward()
    return counter.get_total_flops() / 2 * case.recipe.batch


def ceilings(bench: Bench) -> dict[str, float]:
    """The machine's bfloat16 product in TFLOP/s and its copy in TB/s, on random numbers."""
    side = 256 if bench.tiny else 8192
    a, b = torch.randn(2, side, side, device=bench.device).to(torch.bfloat16)
    source = torch.randn(2**16 if bench.tiny else 2**30, device=bench.device)
    target = torch.empty_like(source)
    product_s, copy_s = seconds_of(bench, lambda: a @ b), seconds_of(bench, lambda: target.copy_(source))
    return {"bf16_tflops": 2e-12 * side**3 / product_s, "copy_tb_s": 8e-12 * len(source) / copy_s}


def seconds_of(bench: Bench, work: Callable[[], object], rounds: int = 10) -> float:
    """Mean over some rounds, after three."""
    for _ in range(3):
        work()
    settle(bench)
    started = time.perf_counter()
    for _ in range(rounds):
        work()
    settle(bench)
    return (time.perf_counter() - started) / rounds


def settle(bench: Bench) -> None:
    """Wait for the GPU."""
    if bench.device.type == "cuda":
        torch.cuda.synchronize(bench.device)
