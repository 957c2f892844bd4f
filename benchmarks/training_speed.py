"""Claim: how near training on one core comes to what the core can do, beside a plain eager loop.

    python -m benchmarks.training_speed [--rounds 7] [--only NAME ...]

Every round measures, one after the other and in one thread: the core's ceiling (the faster of a 1024 x 1024 x 1024
float32 product and a 3 x 3 convolution of 128 channels, channels last), and for each network the plain loop and the
engine, by CPU time; ratios are taken within a round. Then the same engine runs in one process and in two at once, by
the wall. The picture goes to docs/training-speed.png. With --only, networks whose names begin so are measured beside
the plain loop; the file keeps everything else, and they get a date and a machine of their own.
"""

import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
import tyro
from matplotlib.axes import Axes
from torch.nn.functional import conv2d

from benchmarks.plain_loop import plain_training
from benchmarks.results_file import RESULTS, machine, save, spread
from memscore.models.architectures import Shape, build_network, count_parameters
from memscore.plots.bank import create_figure, encode_png
from memscore.training.device_data import DeviceImages, to_device
from memscore.training.loop import TrainingRun, is_stackable, train
from memscore.training.numerics import float32_matmul, single_threaded
from memscore.training.recipes import Recipe
from memscore.training.stacked_mlp import compute_stack_size

PICTURE = Path(__file__).parents[1] / "docs" / "training-speed.png"
CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One network and batch.

    Attributes:
        arch: its name.
        shape: of an image.
        batch: examples a step.
        examples: of the data set.
        steps: of one measurement, a model.
        flop: of one model's step, 0 where it is not compared with the ceiling.
    """

    arch: str
    shape: Shape
    batch: int
    examples: int
    steps: int
    flop: float = 0.0

    @property
    def name(self) -> str:
        """Sizes and batch."""
        return f"{self.arch} on {'x'.join(map(str, self.shape))}, batch {self.batch}"


def linear_flop(*sizes: int, batch: int) -> float:
    """Of one step: forward and weight gradients of every layer, input gradients of all but the first."""
    products = [2.0 * batch * n_in * n_out for n_in, n_out in itertools.pairwise(sizes)]
    return 3 * sum(products) - products[0]


GREY = (1, 28, 28)
CASES = (
    Case(arch="mlp-32", shape=(1, 8, 8), batch=32, examples=1200, steps=300),
    Case(arch="mlp-128", shape=(1, 8, 8), batch=32, examples=1200, steps=300),
    Case(
        arch="mlp-256",
        shape=GREY,
        batch=256,
        examples=20_000,
        steps=120,
        flop=linear_flop(784, 256, 10, batch=256),
    ),
    Case(
        arch="mlp-512-256",
        shape=GREY,
        batch=128,
        examples=60_000,
        steps=150,
        flop=linear_flop(784, 512, 256, 10, batch=128),
    ),
    Case(arch="cnn", shape=GREY, batch=64, examples=10_000, steps=40),
    Case(arch="cnn", shape=GREY, batch=256, examples=10_000, steps=15),
)


def main(rounds: int = 7, only: tuple[str, ...] = (), alone: str | None = None) -> None:
    """Measure.

    Args:
        rounds: of every measurement, after one that is not counted.
        only: beginnings of the names of the cases to measure again.
        alone: the script calls itself with the name of a case, to run it beside another process.
    """
    if alone is not None:
        print(steps_in_five_seconds(next(case for case in CASES if case.name == alone)))
        return
    if only:
        measure_again([case for case in CASES if case.name.startswith(only)], rounds)
        return
    with single_threaded():
        ceilings, measured = interleaved(CASES, rounds)
    report = {case.name: summary(case, ceilings, measured[case.name]) for case in CASES}
    PICTURE.write_bytes(picture(report))
    with float32_matmul(CPU) as arithmetic:
        pass
    save(
        "training_speed",
        {
            "what": "one core, one thread; ratios within a round",
            "ceiling_gflops": spread(ceilings),
            "matmul": arithmetic,
            "bfloat16_over_float32_product": spread([slower_in_bfloat16() for _ in range(rounds)]),
            "cases": report,
            "two_processes_over_one": {case.name: spread(scaling(case, 3)) for case in (CASES[1], CASES[3], CASES[4])},
        },
    )


def measure_again(cases: Sequence[Case], rounds: int) -> None:
    """Measure some cases and put them into the file and the picture."""
    path = RESULTS / "training_speed.json"
    document = json.loads(path.read_text())
    here = {"machine": machine(), "date": datetime.now(UTC).date().isoformat()}
    with single_threaded():
        ceilings, measured = interleaved(cases, rounds)
    for case in cases:
        document["cases"][case.name] = summary(case, ceilings, measured[case.name]) | here
    PICTURE.write_bytes(picture(document["cases"]))
    path.write_text(json.dumps(document, indent=2) + "\n")


def interleaved(cases: Sequence[Case], rounds: int) -> tuple[list[float], dict[str, list[tuple[float, float]]]]:
    """Ceiling in GFLOP/s of every round, and for each case seconds a step of plain loop and engine."""
    ceilings: list[float] = []
    measured: dict[str, list[tuple[float, float]]] = {case.name: [] for case in cases}
    data = {case.name: data_of(case) for case in cases}
    for number in range(rounds + 1):
        highest = ceiling()
        pairs = {case.name: (plain(case, *data[case.name]), engine(case, *data[case.name])) for case in cases}
        print(f"round {number}: {highest:.0f} GFLOP/s, " + ", ".join(f"{k} {p / e:.2f}" for k, (p, e) in pairs.items()))
        if number:  # the first one warms up
            ceilings.append(highest)
            for name, pair in pairs.items():
                measured[name].append(pair)
    return ceilings, measured


def ceiling() -> float:
    """The core's best in GFLOP/s, over some fifty short runs of two products that suit it."""
    a, b = torch.randn(2, 1024, 1024)
    out = torch.empty(1024, 1024)
    images = torch.randn(16, 128, 16, 16).to(memory_format=torch.channels_last)
    kernel = torch.randn(128, 128, 3, 3).to(memory_format=torch.channels_last)
    with float32_matmul(CPU), torch.no_grad():
        product = 2 * 1024**3 / fastest(lambda: torch.mm(a, b, out=out))
        convolution = 2 * 16 * 256 * 128 * 128 * 9 / fastest(lambda: conv2d(images, kernel, padding=1))
    return max(product, convolution) / 1e9


def fastest(step: Callable[[], object], times: int = 25) -> float:
    """Seconds of the fastest of some runs."""
    found = []
    for _ in range(times):
        started = time.perf_counter()
        step()
        found.append(time.perf_counter() - started)
    return min(found)


def slower_in_bfloat16() -> float:
    """Seconds of a 512 x 784 x 128 product in bfloat16 over those in float32: below 1 where it pays."""
    a, b = torch.randn(512, 784), torch.randn(784, 128)
    low_a, low_b = a.bfloat16(), b.bfloat16()
    with single_threaded(), float32_matmul(CPU):
        return fastest(lambda: low_a @ low_b) / fastest(lambda: a @ b)


def data_of(case: Case) -> tuple[np.ndarray, torch.Tensor, DeviceImages]:
    """Random images and labels: the arithmetic does not depend on them."""
    rng = np.random.default_rng(0)
    raw = rng.integers(0, 256, (case.examples, *case.shape), dtype=np.uint8)
    labels = torch.from_numpy(rng.integers(0, 10, case.examples))
    flat = is_stackable(build_network(case.arch, case.shape, 10, 0), recipe_of(case))
    channels = case.shape[0]
    return raw, labels, to_device(raw, (0.3,) * channels, (0.3,) * channels, CPU, flat=flat)


def recipe_of(case: Case) -> Recipe:
    """Plain SGD; the rate is small enough for random labels."""
    return Recipe(epochs=10, batch=case.batch, lr=0.01, schedule="cosine")


def plain(case: Case, raw: np.ndarray, labels: torch.Tensor, _: DeviceImages) -> float:
    """Seconds of CPU a step of the plain loop, its images resident and normalised too."""
    pixels = (torch.from_numpy(raw[: case.examples // 2]).float() / 255 - 0.3) / 0.3
    model = build_network(case.arch, case.shape, 10, 0)
    started = time.process_time()
    plain_training(model, pixels, labels, recipe_of(case), case.steps, seed=0)
    return (time.process_time() - started) / case.steps


def engine(case: Case, raw: np.ndarray, labels: torch.Tensor, images: DeviceImages) -> float:
    """Seconds of CPU a step and model of the engine, in stacks of the size that a bank uses."""
    models = [build_network(case.arch, case.shape, 10, seed) for seed in range(side_by_side(case))]
    assignments = [
        TrainingRun(
            model=model,
            rows=np.arange(len(raw) // 2),
            order_rng=np.random.default_rng(k),
            augmentation_rng=np.random.default_rng(k),
        )
        for k, model in enumerate(models)
    ]
    with float32_matmul(CPU):
        started = time.process_time()
        train(assignments, images, labels, recipe_of(case), case.steps)
        return (time.process_time() - started) / case.steps / len(models)


def side_by_side(case: Case) -> int:
    """Models that one job of a bank trains at once."""
    model = build_network(case.arch, case.shape, 10, 0)
    return compute_stack_size(model) if is_stackable(model, recipe_of(case)) else 1


def summary(case: Case, ceilings: list[float], pairs: list[tuple[float, float]]) -> dict[str, object]:
    """Ratios of one case."""
    found: dict[str, object] = {
        "weights": count_parameters(build_network(case.arch, case.shape, 10, 0)),
        "models_side_by_side": side_by_side(case),
        "plain_over_engine": spread([p / e for p, e in pairs]),
        "engine_ms_a_step": spread([1e3 * e for _, e in pairs]),
    }
    if case.flop:
        shares = [case.flop / e / 1e9 / top for (_, e), top in zip(pairs, ceilings, strict=True)]
        plain_shares = [case.flop / p / 1e9 / top for (p, _), top in zip(pairs, ceilings, strict=True)]
        found |= {"share_of_ceiling": spread(shares), "plain_share_of_ceiling": spread(plain_shares)}
    return found


def steps_in_five_seconds(case: Case) -> float:
    """Models times steps a second, by the wall, in this process."""
    data = data_of(case)
    with single_threaded():
        engine(case, *data)
        started, rounds = time.perf_counter(), 0
        while time.perf_counter() - started < 5:
            engine(case, *data)
            rounds += 1
        return rounds * case.steps * side_by_side(case) / (time.perf_counter() - started)


def scaling(case: Case, rounds: int) -> list[float]:
    """Work of two processes at once over that of one alone, turn about."""
    ratios = []
    for _ in range(rounds):
        single, double = together(case, 1), together(case, 2)
        ratios.append(double / single)
    return ratios


def together(case: Case, count: int) -> float:
    """Steps a second of so many processes at once."""
    command = [sys.executable, "-m", "benchmarks.training_speed", "--alone", case.name]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    return sum(float(process.communicate()[0].split()[-1]) for process in running)


def picture(report: dict[str, dict[str, object]]) -> bytes:
    """Speed beside the plain loop, a bar a network, with the whole spread."""
    figure = create_figure(7, 3)
    axis: Axes = figure.subplots()
    ratios = [found["plain_over_engine"] for found in report.values()]
    values = np.array([[r["median"], r["min"], r["max"]] for r in ratios])  # type: ignore[index]
    rows = np.arange(len(values))
    reach = np.abs(values[:, 1:].T - values[:, 0])
    axis.barh(rows, values[:, 0], xerr=reach, color="#4477aa", error_kw={"ecolor": "#222222", "capsize": 2})
    axis.set_yticks(rows, list(report))
    axis.invert_yaxis()
    axis.set_xscale("log")
    axis.set_xticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
    axis.minorticks_off()
    axis.axvline(1, color="#222222", linewidth=0.8)
    axis.set_xlabel("seconds a step and model of a plain eager loop / of the engine (one core)")
    return encode_png(figure)


if __name__ == "__main__":
    tyro.cli(main)
