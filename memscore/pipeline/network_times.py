"""Time a network on one CPU core with a few images, and count its operations: what all of its work is scaled from.

Times are CPU seconds of one thread, so that what else runs on the machine counts little. A few images suffice for a
network of any size: a first step of two images says how many more may be timed within seconds.
"""

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from cluster.pool import format_error
from memscore.data.splits import Splits
from memscore.models.architectures import count_parameters, embed
from memscore.models.compiled_convolutions import compile_convolutions
from memscore.pipeline.jobs import build_model, make_training_run, read_recipe
from memscore.pipeline.train_bank import choose_models_per_job
from memscore.pipeline.work import Work
from memscore.store.store import Store
from memscore.training.device_data import DeviceImages, to_device
from memscore.training.evaluation import build_forward, choose_evaluation_batch, evaluate_examples
from memscore.training.loop import TrainingRun, is_stackable, train
from memscore.training.numerics import float32_matmul, single_threaded
from memscore.training.recipes import Recipe

ShowTiming = Callable[[str], None]
"""Called with a line while something is timed."""

TIMED_STEPS, TIMED_S = 20, 0.3  # steps that are timed and scaled to the whole training; fewer if one is slow
FIRST_IMAGES = 2  # of the first step; a batch norm cannot train on one
SLOW_S, VERY_SLOW_S = 0.5, 4.0  # steps that take longer are timed in one call, the second, or the first of all
STEP_BUDGET_S = 1.2  # of the largest step that is timed
SAMPLE, SAMPLE_BYTES = 2048, 64 * 2**20  # training examples that steps read; fewer if these are large
PREDICTED = 256  # images in a timed prediction, at most


class TimingError(RuntimeError):
    """The network or a proxy raised an exception where it was timed; a job of the run would raise it too."""


@dataclass(frozen=True, kw_only=True)
class NetworkTimes:
    """Work of the parts of a training, and sizes of the network.

    Attributes:
        step: one step of one model of a job, of a whole batch.
        lone_step: what one step of a model that is trained alone takes besides its images.
        trained_image: one image of such a step, forward and backward.
        predicted_image: the prediction of one image.
        batch: of the recipe.
        embedding: numbers that the last layer reads of one image.
        parameters: numbers that are trained.
        activation_bytes: kept of one image for the backward pass.
        models: how many a job trains at once on a CPU.
    """

    step: Work
    lone_step: Work
    trained_image: Work
    predicted_image: Work
    batch: int
    embedding: int
    parameters: int = 0
    activation_bytes: float = 0.0
    models: int = 1

    @property
    def original_step(self) -> Work:
        """One step of a model that is trained alone, of a whole batch."""
        return self.lone_step + self.trained_image * self.batch


class WorkCounter(TorchDispatchMode):
    """Count the floating-point operations and the launched operations inside a context, on any device."""

    # torch's own FlopCounterMode counts alike, but follows modules by hooks, which torch.func's transforms refuse.

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops, self.launches = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and count it."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func._overloadpacket in flop_registry:
            self.flops += int(flop_registry[func._overloadpacket](*args, **kwargs, out_val=result))
        self.launches += not func.is_view
        return result


def time_network(store: Store, splits: Splits, show: ShowTiming = lambda line: None) -> NetworkTimes:
    """Time steps and predictions of a bank's network on one core, with a few images of the training set.

    TimingError if the network raises an exception.
    """
    name = store.manifest.architecture
    show(f"timing {name} ...")
    started = time.perf_counter()
    with explain_timing_error(f"a few steps of {name}"):
        times = time_parts(store, splits)
    show(f"timing {name}: {time.perf_counter() - started:.1f} s")
    return times


@contextmanager
def explain_timing_error(what: str) -> Generator[None, None, None]:
    """Say what was timed, if that raises an exception of any kind."""
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # sys.exit of a user's network too
        raise TimingError(f"timing {what} failed: {format_error(error)}") from error


def load_sample(store: Store, splits: Splits, model: nn.Module, recipe: Recipe) -> tuple[DeviceImages, Tensor]:
    """Load a few training images and labels for the CPU, as many as a batch where these are small."""
    # Neither the size of the training set nor which examples a model has changes the time of a step. Not
    # load_on_device: its cache is of all images, and is read by the run that may follow.
    manifest = store.manifest
    fitting = SAMPLE_BYTES // (4 * int(np.prod(manifest.input_shape)))
    n = min(len(splits.train), max(min(SAMPLE, fitting), min(recipe.batch, max(fitting, FIRST_IMAGES))))
    flat = is_stackable(model, recipe)
    data = to_device(splits.train.images[:n], manifest.mean, manifest.std, torch.device("cpu"), flat=flat)
    return data, torch.from_numpy(np.array(splits.train.labels[:n]))


def time_parts(store: Store, splits: Splits) -> NetworkTimes:
    """Time what NetworkTimes has; the caller explains errors."""
    device = torch.device("cpu")
    recipe, size = read_recipe(store), choose_models_per_job(store, "cpu")
    with single_threaded(), float32_matmul(device):
        models = [build_model(store, "size", m, device) for m in range(size)]
        data, labels = load_sample(store, splits, models[0], recipe)
        compile_convolutions(models[0], store.manifest.input_shape)
        everyone = np.ones(len(labels), dtype=bool)
        runs = [make_training_run(store, "size", m, model, everyone) for m, model in enumerate(models)]
        # 1. A model alone: few images at first, then as many as seconds allow.
        lone_step, trained_image, activation_bytes = time_lone_steps(runs[0], data, labels, recipe)
        # 2. A job of several, in whole batches. Only fully connected networks have one, which are fast.
        step = lone_step + trained_image * recipe.batch
        if size > 1 and recipe.batch <= len(labels):
            work = count_work(lambda: train(runs, data, labels, recipe, 1))
            step = replace(work * (1 / size), core_s=time_step(runs, data, labels, recipe) / size)
        # 3. Predictions: a third of what training takes.
        predict, evaluation_batch = build_forward(models[0], recipe), choose_evaluation_batch(models[0], device)
        affordable = int(STEP_BUDGET_S / max(trained_image.core_s, 1e-9))
        n = int(np.clip(affordable, 1, min(len(labels), PREDICTED, evaluation_batch)))
        counted = count_work(lambda: evaluate_examples(predict, data, labels[:n], evaluation_batch))
        predicted_s = time_call(lambda: evaluate_examples(predict, data, labels[:n], evaluation_batch))
        with torch.no_grad():
            embedding = embed(models[0], data.take(torch.arange(1))).shape[1]
    # launches of a batch are not multiplied by its images
    predicted_image = Work(
        core_s=predicted_s / n, flops=counted.flops / n, launches=counted.launches / evaluation_batch
    )
    return NetworkTimes(
        step=step,
        lone_step=lone_step,
        trained_image=trained_image,
        predicted_image=predicted_image,
        batch=recipe.batch,
        embedding=embedding,
        parameters=count_parameters(models[0]),
        activation_bytes=activation_bytes,
        models=size,
    )


def time_lone_steps(run: TrainingRun, data: DeviceImages, labels: Tensor, recipe: Recipe) -> tuple[Work, Work, float]:
    """Time steps of one model: the work of a step besides its images, that of an image, and bytes kept for an image."""
    largest, timed = min(recipe.batch, len(labels)), dict[int, float]()

    def take_first_step() -> None:
        train([run], data, labels, replace(recipe, batch=batch), 1)

    batch = min(FIRST_IMAGES, largest)
    with measure_activations(run.model) as kept:
        counted = count_work(take_first_step)
    # Up to the whole batch where that is fast. What the images of a step take is a straight line through the two
    # largest; of a slow network what else a step takes is little beside its images.
    timed[batch] = time_step([run], data, labels, replace(recipe, batch=batch))
    image_s = timed[batch] / batch
    while batch < largest and image_s * batch < STEP_BUDGET_S:
        batch = int(np.clip(STEP_BUDGET_S / max(image_s, 1e-9), batch + 1, min(largest, 8 * batch)))
        timed[batch] = time_step([run], data, labels, replace(recipe, batch=batch))
        image_s = timed[batch] / batch
        if timed[batch] > STEP_BUDGET_S / 2:
            break
    *_, low, high = [0, *sorted(timed)]
    slope = timed[high] / high if low == 0 else (timed[high] - timed[low]) / (high - low)
    slope = float(np.clip(slope, 0.0, timed[high] / high))
    first = min(FIRST_IMAGES, largest)
    return (
        Work(core_s=timed[high] - slope * high, launches=counted.launches),
        Work(core_s=slope, flops=counted.flops / first),
        kept[0] / first,
    )


@contextmanager
def measure_activations(model: nn.Module) -> Generator[list[float], None, None]:
    """Measure the bytes that autograd keeps for the backward pass inside the context; the list's only number."""
    seen, total = set[int](), [0.0]

    def pack(tensor: Tensor) -> Tensor:
        # read each time, since an engine may give the weights another layout, and so another place, at its start
        weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights and storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            total[0] += storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield total


def count_work(function: Callable[[], object]) -> Work:
    """Count the operations of a call, which is a first one: it also imports and compiles, and is not timed."""
    with WorkCounter() as counter:
        function()
    return Work(flops=counter.flops, launches=counter.launches)


def time_step(runs: Sequence[TrainingRun], data: DeviceImages, labels: Tensor, recipe: Recipe) -> float:
    """Time one step of all models together, in seconds."""

    def time_steps(count: int) -> float:
        started = time.thread_time()
        train(runs, data, labels, recipe, count)
        return time.thread_time() - started

    # The difference of two calls: what a call takes beside its steps belongs to a job, not to each step. The first call
    # has what only a first step of this batch does, and is used only where a step is very slow.
    cold_s = time_steps(1)
    if cold_s > VERY_SLOW_S:
        return cold_s
    one_s = time_steps(1)
    if one_s > SLOW_S:
        return one_s
    count = int(np.clip(TIMED_S / max(one_s, 1e-9), 1, TIMED_STEPS))
    return max(time_steps(1 + count) - one_s, 0.0) / count


def time_call(function: Callable[[], object]) -> float:
    """Time a call, in seconds; one before it has imported and compiled what it needs."""
    started = time.thread_time()
    function()
    return time.thread_time() - started
