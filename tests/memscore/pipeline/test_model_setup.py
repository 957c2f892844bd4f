"""What a worker sets before it trains: its device, its share of a GPU's memory, and the data on the device."""

import ast
import gc
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from memscore.pipeline import jobs
from memscore.pipeline.jobs import build_model, load_on_device, make_training_run, read_recipe
from memscore.training.device_data import to_device
from memscore.training.engines import _engine_cache, select_engine
from memscore.training.numerics import is_finite, limit_gpu_memory, open_device
from tests.fixtures.proxied import open_small_bank

ROOT = Path(__file__).parents[3]
CPU = torch.device("cpu")

GIB = 2**30


@pytest.fixture
def limits(monkeypatch):
    """Limits that reach a GPU of 80 GiB; torch's own checks of its arguments run before."""
    reached = []
    monkeypatch.setattr(torch.cuda.memory, "_lazy_init", lambda: None)
    monkeypatch.setattr(
        torch._C, "_cuda_setMemoryFraction", lambda part, index: reached.append((part, index)), raising=False
    )
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(total_memory=80 * GIB))
    monkeypatch.delenv("MEMSCORE_GPU_SHARE", raising=False)
    return reached


@pytest.mark.parametrize(
    ("device", "share", "expected"),
    [
        ("cuda", "0.25", [(0.24, 0)]),
        ("cuda:1", "0.25", [(0.24, 1)]),
        ("cuda", None, []),
        ("cpu", "0.25", []),
    ],
)
def test_a_worker_that_shares_a_gpu_is_limited_to_its_part_without_a_context(
    monkeypatch, limits, device, share, expected
):
    if share:
        monkeypatch.setenv("MEMSCORE_GPU_SHARE", share)
    limit_gpu_memory(torch.device(device))
    assert limits == [(pytest.approx(part), index) for part, index in expected]


def test_all_shares_and_contexts_fit_into_the_gpu(monkeypatch, limits):
    monkeypatch.setenv("MEMSCORE_GPU_SHARE", "0.1")
    for _ in range(10):
        limit_gpu_memory(torch.device("cuda"))
    assert sum(part * 80 * GIB + 0.8 * GIB for part, _ in limits) == pytest.approx(80 * GIB)


def test_a_share_smaller_than_a_context_is_refused(monkeypatch, limits):
    monkeypatch.setenv("MEMSCORE_GPU_SHARE", "0.01")
    with pytest.raises(
        ValueError, match=r"^--gpus-per-worker 0.01 of a GPU of 80.0 GiB .* about 0.8 GiB; give a larger"
    ):
        limit_gpu_memory(torch.device("cuda"))
    assert limits == []


@pytest.mark.parametrize(("name", "device"), [("cpu", "cpu"), ("cuda", "cuda:0"), ("cuda:1", "cuda:1")])
def test_a_job_opens_its_device_with_a_number_and_keeps_to_its_share(monkeypatch, name, device):
    limited = []
    monkeypatch.setattr("memscore.training.numerics.limit_gpu_memory", lambda opened: limited.append(str(opened)))
    assert str(open_device(name)) == device
    assert limited == [device]


def test_no_job_takes_a_device_without_its_share():
    """A device that is named by a job comes from open_device; only literal ones are made elsewhere."""
    for path in [*(ROOT / "memscore").rglob("*.py"), *(ROOT / "unlearn").rglob("*.py")]:
        if path.name == "numerics.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.device":
                assert all(isinstance(argument, ast.Constant) for argument in node.args), f"{path}:{node.lineno}"


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_one_number_that_is_not_finite_is_seen_among_weights_and_statistics(value):
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2, bias=False))
    network.register_buffer("empty", torch.zeros(0))
    with torch.no_grad():
        network[2].weight.fill_(3e38)  # finite, although their norm is not
    assert is_finite(network)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and tensor.numel():
            before = tensor.flatten()[-1].clone()
            with torch.no_grad():
                tensor.view(-1)[-1] = value
            assert not is_finite(network), name
            with torch.no_grad():
                tensor.view(-1)[-1] = before
    assert is_finite(torch.nn.Flatten())


@pytest.mark.parametrize("flat", [True, False])
def test_images_are_sent_as_bytes_and_normalised_on_the_device(flat, monkeypatch):
    sent, send = [], torch.Tensor.to

    def record(tensor, device):
        sent.append((tensor.dtype, tensor.numel()))
        return send(tensor, device)

    raw = np.random.default_rng(0).integers(0, 256, (9000, 3, 4, 4), dtype=np.uint8)
    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "to", record)
        to_device(raw, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), CPU, flat=flat)
    assert {dtype for dtype, _ in sent} == {torch.uint8}
    assert sum(count for _, count in sent) == raw.size
    # and what a CPU stores is the formula, every byte in every channel
    levels = np.arange(256, dtype=np.uint8).repeat(3).reshape(256, 3, 1, 1)
    images = to_device(levels, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), CPU, flat=flat).take(torch.arange(256))
    expected = (torch.from_numpy(levels).float() / 255 - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / torch.tensor([
        0.2,
        0.3,
        0.4,
    ]).view(3, 1, 1)
    assert torch.equal(images, expected)


def test_the_images_of_one_bank_are_gone_before_those_of_the_next_are_loaded(tmp_path, monkeypatch):
    """Also those that the engines of a network read, whatever engine the next bank has: a GPU may not hold both."""
    bank, shared = open_small_bank(tmp_path, arch="cnn-4", recipe="digits")
    store, recipe = bank.store, read_recipe(bank.store)
    model = build_model(store, "original", 0, CPU)
    data, labels = load_on_device(store, shared.images, shared.labels, model, recipe, CPU)
    run = make_training_run(store, "original", 0, model, np.ones(200, bool))
    select_engine([run], data, labels, recipe, capture=False)
    assert _engine_cache
    old, alive = weakref.ref(data), []
    del data, labels

    def record(*arguments, **options):
        gc.collect()  # without a graph, an engine refers to itself
        alive.append(old() is not None)
        return to_device(*arguments, **options)

    monkeypatch.setattr(jobs, "to_device", record)
    other, _ = open_small_bank(tmp_path / "other", arch="mlp-8")
    assert other.store.manifest.digest != store.manifest.digest
    load_on_device(
        *(other.store, shared.images, shared.labels, build_model(other.store, "original", 0, CPU)),
        *(read_recipe(other.store), CPU),
    )
    assert alive == [False]
