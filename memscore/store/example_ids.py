"""The ids of a store's examples, read once in a process."""

import pyarrow as pa

from memscore.store.store import Store

MAX_CACHED = 4  # data sets; a million ids take some tens of megabytes
_ids: dict[str, pa.ChunkedArray] = {}


def read_example_ids(store: Store) -> pa.ChunkedArray:
    """Read the id of each row of train, validation and test; once for all stores of the same data."""
    # The fingerprint is a hash over the ids too, so that another process cannot change them under it.
    fingerprint = store.manifest.fingerprint
    if fingerprint not in _ids:
        if len(_ids) >= MAX_CACHED:
            _ids.clear()
        _ids[fingerprint] = store.examples()["id"]
    return _ids[fingerprint]
