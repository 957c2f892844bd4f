"""The names that memscore and its store export."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import memscore
import memscore.store
from memscore.data.datasets import load_dataset
from memscore.store.manifest import Manifest
from memscore.store.store import Store


def test_memscore_exports_its_public_names():
    version = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["version"]
    assert memscore.__all__ == ["Store", "__version__", "load_dataset"]
    assert (memscore.Store, memscore.load_dataset, memscore.__version__) == (Store, load_dataset, version)
    with pytest.raises(AttributeError, match="'memscore' has no attribute 'load'"):
        memscore.__getattr__("load")


def test_the_store_exports_two_names():
    assert memscore.store.__all__ == ["Manifest", "Store"]
    assert (memscore.store.Manifest, memscore.store.Store) == (Manifest, Store)


def test_importing_memscore_imports_nothing_slow():
    code = "import memscore, sys; print(sorted({'numpy', 'pyarrow', 'torch'} & sys.modules.keys()))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"
