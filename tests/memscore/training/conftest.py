"""What tests of engines share."""

import os

import pytest

from memscore.training import engines, evaluation
from memscore.training.numerics import single_threaded
from tests.memscore.training.graph_emulator import run_plain_convolutions


@pytest.fixture(autouse=True)
def clean_engine_cache():
    """Use one thread; leave no cached engine and no variable of a failed recording behind."""
    before = dict(os.environ)
    with single_threaded():
        yield
    engines.clear_engine_cache()
    for cached in (engines._capture_errors, engines._best_stream_counts, evaluation._graph_cache):
        cached.clear()
    for name in os.environ.keys() - before.keys():
        if name.startswith("MEMSCORE_GRAPHS_"):
            del os.environ[name]


@pytest.fixture
def plain_convolutions():
    """Run the small CNN's layers one by one, as a GPU does."""
    with run_plain_convolutions():
        yield
