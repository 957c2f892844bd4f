"""Which engines trained the models of a bank, from its receipts."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from memscore.store.filesystem import Folder
from memscore.store.json_records import read_record

RECEIPTS_READ = 64  # spread over all models: a continued bank has another engine from some model on
THREADS = 8


def count_engines(folder: Folder) -> dict[str, int]:
    """Count the models of arms by the engine on their receipt; of a large bank some models only.

    Empty for a bank whose receipts have no engine, as those of imported models.
    """
    names = sorted(
        name
        for name in folder.names("receipts")
        if name.endswith(".json") and not name.startswith(("original-", "oracle-"))
    )
    chosen = np.unique(np.linspace(0, max(len(names) - 1, 0), min(len(names), RECEIPTS_READ)).astype(int))
    with ThreadPoolExecutor(THREADS) as pool:
        records = pool.map(lambda k: read_record(folder, f"receipts/{names[k]}"), chosen)
        return dict(Counter(record["engine"] for record in records if record.get("engine")))
