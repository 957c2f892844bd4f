"""One bank of 16 small models of 200 digits for all tests of sweeps; each module works on a copy of its own."""

import shutil
from dataclasses import replace

import pytest

from memscore.pipeline.runner import estimate
from tests.fixtures.opened import open_bank
from tests.fixtures.sweeps import BANK, RecordingSearch, make_config, run_sweep
from tests.memscore.pipeline.test_jobs import InOrder


@pytest.fixture(scope="session")
def tiny_bank(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bank") / "store"
    estimate(open_bank(replace(BANK, store=str(folder))), InOrder())
    return folder


@pytest.fixture(scope="module")
def store(tiny_bank, tmp_path_factory):
    return str(shutil.copytree(tiny_bank, tmp_path_factory.mktemp("sweeps") / "store"))


@pytest.fixture(scope="module")
def plain(store):
    """The request, what came of it, and the search that was asked."""
    noted = RecordingSearch()
    return *run_sweep(make_config(store), noted), noted
