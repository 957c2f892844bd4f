"""Compute memorization and privacy scores of every training example with one bank of subset models.

from memscore import Store, load_dataset

ids, values = Store.open("~/memscore/digits").score("memorization_k0.500")
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memscore.data.datasets import load_dataset
    from memscore.store import Store

    __version__: str

__all__ = ["Store", "__version__", "load_dataset"]

_MODULES = {"Store": "memscore.store", "load_dataset": "memscore.data.datasets"}


def __getattr__(name: str) -> Any:
    """Import an exported name on first use: a command's --help must not import pyarrow or torch."""
    if name == "__version__":
        return version("memscore")  # not at the top: a checkout that is not installed has none, and jobs run from it
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
