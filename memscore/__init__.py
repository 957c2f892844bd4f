"""memscore: train banks of subset models and compute one row of scores per example.

Names are imported when they are first used, since the commands need few of them and PyArrow takes a second to import.
"""

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memscore.data.datasets import load_dataset
    from memscore.store.store import Store

    __version__: str

__all__ = ["Store", "__version__", "load_dataset"]

_MODULES = {"Store": "memscore.store.store", "load_dataset": "memscore.data.datasets"}


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name == "__version__":
        return metadata.version("memscore")
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'memscore' has no attribute {name!r}")
