"""What is stored, where, and whether it is complete."""

from memscore.store.manifest import Manifest
from memscore.store.store import Store

__all__ = ["Manifest", "Store"]
