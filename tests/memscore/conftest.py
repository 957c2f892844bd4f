"""What tests of whole commands share."""

import pytest


@pytest.fixture
def home(tmp_path, monkeypatch):
    """No token and no store in the developer's home, no cluster but a new one."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("MEMSCORE_HOME", "RAY_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """A finished bank of stacked models; read only."""
    from memscore.estimate import main
    from tests.fixtures.command import SERIAL, SMALL

    store = tmp_path_factory.mktemp("small") / "store"
    assert main(f"{SMALL} {SERIAL} --store {store}".split()) == 0
    return store


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A bank with every proxy, made as the command makes it, and its outcome; read only."""
    from cluster.pool import SerialPool
    from memscore.pipeline.runner import estimate
    from tests.fixtures.proxied import open_small_bank

    bank, _ = open_small_bank(tmp_path_factory.mktemp("proxies"))
    return bank, estimate(bank, SerialPool(), lambda done, total, line: None)
