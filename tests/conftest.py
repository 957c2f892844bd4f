"""One torch thread for every test, as for every worker (two give other bits and stall on busy cores); one cluster; no
pictures but where they are looked at."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
TOKEN = "0123456789abcdef" * 4

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def forgotten_modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Modules that a test wrote and imported are gone after it: the next one has other functions by the same name."""
    before = len(sys.modules)
    yield
    if len(sys.modules) != before:
        folder = str(tmp_path_factory.getbasetemp())
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None)).startswith(folder):
                del sys.modules[name]


DRAWN = ("plot_memorization", "plot_most_memorized", "plot_roc_bands")
ONE_PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b550000000a49444154789c63f80f0001010100b138f614"
    "0000000049454e44ae426082"
)


@pytest.fixture(scope="session", autouse=True)
def unpictured() -> Iterator[None]:
    """Each run of estimate leaves three figures, and drawing them takes longer than to train a small bank.

    Here they are one pixel; tests/memscore/plots draws them, and one test of estimate does, with `pictured`.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in DRAWN:
            patch.setattr(f"memscore.pipeline.bank_reports.{name}", lambda *drawn: ONE_PIXEL)
        yield


@pytest.fixture(scope="session", autouse=True)
def wide_pages() -> Iterator[None]:
    """Pages of commands are wide, so that a test finds a sentence on one line; test_tables.py renders narrow ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("COLUMNS", raising=False)
        patch.setattr("memscore.tables.console.PIPED_WIDTH", 2000)
        yield


@pytest.fixture
def pictured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures of a run as users have them."""
    from memscore.plots import bank

    for name in DRAWN:
        monkeypatch.setattr(f"memscore.pipeline.bank_reports.{name}", getattr(bank, name))


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """Two CPUs and no dashboard; a token of its own, so that none is made in the developer's home."""
    before = dict(os.environ)
    os.environ.pop("RAY_ADDRESS", None)
    os.environ |= {"RAY_AUTH_TOKEN": TOKEN, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT)}
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        num_gpus=0,
        include_dashboard=False,
        object_store_memory=100 * 2**20,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield
    ray.shutdown()
    os.environ.clear()
    os.environ |= before
