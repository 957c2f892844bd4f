"""Store of a bank: its files, their location, and whether they are intact."""

from memscore.store.manifest import Manifest
from memscore.store.store import Store

__all__ = ["Manifest", "Store"]
